"""A job: one model's upload, as one YAML file defines it.

`load_job` turns a file, merged over the project's defaults, into a frozen `Job`, or into one `Misconfigured` that
names every problem with file, line, column and key. Secrets and `${…}` references stay as written;
`Job.resolved` replaces the references when a run starts, and only the wiring resolves secrets.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tidepost.definition.arize import ArizeDefinition
from tidepost.definition.explain import validated
from tidepost.definition.fields import NAME_PATTERN, Name, Schedule, Schema, Section, Text, Version, Zone, fault
from tidepost.definition.kafka import OFFSET
from tidepost.definition.labelling import BY_FILES, NO_SOURCE, GroundTruthDefinition
from tidepost.definition.mapping import RESERVED, Attribute, AttributeType, MappingDefinition, TimestampDefinition
from tidepost.definition.reference import Secret, resolve
from tidepost.definition.sections import (
    AirflowDefinition,
    AnySource,
    ArthurDefinition,
    CursorDefinition,
    CursorType,
    DestinationDefinition,
    Drift,
    FileFormat,
    LimitsDefinition,
    ModelReference,
    SourceDefinition,
    StagingDefinition,
)
from tidepost.definition.template import Template
from tidepost.definition.units import RejectLimit
from tidepost.definition.yamlfile import Document, KeyPath, Place, Places, Value, path_text, read_yaml
from tidepost.errors import Misconfigured, TidepostError
from tidepost.model import StreamName

if TYPE_CHECKING:
    from tidepost.definition.project import Project

__all__ = [
    "NAME_PATTERN",
    "RESERVED",
    "AirflowDefinition",
    "ArizeDefinition",
    "ArthurDefinition",
    "Attribute",
    "AttributeType",
    "CursorDefinition",
    "CursorType",
    "DestinationDefinition",
    "Drift",
    "FileFormat",
    "GroundTruthDefinition",
    "Job",
    "LimitsDefinition",
    "MappingDefinition",
    "ModelReference",
    "Origin",
    "RejectLimit",
    "Secret",
    "SourceDefinition",
    "StagingDefinition",
    "Template",
    "TimestampDefinition",
    "json_schema_text",
    "load_job",
    "resolve",
    "schema",
]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a job comes from: its file, the project's root, the places of its keys, and the job as written."""

    path: Path
    root: Path
    places: Places


_KEY = re.compile(
    r"(?:source|cursor|mapping|destinations?|ground_truth|limits|kafka)(?:\.\w+|\[\d+\])*(?=: )", re.ASCII
)
"""A key of a definition at the beginning of a message; what a topic is asked for has its own."""


