"""A log that grows with time: a folder of parquet files, one per date, each replaced by a longer one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import IO, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


@dataclass(frozen=True, slots=True)
class LogSummary:
    """A log as it stands: its files, their rows and bytes; and `written`, how many files a call changed."""

    files: int
    rows: int
    bytes: int
    written: int


@dataclass(frozen=True, slots=True)
class _Day:
    """The rows `[start, end)` of the log's table have this date."""

    date: date
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Log:
    """A whole log in memory, sorted by the column `at`; so each day's rows lie together, and days in order."""

    table: pa.Table
    at: str
    days: tuple[_Day, ...]

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, table: str, *, at: str, date: str) -> Self:
        """A table of DuckDB that is sorted by the column `at`.

        date: SQL of the date whose file a row belongs to; it never decreases
        """
        found = con.table(table).to_arrow_table()
        counts = con.execute(f"SELECT {date} AS day, count(*) FROM {table} GROUP BY day ORDER BY day").fetchall()
        days: list[_Day] = []
        for day, count in counts:
            start = days[-1].end if days else 0
            days.append(_Day(day, start, start + count))
        return cls(found.combine_chunks(), at, tuple(days))

    def rows_before(self, until: datetime) -> int:
        """How many rows, counted from the first, have a time before `until`."""
        before = pc.less(self.table[self.at], pa.scalar(until, self.table.schema.field(self.at).type))
        return int(pc.sum(before, min_count=0).as_py())


def grow(directory: Path, log: Log, *, until: datetime, begun: bool = False) -> LogSummary:
    """Brings the files in `directory`, `2013-01-01.parquet` and so on, up to `until`: afterwards they hold every row
    of the log whose time lies before it.

    A file appears whole or not at all; one that already holds its rows, or more, is not touched. The same call writes
    the same bytes. Writers exclude each other.

    begun: the first file is there before it has any row
    ValueError: `until` has no time zone.
    """
    if until.utcoffset() is None:
        raise ValueError(f"until needs a time zone: {until.isoformat()}")
    visible = log.rows_before(until)
    directory.mkdir(parents=True, exist_ok=True)
    files = rows = size = written = 0
    with only_writer(directory):
        for day in log.days:
            file = directory / f"{day.date}.parquet"
            held = _rows_in(file)
            due = min(visible, day.end) - day.start
            if due > held or (begun and day.start == 0 and not file.exists()):
                with replacing(file) as sink:
                    pq.write_table(log.table.slice(day.start, due), sink, compression="zstd")
                held = due
                written += 1
            if held:
                files += 1
                rows += held
                size += file.stat().st_size
    return LogSummary(files=files, rows=rows, bytes=size, written=written)


def _rows_in(file: Path) -> int:
    """The rows of a file of the log, by its footer; 0 for one that is missing or, damaged by others, unreadable."""
    try:
        return int(pq.read_metadata(file).num_rows)
    except (FileNotFoundError, pa.ArrowInvalid):
        return 0


@contextmanager
def replacing(file: Path, *, modified: datetime | None = None) -> Iterator[IO[bytes]]:
    """A sink under a hidden name that no `*.parquet` matches, which becomes `file` once all of it is on disk.

    modified: the time of its last change, if not now
    """
    growing = file.with_name(f".{file.name}.part")
    with growing.open("wb") as sink:
        yield sink
        sink.flush()
        os.fsync(sink.fileno())
    if modified is not None:
        os.utime(growing, (modified.timestamp(), modified.timestamp()))
    growing.replace(file)


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Waits until nobody else writes this log, and afterwards makes the new names durable.

    The lock is the directory's own, so nothing is left behind for a reader of the directory to stumble over.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        os.fsync(handle)
    finally:
        os.close(handle)
