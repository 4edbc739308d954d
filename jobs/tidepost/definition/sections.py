"""The sections of a job definition: one frozen model each, whose descriptions are the reference documentation.

Short forms become long ones before they are checked, so a section has one shape whatever was written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from tidepost.definition.arize import ArizeDefinition
from tidepost.definition.fields import (
    Address,
    Count,
    Duration,
    Flag,
    Moment,
    Name,
    Number,
    Referring,
    Rejects,
    SecretReference,
    Section,
    Size,
    Span,
    Text,
    Zone,
    fault,
    lengthen,
    parse_moment,
    shown,
)
from tidepost.definition.kafka import KafkaDefinition
from tidepost.definition.mapping import MappingDefinition
from tidepost.definition.units import RejectLimit
from tidepost.errors import Misconfigured
from tidepost.paths import check_template

CursorType: TypeAlias = Literal["timestamp", "date", "integer", "uuid"]
FileFormat: TypeAlias = Literal["parquet", "csv", "json"]
Drift: TypeAlias = Literal["fail", "ignore_new", "quarantine"]

_SUFFIX: Final = re.compile(
    r"\.(?:(parquet)|(csv|json|jsonl|ndjson)(?:\.(?:gz|zst))?)$",
    re.IGNORECASE,
)

_REFERENCE: Final = re.compile(r"\$\{[^{}]*\}")


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _path(value: str) -> str:
    try:
        check_template(_REFERENCE.sub("x", value))
    except ValueError as error:
        raise fault(str(error)) from None
    return value


Files = Annotated[
    tuple[Annotated[Referring, AfterValidator(_path)], ...],
    BeforeValidator(_listed, json_schema_input_type=Text | Annotated[list[Text], Field(min_length=1)]),
]


class SourceDefinition(Section):
    """Where inferences are logged: exactly one of `files`, `query`, `table`, `kafka`. Text or a list means files."""

    files: Files | None = Field(
        None,
        description="Files by name or glob, local (relative to the project's root) or in S3. `{start:%Y/%m/%d}` "
        "stands for the time of the cursor: then only what can hold a range is listed (see [sources](sources.md)).",
        examples=[
            "log/flights/*.parquet",
            "s3://bucket/log/{start:%Y/%m/%d}/*.parquet",
            ["a/*.csv.gz", "b/*.csv.gz"],
        ],
    )
    format: FileFormat | None = Field(
        None,
        description="What the files are. By default their suffix says it: .parquet; .csv; .json, .jsonl or .ndjson, "
        "one object a line; the text formats also with .gz or .zst.",
    )
    slack: Duration | None = Field(
        None,
        description="How far the cursor of a row may lie from the time in its file's path; by default the smallest "
        "unit that the path names. Rows further away are not found.",
        examples=["2h", "1d"],
    )
    query: Text | None = Field(
        None,
        description="One SELECT that yields the rows, in PostgreSQL's SQL with `postgres`, else in DuckDB's; the "
        "range of a cut is put around it.",
        examples=["SELECT * FROM flights JOIN carriers USING (carrier)"],
    )
    table: Text | None = Field(
        None,
        description="A table or view of `database` or `postgres`, with its schema where it needs one.",
        examples=["flights", "log.flights"],
    )
    database: Referring | None = Field(
        None,
        description="A DuckDB file, opened read-only; relative to the project's root. A table needs this or "
        "`postgres`.",
        examples=["log/inferences.duckdb"],
    )
    postgres: SecretReference | None = Field(
        None,
        description="A PostgreSQL database that `query` or `table` reads, by the reference of its URL: `${NAME}` of "
        "an environment variable that holds postgresql://USER:PASSWORD@HOST/DATABASE, or `${airflow:ID}` of one of "
        "Airflow's connections.",
        examples=["${SCORING_DATABASE}", "${airflow:scoring}"],
    )
    kafka: KafkaDefinition | None = Field(
        None,
        description="A Kafka topic.",
        examples=[{"bootstrap": "${KAFKA}", "topic": "inferences", "columns": {"id": "request.id"}}],
    )
    s3: SecretReference | None = Field(
        None,
        description="Who reads files in S3, by reference: one of Airflow's connections of the type `aws`, or a "
        "variable that holds such a connection's URI. By default, whom boto3 finds.",
        examples=["${airflow:logs_in_s3}"],
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [key for key in ("files", "query", "table", "kafka") if getattr(self, key) is not None]
        if len(given) != 1:
            said = f"has {' and '.join(given)}" if given else "has none of files, query, table and kafka"
            raise fault(f"{said}; give exactly one of files, query, table and kafka")
        if self.files is None and self.format:
            raise fault("only files have a format", "format")
        for key in ("database", "postgres"):
            if (self.files or self.kafka) and getattr(self, key):
                raise fault(f"belongs to a query or a table, not to {given[0]}", key)
        if self.database and self.postgres:
            raise fault("there is `database` already; give one of them", "postgres")
        if self.s3 and not any(name.startswith(("s3://", "${")) for name in self.files or ()):
            raise fault("belongs to files in S3", "s3")
        if self.files is not None and not self.files:
            raise fault("is empty; name at least one file or glob", "files")
        if self.files is not None and not self.format:
            raise fault("the names do not say one format; add `format: parquet`, csv or json", "files")
        if self.slack is not None and not self.templates:
            raise fault("belongs to files whose paths hold {start:…}", "slack")
        if self.table and not self.database and not self.postgres:
            raise fault("needs `database`, the DuckDB file that holds it, or `postgres`", "table")
        return self

    @property
    def nowhere(self) -> bool:
        """Whether there is no source: of labels that come by files alone."""
        return not (self.files or self.query or self.table or self.kafka)

    @property
    def templates(self) -> bool:
        """Whether paths say times."""
        return any("{start:" in name for name in self.files or ())


def _long(value: object) -> object:
    if isinstance(value, (str, list, tuple)):
        value = {"files": value}
    if isinstance(value, dict) and "files" in value:
        return {"format": _format(_listed(value["files"])), **value}
    return value


def _format(files: object) -> str | None:
    """The one format that the suffixes of all names agree on, or None."""
    names = [name for name in files if isinstance(name, str)] if isinstance(files, (list, tuple)) else []
    suffixes = [found and (found[1] or found[2]).lower() for found in map(_SUFFIX.search, names)]
    formats = {"json" if suffix in ("jsonl", "ndjson") else suffix for suffix in suffixes}
    return formats.pop() if len(formats) == 1 else None


AnySource = Annotated[
    SourceDefinition, BeforeValidator(_long, json_schema_input_type=SourceDefinition | Text | list[Text])
]


class CursorDefinition(Section):
    """The column that new rows are found by: best the time at which a row became visible in the source."""

    column: Text = Field(description="The column's name in the source.", examples=["logged_at"])
    type: CursorType | None = Field(
        None, description="What the column holds. By default the source says it, and the first slice pins it."
    )
    timezone: Zone | None = Field(
        None,
        description="The zone of a timestamp column that has none of its own; such a column is refused without it.",
        examples=["America/New_York"],
    )
    start: Moment = Field(
        description="Where the job begins: the first time, date, number or UUID of the cursor that is uploaded. A "
        "time needs a zone, or `timezone`; a date means its midnight there, or in UTC.",
        examples=["2013-01-01T05:00:00Z", "2013-01-01", 0],
    )
    settle: Duration = Field(
        timedelta(minutes=10),
        description="How long a row may take to become visible in the source; rows younger than that wait.",
    )
    lookback: Duration = Field(
        timedelta(days=1),
        description="How far each run looks back for rows that became visible later still.",
    )

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        if self.timezone and self.type in ("date", "integer", "uuid"):
            raise fault(f"only a timestamp cursor has a zone, and this one is of type {self.type}", "timezone")
        start = self.start if isinstance(self.start, int) else parse_moment(self.start)
        if isinstance(start, datetime) and start.tzinfo is None and not self.timezone:
            raise fault(f"{shown(self.start)} has no zone; append Z or an offset, or set cursor.timezone", "start")
        if self.type:
            try:
                self.start_for(self.type)
            except Misconfigured as error:
                raise fault(error.message, "start") from None
        return self

    def start_for(self, kind: CursorType) -> datetime | date | int | UUID:
        """`start` as a value of a cursor of that type: a datetime in UTC, a date, an int, or a UUID.

        Misconfigured: it is of another type.
        """
        start = self.start if isinstance(self.start, int) else parse_moment(self.start)
        if kind == "timestamp" and isinstance(start, date):
            if not isinstance(start, datetime):
                start = datetime(start.year, start.month, start.day)  # noqa: DTZ001 - the zone follows
            zone = ZoneInfo(self.timezone or "UTC")
            return (start if start.tzinfo else start.replace(tzinfo=zone)).astimezone(UTC)
        if type(start) is not {"timestamp": datetime, "date": date, "integer": int, "uuid": UUID}[kind]:
            needs = {
                "timestamp": "a time or a date",
                "date": "a date like 2013-01-01",
                "integer": "a whole number",
                "uuid": "a UUID like 00000000-0000-0000-0000-000000000000",
            }
            raise Misconfigured(f'"{self.start}" is no start for a cursor of type {kind}, which needs {needs[kind]}')
        return start


class StagingDefinition(Section):
    """How staged files are cut, and how long they stay."""

    partition: Literal["day", "hour"] = Field(
        "day", description="The folders of data files: one for each day or hour of the inferences' time, in UTC."
    )
    file_rows: Number = Field(500_000, description="Rows in one file, at most.")
    file_bytes: Size = Field(128_000_000, description="The size at which a file ends and the next begins.")
    keep: Duration = Field(
        timedelta(days=30), description="How long data files stay after every destination has closed them."
    )


class ModelReference(Section):
    """The model at the platform: exactly one of its ids. Text alone is short for `partner_id`."""

    partner_id: Referring | None = Field(None, description="Its partner model id.", examples=["flights-delay"])
    id: Referring | None = Field(None, description="The id that the platform gave it.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.partner_id is None) == (self.id is None):
            raise fault("give exactly one of partner_id and id")
        return self


class ArthurDefinition(Section):
    """A model on an Arthur platform that receives the inferences."""

    type: Literal["arthur"] = Field(description="The kind of destination.")
    name: Name = Field(
        "arthur", description="The destination's name in the ledger, where its deliveries are found by it."
    )
    url: Address = Field(description="The platform's address.", examples=["${ARTHUR_URL}", "${airflow:arthur}"])
    organization: Referring | None = Field(
        None, description="The organization's id, where the key is good for several.", examples=["${ARTHUR_ORG}"]
    )
    api_key: SecretReference = Field(
        description="The key, always by reference: `${NAME}` of an environment variable, or "
        "`${airflow:ID.password}` of one of Airflow's connections.",
        examples=["${ARTHUR_API_KEY}", "${airflow:arthur.password}"],
    )
    model: Annotated[
        ModelReference, BeforeValidator(lengthen("partner_id"), json_schema_input_type=ModelReference | Text)
    ] = Field(description="The model: its partner model id, or `{id: …}`.", examples=["flights-delay"])
    connections: Annotated[Number, Field(le=64)] = Field(4, description="Files sent at the same time.")
    timeout: Span = Field(timedelta(minutes=5), description="How long one request may take.")
    retries: Count = Field(5, description="How often a request is repeated that certainly did not arrive.")
    loading: Span = Field(
        timedelta(minutes=10), description="How long the platform may take to load what it has accepted."
    )
    poll: Span = Field(timedelta(seconds=2), description="The time between two questions while it loads.")
    shared: Flag = Field(
        False,
        description="`true` if anything else writes to this model: arrival is then confirmed by ids, not counts.",
    )
    on_unknown: Literal["stop", "resend"] = Field(
        "stop",
        description="What becomes of rows whose arrival cannot be found out: `stop` for a person, or `resend`, "
        "which may double them. Arthur can always be asked, so neither is needed there.",
    )
    ca_file: Referring | None = Field(
        None,
        description="Certificates of your own authority (PEM); relative to the project's root. Proxies come from "
        "the environment.",
        examples=["certs/ca.pem"],
    )

    request_rows: ClassVar[int | None] = None
    """A request is a file, however many rows it has."""
    merges: ClassVar[bool] = False
    """A row that comes again is refused, or is there twice."""

    @property
    def model_name(self) -> str:
        """The model as the definition names it."""
        return self.model.partner_id or self.model.id or ""

    @property
    def identity(self) -> dict[str, Any]:
        """What may not change under a job that has sent rows."""
        model = self.model.model_dump(exclude_none=True)
        return {"type": self.type, "organization": self.organization, "model": model}

    def resolved(self, text: Callable[..., str | None], file: Callable[..., str | None]) -> Self:
        """With each reference replaced: `text` and `file` take a value as written, and its keys from here."""
        url, organization = (text(getattr(self, key), key) for key in ("url", "organization"))
        ids = {key: text(getattr(self.model, key), "model", key) for key in ("partner_id", "id")}
        update = {
            "url": url,
            "organization": organization,
            "model": self.model.model_copy(update=ids),
            "ca_file": file(self.ca_file, "ca_file"),
        }
        return self.model_copy(update=update)

    def misfits(self, mapping: MappingDefinition, *at: str | int) -> Iterator[PydanticCustomError]:
        """Nothing: what Arthur takes is its model's to say."""
        yield from ()


