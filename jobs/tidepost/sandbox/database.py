"""The database file: models, the log of what was loaded, and one set of tables a model.

A load is one transaction that holds its rows and its line in the log, so a file that was accepted is loaded exactly
once: after a crash either both are there or neither.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import duckdb

from tidepost.sandbox.catalog import STORED_AS, Attribute, Model, Stream

_SCHEMA = """
CREATE TABLE IF NOT EXISTS models (
    number INTEGER PRIMARY KEY, id VARCHAR, partner_model_id VARCHAR, definition VARCHAR, ready_at DOUBLE,
    archived BOOLEAN);
CREATE TABLE IF NOT EXISTS loads (
    arrival BIGINT PRIMARY KEY, model INTEGER, via VARCHAR, stream VARCHAR, loaded_at TIMESTAMPTZ,
    offered BIGINT, stored BIGINT, repeated BIGINT, surplus BIGINT, refused BIGINT, dropped BIGINT);
CREATE TABLE IF NOT EXISTS batches (
    model INTEGER, batch_id VARCHAR, status VARCHAR, total_record_count BIGINT, PRIMARY KEY (model, batch_id));
CREATE TABLE IF NOT EXISTS references_closed (model INTEGER PRIMARY KEY, total_record_count BIGINT);
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What became of the rows of one request. offered = stored + refused + dropped + merged repeats.

    repeated:  rows whose id was already there, or came earlier in the same request
    surplus:   of these, the ones that were stored all the same
    """

    offered: int = 0
    stored: int = 0
    repeated: int = 0
    surplus: int = 0
    refused: int = 0
    dropped: int = 0


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class Database:
    """Opens (or makes) the database in `data`. Writers hold `writing`; readers see a snapshot and never wait."""

    def __init__(self, data: Path, *, memory_limit: str) -> None:
        spill = data / "spill"
        spill.mkdir(exist_ok=True)
        self._con = duckdb.connect(
            str(data / "sandbox.duckdb"),
            config={"memory_limit": memory_limit, "temp_directory": str(spill), "threads": "2"},
        )
        self.writing = threading.RLock()
        self._writer: duckdb.DuckDBPyConnection | None = None
        with self.transaction() as cur:
            for statement in _SCHEMA.split(";"):
                cur.execute(statement)
        # A checkpoint of millions of rows takes seconds, and the log that it would shorten is replayed anyway.
        self._con.execute("PRAGMA disable_checkpoint_on_shutdown")

    def close(self) -> None:
        """Stops what runs and closes the file; a load under way is rolled back and stays queued."""
        self.interrupt()
        with self.writing:
            self._con.close()

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own to read with."""
        cur = self.open_cursor()
        try:
            yield cur
        finally:
            cur.close()

    def open_cursor(self) -> duckdb.DuckDBPyConnection:
        """The same, for a caller that closes it."""
        cur = self._con.cursor()
        cur.execute("SET TimeZone = 'UTC'")
        return cur

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A write: durable when the block is left, undone when it raises; one at a time."""
        with self.writing, self.cursor() as cur:
            cur.execute("BEGIN")
            self._writer = cur
            try:
                yield cur
                cur.execute("COMMIT")
            except BaseException:
                # A failed COMMIT has rolled back already.
                with suppress(duckdb.TransactionException):
                    cur.execute("ROLLBACK")
                raise
            finally:
                self._writer = None

    def interrupt(self) -> None:
        """Stops the write under way, which raises duckdb.InterruptException where it runs."""
        if (writer := self._writer) is not None:
            writer.interrupt()

    # -- models

    def add_model(self, model: Model) -> None:
        """Stores `model` and makes its tables."""
        with self.transaction() as cur:
            cur.execute(
                "INSERT INTO models VALUES (?, ?, ?, ?, ?, false)",
                [model.number, model.id, model.partner_model_id, json.dumps(model.definition), model.ready_at],
            )
            identity = (
                '"#id" VARCHAR, "#at" TIMESTAMPTZ, "#received" TIMESTAMPTZ, "#batch" VARCHAR, "#position" BIGINT'
            )
            cur.execute(f"CREATE TABLE inferences_{model.number} ({identity}{_columns(model.of_inferences)})")
            cur.execute(
                f'CREATE TABLE labels_{model.number} ({identity}, "#label_at" TIMESTAMPTZ{_columns(model.labels)})'
            )
            cur.execute(f'CREATE TABLE reference_{model.number} ("#position" BIGINT{_columns(model.attributes)})')

    def archive(self, model: Model) -> None:
        """Hides the model; its rows stay on disk, and its partner_model_id is free again."""
        with self.transaction() as cur:
            cur.execute("UPDATE models SET archived = true WHERE number = ?", [model.number])

    def models(self, *, archived: bool = False) -> list[Model]:
        """The models, oldest first, with or without the archived ones."""
        with self.cursor() as cur:
            rows = cur.execute(
                "SELECT number, definition, ready_at FROM models WHERE NOT archived OR ? ORDER BY number", [archived]
            ).fetchall()
        return [_model(number, json.loads(definition), ready_at) for number, definition, ready_at in rows]

    def next_number(self) -> int:
        """The number of the next model, archived ones counted."""
        return int(self.value("SELECT coalesce(max(number), 0) + 1 FROM models"))

    # -- the log

    def log(
        self, cur: duckdb.DuckDBPyConnection, arrival: int, model: Model, *, via: str, stream: Stream, load: Load
    ) -> None:
        """Writes the line of `arrival`, in the transaction that stores its rows."""
        cur.execute(
            "INSERT INTO loads VALUES (?, ?, ?, ?, now(), ?, ?, ?, ?, ?, ?)",
            [arrival, model.number, via, stream, *astuple(load)],
        )

    def last_arrival(self) -> int:
        """The highest arrival number that was logged, or 0."""
        return int(self.value("SELECT coalesce(max(arrival), 0) FROM loads"))

    def loaded(self, arrival: int) -> bool:
        """Whether that arrival's rows are in."""
        return bool(self.value("SELECT count(*) FROM loads WHERE arrival = ?", [arrival]))

    def value(self, sql: str, params: list[Any] | None = None) -> Any:
        """The one value that a query returns."""
        with self.cursor() as cur:
            row = cur.execute(sql, params or []).fetchone()
        return None if row is None else row[0]


def run(cur: duckdb.DuckDBPyConnection, sql: str, **values: object) -> list[tuple[Any, ...]]:
    """Runs `sql` with those of `values` that it names as `$name`, and returns every row."""
    named = {name: values[name] for name in set(re.findall(r"\$(\w+)", sql))}
    return cur.execute(sql, named or None).fetchall()


def _columns(attributes: tuple[Attribute, ...]) -> str:
    return "".join(f", {quoted(a.name)} {STORED_AS[a.value_type]}" for a in attributes)


def _model(number: int, definition: dict[str, Any], ready_at: float) -> Model:
    return Model(
        number=number,
        id=definition["id"],
        partner_model_id=definition["partner_model_id"],
        is_batch=definition["is_batch"],
        attributes=tuple(Attribute(a["name"], a["value_type"], a["stage"]) for a in definition["attributes"]),
        definition=definition,
        ready_at=ready_at,
    )
