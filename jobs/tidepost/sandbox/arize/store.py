"""What arrived, kept as it came; a record is what its id's rows say together, the newest first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa

from tidepost.sandbox.arize.message import SINGLE, Message
from tidepost.sandbox.database import Database, quoted

VALUES: Final = (
    "prediction_label",
    "prediction_score",
    "actual_label",
    "actual_score",
    "prediction_group",
    "rank",
    "features",
    "tags",
    "shap",
)
"""Columns of JSON text."""
_TABLE: Final = f"""
CREATE TABLE IF NOT EXISTS arize_rows (
    arrival BIGINT, interface VARCHAR, space VARCHAR, model VARCHAR, environment VARCHAR, model_type VARCHAR,
    version VARCHAR, batch_id VARCHAR, id VARCHAR, "at" DOUBLE, {", ".join(f"{name} VARCHAR" for name in VALUES)})
"""
_MERGED: Final = ", ".join(
    f'last("{name}" ORDER BY arrival) FILTER ("{name}" IS NOT NULL) AS "{name}"'
    for name in ("environment", "model_type", "version", "batch_id", "at", *VALUES)
)
_MOST_IDS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Origin:
    """Where rows come from: the space that the headers name, and `batch` or `stream`."""

    space: str
    interface: str


class Store:
    """The rows of every space and model, in the sandbox's database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.transaction() as cur:
            cur.execute(_TABLE)

    def add_batches(
        self, origin: Origin, message: Message, reader: pa.RecordBatchReader, *, arrival: int, keep: float
    ) -> None:
        """Store a batch's rows, all or, if reading one raises, none; `keep` is the share that is not dropped."""
        with self._database.transaction() as cur:
            cur.register("arize_incoming", reader)
            known = [
                arrival,
                origin.interface,
                origin.space,
                message.model,
                message.environment,
                message.model_type,
                message.version,
                message.batch_id,
            ]
            values = ", ".join(_columns(message))
            id_ = f"CAST({quoted(message.single['prediction_id'])} AS VARCHAR)"
            cur.execute(
                f"INSERT INTO arize_rows SELECT ?, ?, ?, ?, ?, ?, ?, ?, {id_}, {_instant(message)}, {values} "
                f"FROM arize_incoming WHERE ? OR hash({id_}) % 1000 < ?",
                [*known, keep >= 1, int(keep * 1000)],
            )
            cur.unregister("arize_incoming")

    def add_record(self, origin: Origin, record: Mapping[str, Any], *, arrival: int) -> None:
        """Store one row; the keys are the table's columns."""
        texts = [None if record.get(name) is None else json.dumps(record[name]) for name in VALUES]
        plain = [
            record.get(name) for name in ("model", "environment", "model_type", "version", "batch_id", "id", "at")
        ]
        with self._database.transaction() as cur:
            marks = ", ".join("?" * (3 + len(plain) + len(texts)))
            cur.execute(
                f"INSERT INTO arize_rows VALUES ({marks})",
                [arrival, origin.interface, origin.space, *plain, *texts],
            )

    def last_arrival(self) -> int:
        """The greatest number of an arrival, 0 before the first."""
        return int(self._database.value("SELECT coalesce(max(arrival), 0) FROM arize_rows"))

    def stats(self, space: str = "", model: str = "") -> list[dict[str, Any]]:
        """Numbers of each model, or of those of a space, or of one model.

        rows:        records: distinct ids
        received:    rows that came, repeats with them
        repeats:     rows with a prediction whose id had one already
        predictions, actuals, matched: records with a prediction, with an actual value, with both
        """
        found = self._asked(
            """SELECT space, model, count(*) AS "rows", sum(received)::BIGINT AS received,
                       sum(greatest(predicted - 1, 0))::BIGINT AS repeats,
                       count(*) FILTER (predicted > 0) AS predictions, count(*) FILTER (labelled > 0) AS actuals,
                       count(*) FILTER (predicted > 0 AND labelled > 0) AS matched,
                       list_sort(list_distinct(flatten(list(batches)))) AS batches
                FROM (SELECT space, model, id, count(*) AS received,
                             count(coalesce(prediction_label, prediction_score)) AS predicted,
                             count(coalesce(actual_label, actual_score)) AS labelled,
                             list(batch_id) FILTER (batch_id IS NOT NULL) AS batches
                      FROM arize_rows WHERE ? IN ('', space) AND ? IN ('', model) GROUP BY ALL)
                GROUP BY space, model ORDER BY space, model""",
            [space, model],
        )
        return [one | {"batches": one["batches"] or []} for one in found]

    def records(self, space: str, model: str, ids: Sequence[str], *, limit: int) -> list[dict[str, Any]]:
        """Records by id, in the order of the ids: those asked for, or the first; `received` counts their rows."""
        found = self._asked(
            f"""SELECT id, count(*) AS received, {_MERGED} FROM arize_rows
                WHERE space = ? AND model = ? AND (len(?) = 0 OR list_contains(?, id))
                GROUP BY id ORDER BY id LIMIT ?""",
            [space, model, list(ids), list(ids), min(limit, _MOST_IDS)],
        )
        return [
            one | {name: None if one[name] is None else json.loads(one[name]) for name in VALUES} for one in found
        ]

    def days(self, space: str, model: str) -> list[tuple[str, int]]:
        """Predictions by UTC day of their timestamp, oldest first."""
        found = self._asked(
            """SELECT strftime(make_timestamp(CAST("at" * 1e6 AS BIGINT)), '%Y-%m-%d') AS "day",
                      count(DISTINCT id) AS "rows"
               FROM arize_rows WHERE space = ? AND model = ? AND "at" IS NOT NULL
               GROUP BY 1 ORDER BY 1 DESC LIMIT 92""",
            [space, model],
        )
        return [(str(one["day"]), int(one["rows"])) for one in reversed(found)]

    def _asked(self, sql: str, values: list[Any]) -> list[dict[str, Any]]:
        with self._database.cursor() as cur:
            result: duckdb.DuckDBPyConnection = cur.execute(sql, values)
            names = [column[0] for column in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _columns(message: Message) -> list[str]:
    """SQL of each of `VALUES`, as JSON text."""
    single = {name: message.single.get(name) for name in SINGLE.values()}
    texts = [_json(quoted(of)) if (of := single[name]) else "NULL" for name in VALUES[:6]]
    named = {name: name for name in message.features}, {name: name for name in message.tags}, message.shap
    return [*texts, *(_object(columns) for columns in named)]


def _json(value: str) -> str:
    return f"CASE WHEN {value} IS NOT NULL THEN CAST(to_json({value}) AS VARCHAR) END"


def _object(columns: Mapping[str, str]) -> str:
    if not columns:
        return "NULL"
    fields = ", ".join(f"'{name.replace(chr(39), chr(39) * 2)}': {quoted(of)}" for name, of in columns.items())
    return f"CAST(to_json({{{fields}}}) AS VARCHAR)"


def _instant(message: Message) -> str:
    """Seconds since 1970; the reader gives them as a column of their own."""
    return quoted(SECONDS) if "timestamp" in message.single else "NULL"


SECONDS: Final = "#seconds"
