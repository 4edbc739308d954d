"""From a job to its source, and to where its files of labels are put down. With `wire.py` the only file that names
adapters and resolves secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tidepost.definition.reference import resolve
from tidepost.errors import Misconfigured
from tidepost.model import Stream
from tidepost.s3.account import s3_of

if TYPE_CHECKING:
    from tidepost.cursor import CursorType
    from tidepost.definition.job import Job
    from tidepost.definition.kafka import KafkaDefinition
    from tidepost.engine import Engine
    from tidepost.ports import Drop, Drops, Records, Source
    from tidepost.ranges import Range

CACHE: Final = Path(".tidepost", "cache")
"""Below a project's root: what may be thrown away at any time."""


def source_of(
    job: Job,
    engine: Engine,
    env: Mapping[str, str] | None = None,
    *,
    stream: Callable[[], Stream | None] = lambda: None,
    records: Records | None = None,
    lose: Callable[[str, Range], None] | None = None,
) -> Source:
    """A job's source. Raises Misconfigured for a reference without its variable, or an extra that is not installed.

    stream:  the job's, as the ledger has it when it is asked for; labels that come by files alone have their columns
    records: hold the files of labels that were named by hand
    lose:    records what the source has lost and was given up; None where nothing is
    """
    from tidepost.cursor import CursorType  # noqa: PLC0415
    from tidepost.sources.duckdb import DuckDBSource, Origin  # noqa: PLC0415

    source, cursor = job.source, job.cursor
    if source.nowhere:
        return _files_alone(job, engine, env, stream, records)
    declared = CursorType(cursor.type) if cursor.type is not None else None
    if source.postgres is not None:
        url = resolve(str(source.postgres), env, where=job.where("source", "postgres"))
        return _postgres_source(job, url, declared)
    if source.kafka is not None:
        return _kafka_source(job, source.kafka, env, lose)
    origin = Origin(
        files=source.files or (),
        format=source.format or "parquet",
        query=source.query,
        table=source.table,
        database=Path(source.database) if source.database else None,
        slack=None if source.slack is None else source.slack.total_seconds(),
        cache=job.root / CACHE,
        s3=s3_of(source.s3, env, job.where("source", "s3")),
    )
    return DuckDBSource(origin, engine, column=cursor.column, declared=declared, zone=cursor.timezone)


def drops_of(job: Job, env: Mapping[str, str] | None = None) -> Drops:
    """Where the job's files of labels are put down."""
    from tidepost.sources.drops import DroppedFiles  # noqa: PLC0415

    files = None if job.ground_truth is None else job.ground_truth.files
    s3 = s3_of(job.source.s3, env, job.where("source", "s3"))
    if files is None:
        return DroppedFiles((), None, s3)
    own = s3_of(files.s3, env, job.where("ground_truth", "files", "s3"))
    return DroppedFiles(files.paths, files.format, own or s3)


def _files_alone(
    job: Job,
    engine: Engine,
    env: Mapping[str, str] | None,
    stream: Callable[[], Stream | None],
    records: Records | None,
) -> Source:
    from tidepost.labels.dropping import every_registered  # noqa: PLC0415
    from tidepost.rows.recast import ZONED  # noqa: PLC0415
    from tidepost.sources.alone import FilesAlone  # noqa: PLC0415

    def known() -> Mapping[str, str]:
        found = stream()
        return found.columns if found is not None and found.pinned else {}

    def staged() -> Mapping[str, str]:
        now, time = stream(), job.mapping.inference_timestamp
        if now is None or not now.pinned:
            return {}
        found = dict.fromkeys(job.mapping.partner_inference_id.columns, "VARCHAR")
        found[time.column] = ZONED if time.timezone is None else "TIMESTAMP"
        return found | {one.column: now.pinned[one.name] for one in job.labels if one.name in now.pinned}

    def named() -> Iterable[Drop]:
        now = stream() or Stream(0, job.name, job.stream)
        return () if records is None else every_registered(records, now)

    needed = [*job.mapping.keys, *(one.column for one in job.labels if not one.optional)]
    return FilesAlone(
        job.name,
        drops_of(job, env),
        engine,
        needed=tuple(dict.fromkeys(needed)),
        named=named,
        known=known,
        staged=staged,
    )


def _postgres_source(job: Job, url: str, declared: CursorType | None) -> Source:
    try:
        # Imported here: its driver is an extra.
        from tidepost.sources.postgres.source import Origin, PostgresSource  # noqa: PLC0415
    except ImportError:
        raise Misconfigured(
            f"{job.where('source', 'postgres')}: a source in PostgreSQL needs a driver that is not installed",
            hint="Install it:  pip install 'tidepost[postgres]'",
        ) from None
    origin = Origin(table=job.source.table, query=job.source.query)
    return PostgresSource(url, origin, column=job.cursor.column, declared=declared, zone=job.cursor.timezone)


def _kafka_source(
    job: Job, to: KafkaDefinition, env: Mapping[str, str] | None, lose: Callable[[str, Range], None] | None
) -> Source:
    try:
        # Imported here: its client is an extra.
        from tidepost.sources.kafka.client import Cluster  # noqa: PLC0415
        from tidepost.sources.kafka.columns import Column  # noqa: PLC0415
        from tidepost.sources.kafka.source import KafkaSource, Reading  # noqa: PLC0415
    except ImportError:
        raise Misconfigured(
            f"{job.where('source', 'kafka')}: a source in Kafka needs a client that is not installed",
            hint="Install it:  pip install 'tidepost[kafka]'",
        ) from None
    from tidepost.definition.kafka import json_path  # noqa: PLC0415

    def text(value: str, *key: str) -> str:
        return resolve(value, env, where=job.where("source", "kafka", *key))

    columns = {}
    for name, one in to.columns.items():
        if one.path is not None:
            columns[name] = Column(name, "path", json_path(one.path), one.type, one.unit)
        elif one.header is not None:
            columns[name] = Column(name, "header", one.header, one.type, one.unit)
        else:
            columns[name] = Column(name, "message", one.message or "", one.type, one.unit)
    cluster = Cluster(
        bootstrap=text(to.bootstrap, "bootstrap"),
        topic=text(to.topic, "topic"),
        group=text(to.group, "group") if to.group is not None else f"tidepost-{job.name}",
        options={name: text(value, "options", name) for name, value in to.options.items()},
    )
    texts = None
    if to.registry is not None:
        try:
            from tidepost.sources.kafka.avro import Avro, Registry  # noqa: PLC0415
        except ImportError:
            raise Misconfigured(
                f"{job.where('source', 'kafka', 'format')}: Avro needs libraries that are not installed",
                hint="Install them:  pip install 'tidepost[kafka]'",
            ) from None
        options = {name: text(value, "registry", "options", name) for name, value in to.registry.options.items()}
        texts = Avro(Registry(text(to.registry.url, "registry", "url"), options))
    return KafkaSource(Reading(cluster, columns, job.name, to.on_poison, lose, texts))
