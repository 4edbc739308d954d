"""Where rows came from and went to, as OpenLineage tells it, where Airflow's provider for that is installed.

Datasets are named as https://openlineage.io/docs/spec/naming says. No name holds a user, a password or a query.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from tidepost.definition.job import Job

PROVIDER: Final = "airflow.providers.openlineage"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Something that rows are in; `rows`, `size` in bytes and `files` are those of one task, None where unknown."""

    namespace: str
    name: str
    rows: int | None = None
    size: int | None = None
    files: int | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """What one task moved."""

    inputs: tuple[Dataset, ...] = ()
    outputs: tuple[Dataset, ...] = ()


def sources(job: Job, url: str | None = None) -> tuple[Dataset, ...]:
    """What a resolved job reads.

    url: of its PostgreSQL database, of which only host and names are used
    """
    source, labels = job.source, job.ground_truth
    dropped = labels.files.paths if job.labels and labels is not None and labels.files is not None else ()
    found = [_place(_folder(file)) for file in (*(source.files or ()), *dropped)]
    if source.database:
        found.insert(0, _place(source.database))
    if url:
        found.insert(0, _of_postgres(url, source.table))
    return tuple(dict.fromkeys(found))


def topic(bootstrap: str, name: str) -> Dataset:
    """A topic of Kafka, by the first of its brokers."""
    return Dataset(f"kafka://{bootstrap.partition(',')[0].strip()}", name)


def staging(place: str) -> Dataset:
    """A stream's data files; `place` as the staging's `where` tells it."""
    return _place(place)


def models(job: Job) -> tuple[Dataset, ...]:
    """The models at the platforms of a resolved job, in the order of its destinations."""
    return tuple(Dataset(_authority(to.url), f"models/{to.model_name}") for to in job.destinations)


def counted(of: Dataset, *, rows: int, size: int | None = None, files: int | None = None) -> Dataset:
    """A dataset with what a task read or wrote of it."""
    return replace(of, rows=rows, size=size, files=files)


def facets(flow: Flow | None) -> Any:
    """A flow as the provider's `OperatorLineage`; None where there is no flow, or the provider is not installed."""
    if flow is None or not installed():
        return None
    from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415 - not everybody has it
    from openlineage.client.event_v2 import InputDataset, OutputDataset  # noqa: PLC0415
    from openlineage.client.facet_v2 import (  # noqa: PLC0415
        input_statistics_input_dataset,
        output_statistics_output_dataset,
    )

    read = input_statistics_input_dataset.InputStatisticsInputDatasetFacet
    written = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    return OperatorLineage(
        inputs=[
            InputDataset(one.namespace, one.name, inputFacets=_statistics("inputStatistics", read, one))
            for one in flow.inputs
        ],
        outputs=[
            OutputDataset(one.namespace, one.name, outputFacets=_statistics("outputStatistics", written, one))
            for one in flow.outputs
        ],
    )


def installed() -> bool:
    """Whether Airflow's provider for OpenLineage is there."""
    try:
        return find_spec(PROVIDER) is not None
    except ModuleNotFoundError:
        return False


def _statistics(name: str, facet: Any, of: Dataset) -> dict[str, Any]:
    return {} if of.rows is None else {name: facet(rowCount=of.rows, size=of.size, fileCount=of.files)}


def _place(path: str) -> Dataset:
    if path.startswith("s3://"):
        bucket, _, key = path.removeprefix("s3://").partition("/")
        return Dataset(f"s3://{bucket}", key.strip("/") or "/")
    return Dataset("file", path)


def _folder(file: str) -> str:
    """The folder below which every file is that a name or a template stands for."""
    fixed = re.split(r"[*?\[{]", file, maxsplit=1)[0]
    return file if fixed == file else fixed.rpartition("/")[0] or "/"


def _of_postgres(url: str, table: str | None) -> Dataset:
    parts = urlsplit(url)
    port = "" if parts.port is None else f":{parts.port}"
    host = parts.hostname or parse_qs(parts.query).get("host", ["localhost"])[0]
    database = unquote(parts.path.strip("/")) or "postgres"
    if table is None:
        return Dataset(f"postgres://{host}{port}", database)
    schema = "" if "." in table else "public."
    return Dataset(f"postgres://{host}{port}", f"{database}.{schema}{table}")


def _authority(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
