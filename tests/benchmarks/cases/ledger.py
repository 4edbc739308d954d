"""A run with nothing new, with few slices in the ledger and with many.

A slice is of ten minutes, so that a lookback of a day meets 144 of them. The source holds their rows, and the ledger
what a scan of them would have left there, so that looking back finds nothing to do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
from tests.benchmarks.cases.delivery import forget, sink
from tests.benchmarks.data import START, Data, day, make_table
from tests.benchmarks.measure import Case, Contender
from tests.benchmarks.project import Project

from tidepost.cursor import to_nanoseconds
from tidepost.model import MICROSECONDS_AN_HOUR as HOUR
from tidepost.planning.lookback import told_sum

SPAN = 600_000_000
"""Microseconds of a slice."""
A_SLICE = 50
"""Rows of a slice."""
A_DAY = 144 * A_SLICE


@contextmanager
def nothing(data: Data) -> Iterator[Case]:
    few, many = data.sizes.slices
    with sink(data, 0.0) as url:
        small, large = (_project(data, slices, url) for slices in (few, many))
        yield Case("A run with nothing new", (small, large), base=small.name)


def _project(data: Data, slices: int, url: str) -> Contender:
    """A project with so many slices in its ledger, all delivered, whose source ends where they end."""
    database = data.folder / f"slices-{slices}.duckdb"
    make_table(database, count=A_SLICE * slices, first=START, a_day=A_DAY)
    source = {"table": "inferences", "database": str(database)}
    root = data.folder / f"nothing-{slices}"
    project = Project.make(root, source, start=START, cut_rows=A_SLICE, lookback="1d", url=url)
    forget(url)
    project.done(data.folder, now=START + timedelta(microseconds=SPAN), what="deliver")
    _repeat(project.ledger, database, slices)
    now = START + timedelta(microseconds=SPAN * slices)
    return project.run(f"{slices:,} slices in the ledger", what="deliver", now=now)


def _repeat(ledger: Path, database: Path, slices: int) -> None:
    """Fill a ledger that holds one delivered slice with copies of it, each a span after the one before."""
    with duckdb.connect(str(database), read_only=True) as source:
        number = f"CAST(regexp_extract(id, '[0-9]+') AS BIGINT) // {A_SLICE}"
        sums = source.execute(f"SELECT {number} AS n, sum(hash(id)) FROM inferences GROUP BY n ORDER BY n").fetchall()
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.row_factory = sqlite3.Row
        for table in ("requests", "cuts", "buckets", "slices", "parts", "part_hours", "deliveries", "delivery_hours"):
            first = connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2 LIMIT 1").fetchone()
            copies = [_copy(table, dict(first), n, told_sum(int(ids))) for n, ids in sums]
            names = ", ".join(f'"{name}"' for name in copies[0])
            values = ", ".join(f":{name}" for name in copies[0])
            connection.execute(f"DELETE FROM {table}")
            connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({values})", copies)
        connection.execute('UPDATE scanned SET "end" = ?', (_position(slices),))
        connection.execute("UPDATE streams SET published = :n, last_sequence = :n, planned = :n", {"n": slices})
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("VACUUM")
        connection.execute("ANALYZE")


def _copy(table: str, row: dict[str, Any], n: int, ids: str) -> dict[str, Any]:
    """The n-th copy of a table's only row, counted from 0."""
    owned = "slices parts part_hours deliveries cuts".split()
    changes: dict[str, Any] = {
        **{name: n + 1 for name in ("cut", "delivery", "request") if name in row},
        **({"id": n + 1} if "id" in row else {}),
        **({"sequence": n + 1} if table in owned else {}),
        **({"key": f"run {n}"} if table == "requests" else {}),
        **(
            {"path": f"data/event_day={day(n // 144):%Y-%m-%d}/{n + 1:08d}-00000.parquet"} if table == "parts" else {}
        ),
        **({"ids": ids} if "ids" in row else {}),
        **{name: row[name] + n * SPAN for name in ("event_min", "event_max") if name in row},
        **({"hour": row["hour"] + n * SPAN // HOUR} if "hour" in row else {}),
    }
    if table in ("cuts", "buckets"):
        changes |= {"start": _position(n), "end": _position(n + 1)}
    return row | changes


def _position(n: int) -> str:
    """Where the n-th slice begins, as the ledger keeps positions."""
    return f"{10**39 + to_nanoseconds(START) + n * SPAN * 1_000:040d}"
