"""Where rows came from and went to, in the shape of Airflow's OpenLineage provider."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.airflow.running import Ran
from tests.world import World, rows

from tidepost.definition.project import load_project

pytestmark = pytest.mark.usefixtures("airflow_home")


@pytest.mark.parametrize(
    ("source", "url", "namespace", "name"),
    [
        ({"files": "s3://bucket/log/{start:%Y/%m}/*.parquet"}, None, "s3://bucket", "log"),
        ({"files": "s3://bucket/*.parquet"}, None, "s3://bucket", "/"),
        ({"files": "/log/2013/[ab]*/x.parquet"}, None, "file", "/log/2013"),
        ({"files": "/log/all.parquet"}, None, "file", "/log/all.parquet"),
        ({"table": "scores", "database": "/log/x.duckdb"}, None, "file", "/log/x.duckdb"),
        (
            {"table": "scores", "postgres": "${DB}"},
            "postgresql://me:hunter2@db:5433/log?sslmode=require",
            "postgres://db:5433",
            "log.public.scores",
        ),
        ({"table": "live.scores", "postgres": "${DB}"}, "postgresql://me@db/log", "postgres://db", "log.live.scores"),
        (
            {"query": "SELECT 'hunter2'", "postgres": "${DB}"},
            "postgresql:///log?host=/run/postgresql",
            "postgres:///run/postgresql",
            "log",
        ),
    ],
)
def test_a_source_has_the_name_that_others_know_it_by(
    world: World, source: dict[str, str], url: str | None, namespace: str, name: str
) -> None:
    from tidepost.airflow.lineage import Dataset, sources  # noqa: PLC0415

    world.define(source=None)
    world.define(source=source)
    job = load_project(world.root).job("flights").resolved(world.env)
    assert sources(job, url) == (Dataset(namespace, name),)


def test_a_topic_is_named_by_its_first_broker() -> None:
    from tidepost.airflow.lineage import Dataset, topic  # noqa: PLC0415

    assert topic("kafka-1:9092, kafka-2:9092", "inferences") == Dataset("kafka://kafka-1:9092", "inferences")


def flow() -> Any:
    from tidepost.airflow.lineage import Dataset, Flow, counted  # noqa: PLC0415

    return Flow(
        (counted(Dataset("file", "/log"), rows=12),),
        (counted(Dataset("s3://b", "flights"), rows=10, size=99, files=2), Dataset("https://arthur", "models/m")),
    )


def test_a_flow_is_what_the_provider_takes() -> None:
    from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415
    from openlineage.client.serde import Serde  # noqa: PLC0415

    from tidepost.airflow.lineage import facets  # noqa: PLC0415

    found = facets(flow())
    assert isinstance(found, OperatorLineage)
    (source,) = found.inputs
    assert (source.namespace, source.name, source.inputFacets["inputStatistics"].rowCount) == ("file", "/log", 12)
    staged, model = found.outputs
    statistics = staged.outputFacets["outputStatistics"]
    assert (statistics.rowCount, statistics.size, statistics.fileCount) == (10, 99, 2)
    assert model.outputFacets == {}
    assert '"rowCount": 10' in Serde.to_json(staged)


def test_without_the_provider_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidepost.airflow.lineage import facets  # noqa: PLC0415

    monkeypatch.setattr("tidepost.airflow.lineage.PROVIDER", "airflow.providers.not_there")
    assert facets(flow()) is None
    monkeypatch.setattr("tidepost.airflow.lineage.PROVIDER", "nowhere.providers.not_there")
    assert facets(flow()) is None


def test_a_task_tells_what_it_moved_to_the_provider_itself(
    world: World, run_dag: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.openlineage.extractors.base import DefaultExtractor  # noqa: PLC0415
    from airflow.sdk import DAG  # noqa: PLC0415

    from tidepost.airflow.operators import UploadOperator  # noqa: PLC0415

    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    world.define(name="moved")
    world.log("monday", rows(60))
    told: list[Any] = []

    class Told(UploadOperator):
        def post_execute(self, context: Any, result: Any = None) -> None:
            told.append(DefaultExtractor(self).extract_on_complete(SimpleNamespace()))

    with DAG("uploads_moved", schedule=None) as dag:
        Told(task_id="upload", job="moved", project=str(world.root))
    assert run_dag(dag).state == "success"
    (found,) = told
    (source,) = found.inputs
    assert (source.namespace, source.name) == ("file", str(world.root / "log"))
    assert source.inputFacets["inputStatistics"].rowCount == 60
    staged, model = found.outputs
    data = world.root / ".tidepost" / "staging" / "moved" / "inferences" / "data"
    assert (staged.namespace, staged.name) == ("file", str(data))
    statistics = staged.outputFacets["outputStatistics"]
    assert statistics.rowCount == 60
    assert statistics.size == sum(path.stat().st_size for path in data.rglob("*.parquet"))
    assert (model.namespace, model.name) == (world.platform.url, f"models/{world.model}")
    assert model.outputFacets["outputStatistics"].rowCount == 60


def test_a_task_that_moved_nothing_tells_nothing() -> None:
    from tidepost.airflow.operators import CutOperator  # noqa: PLC0415

    task = CutOperator(task_id="upload", job="flights", cut=1)
    assert task.get_openlineage_facets_on_complete(None) is None