DestinationDefinition: TypeAlias = Annotated[ArthurDefinition | ArizeDefinition, Field(discriminator="type")]
"""Every kind of destination, told apart by `type`."""
DESTINATIONS: Final = ("arthur", "arize")


def _null(value: object) -> object:
    return "null" if value is None else value


class LimitsDefinition(Section):
    """What a run may take, and how many bad rows it bears."""

    cut_rows: Number = Field(250_000, description="The rows that one cut aims at.")
    rejects: Rejects = Field(
        RejectLimit(percent=Decimal(1)),
        description="Rejected rows of a slice, as a share of its candidate rows or as a number; above it the slice "
        "is held.",
        examples=["1%", 100],
    )
    non_finite: Annotated[
        Literal["reject", "null"], BeforeValidator(_null, json_schema_input_type=Literal["reject", "null"] | None)
    ] = Field(
        "reject",
        description="What becomes of NaN and infinity in inputs and non-inputs: they reject the row, or become null. "
        "In predictions they always reject it.",
    )
    memory: Size = Field(256_000_000, description="DuckDB's memory limit.")
    threads: Number = Field(
        default_factory=lambda: min(4, os.cpu_count() or 1),
        description="DuckDB's threads. Default: one for each CPU, at most 4.",
    )


def _mail(value: str) -> str:
    name, at, host = value.partition("@")
    if not (name and at and host) or "@" in host or any(sign.isspace() for sign in value):
        raise fault(f"{shown(value)} is no mail address")
    return value