class Job(Section):
    """One model's upload, as one file defines it."""

    version: Version = Field(description="The version of this format.")
    name: Name = Field(
        description="The job's name, which no other job of the project has: up to 63 lower-case letters, digits, "
        "`_` and `-`.",
        examples=["flights"],
    )
    description: str | None = Field(None, description="What the job is, for people.")
    owner: str | None = Field(None, description="Whom to ask about it.", examples=["delays@example.com"])
    tags: tuple[Text, ...] = Field((), description="Words to find jobs by.", examples=[["production"]])
    schedule: Schedule | None = Field(
        None,
        description="When the job runs: a cron expression of five fields, `@hourly` or `@daily`. Without it the job "
        "runs when asked.",
        examples=["@hourly", "15 3 * * *"],
    )
    timezone: Zone = Field("UTC", description="The zone of the schedule.", examples=["Europe/Berlin"])
    source: AnySource = Field(description="Where inferences are logged.", examples=["log/flights/*.parquet"])
    cursor: CursorDefinition = Field(
        description="The column that new rows are found by. Of a topic it is `{column: offset, start: 0}` if nothing "
        "else is said."
    )
    mapping: MappingDefinition = Field(description="Which columns become which parts of an inference.")
    staging: StagingDefinition = Field(StagingDefinition(), description="How staged files are cut and kept.")
    drift: Drift = Field(
        "ignore_new",
        description="What to do when the source's columns change. `fail`: a new column, a mapped one that is gone, "
        "or one whose type does not fit any more ends the run before anything is staged. `ignore_new`: new columns "
        "are told once and left out; the others end the run. `quarantine`: new columns are left out, and rows that "
        "no longer fit are set aside as rejects while the others go on.",
    )
    destinations: tuple[DestinationDefinition, ...] = Field(
        (),
        description="The platforms that receive the inferences, where there are several: each with a name of its "
        "own, its own deliveries, mark and limits (see [destinations](destinations.md#several-destinations)).",
    )
    destination: DestinationDefinition | None = Field(
        None,
        validate_default=True,
        description="The platform that receives the inferences; short for `destinations` with one.",
    )
    limits: LimitsDefinition = Field(
        LimitsDefinition(), description="How much a run may take, and how many bad rows it bears."
    )
    ground_truth: GroundTruthDefinition | None = Field(
        None, description="Labels, which join their inferences at the platform (see [ground truth](ground-truth.md))."
    )
    airflow: AirflowDefinition = Field(AirflowDefinition(), description="How the job's DAG runs on Airflow.")

    @model_validator(mode="before")
    @classmethod
    def _a_topic_has_its_cursor(cls, data: Any) -> Any:
        match data:
            case {"source": {"kafka": _}, **others} if isinstance(own := others.get("cursor", {}), dict):
                return {**data, "cursor": {"column": OFFSET, "start": 0, **own}}
        return data

    @model_validator(mode="after")
    def _paths_fit_the_cursor(self) -> Self:
        if self.source.templates and (self.cursor.type == "integer" or isinstance(self.cursor.start, int)):
            raise fault("holds {start:…}, which needs a cursor that is a time, not a number", "source", "files")
        return self

    @model_validator(mode="after")
    def _offsets_are_kafkas_cursor(self) -> Self:
        if self.source.kafka is None:
            return self
        if self.cursor.column != OFFSET:
            raise fault(f"must be `{OFFSET}` for messages of Kafka", "cursor", "column")
        if (
            not isinstance(self.cursor.start, int)
            or self.cursor.start < 0
            or self.cursor.type not in (None, "integer")
        ):
            raise fault("must be an offset for messages of Kafka: 0, or a higher number", "cursor", "start")
        return self

    @model_validator(mode="after")
    def _labels_beside(self) -> Self:
        if self.ground_truth is None:
            return self
        mapped = {one.name.lower() for one in self.mapping.attributes}
        for number, one in enumerate(self.ground_truth.attributes):
            if one.name.lower() in mapped:
                raise fault(f'"{one.name}" is in the mapping already', "ground_truth", "attributes", number)
        return self

    @field_validator("destination")
    @classmethod
    def _one_or_several(
        cls, value: DestinationDefinition | None, info: ValidationInfo
    ) -> DestinationDefinition | None:
        if value is not None and info.data.get("destinations"):
            raise fault("there are `destinations` already; give one of them")
        if value is None and info.data.get("destinations") == ():
            raise PydanticCustomError("missing", "is missing")
        return value

    @model_validator(mode="after")
    def _destinations_fit(self) -> Self:
        if self.destination is not None:
            self._alone = True
            object.__setattr__(self, "destinations", (self.destination,))
            object.__setattr__(self, "destination", None)
        seen: set[str] = set()
        for number, to in enumerate(self.destinations):
            if to.name in seen:
                key = "name" if "name" in to.model_fields_set else "type"
                raise fault(f'another one is called "{to.name}"; give it a `name` of its own', *self.at(number), key)
            seen.add(to.name)
            for misfit in to.misfits(self.mapping, *self.at(number)):
                raise misfit
        return self

    _origin: Origin | None = PrivateAttr(None)
    _written: Job | None = PrivateAttr(None)
    _whole: Job | None = PrivateAttr(None)
    _stream: StreamName = PrivateAttr(StreamName.INFERENCES)
    _alone: bool = PrivateAttr(False)

    def at(self, number: int) -> KeyPath:
        """Where in the file one of the destinations stands."""
        return ("destination",) if self._alone else ("destinations", number)

    def to(self, name: str) -> DestinationDefinition:
        """The destination of that name."""
        return next(one for one in self.destinations if one.name == name)

    @property
    def stream(self) -> StreamName:
        """The flow of rows that source, cursor, mapping and limits are of."""
        return self._stream

    @property
    def labels(self) -> tuple[Attribute, ...]:
        """The attributes of a row of ground truth; empty for inferences."""
        return self.mapping.non_inputs if self._stream is StreamName.GROUND_TRUTH else ()

    def of_labels(self) -> Job | None:
        """The job as its ground truth's stream sees it: with the labels' source, cursor, mapping and limits in place
        of the inferences'; None where it has none."""
        of = self.ground_truth
        if of is None:
            return None
        seen = self.model_copy(
            update={
                "source": of.source or NO_SOURCE,
                "cursor": of.cursor or BY_FILES,
                "mapping": of.mapping(self.mapping.partner_inference_id),
                "limits": of.limits or self.limits,
            }
        )
        seen._written = self._written or self
        seen._stream = StreamName.GROUND_TRUTH
        seen._whole = self
        return seen

    @property
    def whole(self) -> Job:
        """The job with its inferences in place, of which this may be the labels' view."""
        return self._whole or self

    @property
    def path(self) -> Path:
        """The file that the job was loaded from."""
        return self._loaded.path

    @property
    def root(self) -> Path:
        """The root of the job's project, which relative paths begin at."""
        return self._loaded.root

    @property
    def _loaded(self) -> Origin:
        if self._origin is None:
            raise RuntimeError(f"job {self.name} was not loaded from a file")
        return self._origin

    def where(self, *path: str | int) -> str:
        """`jobs/flights.yaml:7:3: mapping.inputs[2]`: a key as messages name it, by its path from the top.

        A key that is not written stands where the nearest key around it does.
        """
        if self._stream is StreamName.GROUND_TRUTH and path[:1] in (("source",), ("cursor",), ("limits",)):
            path = ("ground_truth", *path)
        key = path_text(path)
        return f"{self._origin.places.of(path)}: {key}" if self._origin else key

    def place(self, error: TidepostError) -> None:
        """Let an error that begins with a key of the definition say in which file, and where, that key is written."""
        found = _KEY.match(error.message)
        if found is not None and self._origin is not None:
            words = [int(word) if word.isdigit() else word for word in re.findall(r"\w+", found[0])]
            path = ("source", *words) if words[0] == "kafka" else words
            error.message = self.where(*path) + error.message[found.end() :]

    @contextmanager
    def placed(self) -> Iterator[None]:
        """`place` an error that leaves the block."""
        try:
            yield
        except TidepostError as error:
            self.place(error)
            raise

    @property
    def definition_hash(self) -> str:
        """SHA-256 (hex) of what shapes rows: source, cursor column, type and zone, and mapping.

        Made of the definition as written: it is the same on every machine, in the short and the long form, and
        whatever the order of attributes, and it does not change with a later version's new keys.
        """
        written = self._written or self
        shape = written.model_dump(
            mode="json",
            include={"source": True, "cursor": {"column", "type", "timezone"}, "mapping": True},
            exclude_none=True,
        )
        del shape["mapping"]["ignore"]  # shapes no row
        shape["source"].pop("s3", None)  # nor does who reads it
        for key in ("bootstrap", "group", "on_poison", "options"):
            shape["source"].get("kafka", {}).pop(key, None)
        for attributes in ("inputs", "predictions", "non_inputs"):
            shape["mapping"][attributes].sort(key=lambda attribute: attribute["name"])
        text = json.dumps(shape, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """What may not change under a job that has sent rows, as plain JSON values: the cursor's column and type,
        the id template, and for each destination by name its type and what it sends to.

        References are as they are in this job: ask a resolved one.
        """
        return {
            "cursor": {"column": self.cursor.column, "type": self.cursor.type},
            "partner_inference_id": self.mapping.partner_inference_id.text,
            "destinations": {to.name: to.identity for to in self.destinations},
        }

    @property
    def file_rows(self) -> int:
        """Rows in one staged file, at most: no more than go in one request anywhere, so that a file is known as a
        whole."""
        most = [to.request_rows for to in self.destinations if to.request_rows is not None]
        return min([self.staging.file_rows, *most])

    def resolved(self, env: Mapping[str, str] | None = None) -> Job:
        """This job with each `${…}` replaced from `env` (default: the process's environment) and each path absolute.

        Secrets stay references. `definition_hash` stays that of the job as written.
        Misconfigured: variables or connections are missing; all are named, each with file, line and key.
        """
        env = os.environ if env is None else env
        faults: list[Misconfigured] = []

        def text(value: str | None, *path: str | int) -> str | None:
            try:
                return None if value is None else resolve(value, env, where=self.where(*path))
            except Misconfigured as error:
                faults.append(error)
                return None

        def file(value: str | None, *path: str | int) -> str | None:
            found = text(value, *path)
            return found and absolute(self.root, found)

        pattern_root = Path(glob.escape(str(self.root)))

        def found(source: SourceDefinition, *at: str) -> SourceDefinition:
            files = source.files and tuple(
                text(name, *at, "files", number) or "" for number, name in enumerate(source.files)
            )
            return source.model_copy(
                update={
                    "files": files and tuple(absolute(pattern_root, name) for name in files),
                    "database": file(source.database, *at, "database"),
                }
            )

        def below(at: KeyPath, of: Callable[..., str | None]) -> Callable[..., str | None]:
            return lambda value, *path: of(value, *at, *path)

        labels = self.ground_truth
        update: dict[str, Any] = {
            "source": found(self.source, "source"),
            "ground_truth": labels
            and labels.model_copy(
                update={
                    "source": labels.source and found(labels.source, "ground_truth", "source"),
                    "files": labels.files
                    and labels.files.model_copy(
                        update={
                            "paths": tuple(
                                absolute(pattern_root, text(name, "ground_truth", "files", "paths", number) or "")
                                for number, name in enumerate(labels.files.paths)
                            )
                        }
                    ),
                }
            ),
            "destinations": tuple(
                to.resolved(below(self.at(number), text), below(self.at(number), file))
                for number, to in enumerate(self.destinations)
            ),
        }
        if faults:
            hints = dict.fromkeys(error.hint for error in faults)
            raise Misconfigured("\n".join(error.message for error in faults), hint="\n  ".join(hints))
        job = self.model_copy(update=update)
        job._written = self._written or self
        return job


def absolute(root: Path, path: str) -> str:
    """A path that begins at `root` unless it is absolute; a URL (`scheme://…`) as it is."""
    return path if "://" in path else os.path.normpath(root / path)


def load_job(path: Path, project: Project) -> Job:
    """The job that the file at `path` defines, its gaps filled from the project's defaults.

    A relative path begins at the project's root. Nothing is read but this file, and no reference is resolved.
    Misconfigured: every problem of the file, a line each: `file:line:column: key: what to mend`.
    """
    path = project.root / path
    name = path.relative_to(project.root) if path.is_relative_to(project.root) else path
    return define_job(path, read_yaml(path, str(name)), project)


def define_job(path: Path, document: Document, project: Project) -> Job:
    """As `load_job`, of a file that has been read already."""
    document = merge(document, project.defaults, project.places)
    job = validated(Job, document)
    job._origin = Origin(path, project.root, document.places)
    return job


def merge(document: Document, defaults: Mapping[str, Value], places: Places) -> Document:
    """`document` over `defaults`, mapping by mapping; what is no mapping on both sides is the document's own, and so
    are its destinations, where one side has one and the other a list.

    A value from the defaults keeps its place there; `places` holds them under their paths in a job.
    """
    found: dict[KeyPath, Place] = dict(document.places.found)

    of_the_other_form = {"destination": "destinations", "destinations": "destination"}
    base_of_all = {key: value for key, value in defaults.items() if of_the_other_form.get(key) not in document.data}

    def over(own: dict[str, Value], base: Mapping[str, Value], path: KeyPath) -> dict[str, Value]:
        result = dict(own)
        for key, value in base.items():
            at = (*path, key)
            if key not in own:
                result[key] = value
                found.update({path: place for path, place in places.found.items() if path[: len(at)] == at})
            elif isinstance(value, dict) and isinstance(mine := own[key], dict):
                result[key] = over(mine, value, at)
        return result

    return replace(document, data=over(document.data, base_of_all, ()), places=Places(found))


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a job file, with every short form, for editors.

    It does not know the project's defaults: an editor may miss a key that they provide.
    """
    generated = Job.model_json_schema(mode="validation", schema_generator=Schema)
    generated["oneOf"] = [{"required": ["destination"]}, {"required": ["destinations"]}]
    generated["required"].remove("cursor")
    generated["if"] = {"properties": {"source": {"type": "object", "required": ["kafka"]}}}
    generated["else"] = {"required": ["cursor"]}
    for part in generated["$defs"].values():
        part.pop("title", None)
    return {"$schema": Schema.schema_dialect, **generated, "title": "A tidepost job"}


def json_schema_text() -> str:
    """`schema()` as the text of a file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