class AirflowDefinition(Section):
    """How the job's DAG runs on Airflow. `schedule`, `timezone`, `owner` and `tags` stand at the top of the file."""

    pool: Text = Field("default_pool", description="The pool that the job's tasks take their slots from.")
    retries: Count = Field(
        5,
        description="How often a task is tried again after an error that a retry can mend. What no retry can mend "
        "fails at once.",
    )
    retry_delay: Span = Field(
        timedelta(minutes=1),
        description="How long the first retry waits; each further one twice as long, an hour at most. A platform "
        "that says when to come back is heeded.",
    )
    timeout: Span = Field(timedelta(hours=6), description="How long one task may take; then it is ended and retried.")
    parallel: Number = Field(4, description="Cuts of one run that are uploaded at the same time.")
    runs: Number = Field(4, description="Runs at the same time. For politeness: any number of them does no harm.")
    freshness: Span | None = Field(
        None,
        description="How long after it is due a run may take until everything has arrived. Later, the job's people "
        "are told the mark and how late it is.",
        examples=["2h"],
    )
    notify: tuple[Annotated[Text, AfterValidator(_mail)], ...] = Field(
        (),
        description="Mail addresses that are told when a run fails or is late, by Airflow's connection "
        "`smtp_default`.",
        examples=[["delays@example.com"]],
    )
