"""The demo's labels: which flights arrived late, as it becomes known when they land.

Most are logged flight by flight, in a folder of parquet files that grows as flights land. One carrier reports its
arrivals once a week, in a CSV file that it drops into another folder. Both hold the columns that the id of an
inference is made of. Flights that were cancelled, and those whose arrival delay was never recorded, are in neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.csv

from tidepost.demo import nycflights
from tidepost.demo.delay_model import LATE_MINUTES
from tidepost.demo.flights import NEW_YORK, day_start
from tidepost.demo.growing import Log, LogSummary, grow, only_writer, replacing

WEEKLY: Final = "US"
"""The carrier that reports once a week: US Airways."""


def write_landings(directory: Path, *, until: datetime) -> LogSummary:
    """Brings the log of landings in `directory` up to `until`: every label of flights of all carriers but one that
    was known before it.

    One file per date in New York, sorted by `landed_at`; they are written as `grow` says. Columns: landed_at
    TIMESTAMPTZ, when the label became known (scheduled departure + departure delay + air time); carrier VARCHAR;
    flight INTEGER; origin VARCHAR; date DATE (of the flight); arr_delay INTEGER (minutes); late INTEGER (0 or 1).

    Raises as `write_log` does.
    """
    return grow(directory, _read_landings(nycflights.data_folder()).logged, until=until, begun=True)


def drop_reports(directory: Path, *, until: datetime) -> LogSummary:
    """Puts the weekly reports that were due before or at `until` into `directory`: each holds what became known from
    one Tuesday to the next, and its last change is the moment that it was due.

    `us-airways-2013-01-07.csv` is of the week up to that day. The columns are those of the log of landings, with
    times in UTC. A file appears whole, and a report that is there is not touched. Writers exclude each other.

    Raises as `write_log` does.
    """
    if until.utcoffset() is None:
        raise ValueError(f"until needs a time zone: {until.isoformat()}")
    landings = _read_landings(nycflights.data_folder())
    directory.mkdir(parents=True, exist_ok=True)
    files = rows = size = written = 0
    with only_writer(directory):
        for due, report in landings.weeks():
            if due > until:
                break
            last = due.astimezone(NEW_YORK).date() - timedelta(days=1)
            file = directory / f"us-airways-{last}.csv"
            if not file.exists():
                with replacing(file, modified=due) as sink:
                    pa.csv.write_csv(report, sink, pa.csv.WriteOptions(quoting_style="none"))
                written += 1
            files += 1
            rows += len(report)
            size += file.stat().st_size
    return LogSummary(files=files, rows=rows, bytes=size, written=written)


def never_labelled() -> pa.Table:
    """The flights that get no label, by carrier, flight, origin and date. Raises as `write_log` does."""
    return _read_landings(nycflights.data_folder()).never


@dataclass(frozen=True, slots=True)
class _Landings:
    """The whole year in memory: labels that are logged, those that are reported once a week, and flights without."""

    logged: Log
    reported: Log
    never: pa.Table

    def weeks(self) -> Iterator[tuple[datetime, pa.Table]]:
        """When each report is due, and its rows."""
        start = week = 0
        while start < len(self.reported.table):
            week += 1
            due = day_start(7 * week)
            end = self.reported.rows_before(due)
            yield due, self.reported.table.slice(start, end - start)
            start = end


@lru_cache(maxsize=1)
def _read_landings(folder: Path) -> _Landings:
    with duckdb.connect() as con:
        nycflights.load(con, folder, outcome=True)
        never = con.execute("SELECT carrier, flight, origin, date FROM flights WHERE arr_delay IS NULL")
        unlabelled = never.to_arrow_table()
        return _Landings(_log(con, "logged", f"<> '{WEEKLY}'"), _log(con, "reported", f"= '{WEEKLY}'"), unlabelled)


def _log(con: duckdb.DuckDBPyConnection, name: str, carrier: str) -> Log:
    con.execute(
        f"""
        CREATE TABLE {name} AS
        SELECT scheduled + to_minutes(dep_delay + air_time) AS landed_at, carrier, flight, origin, date, arr_delay,
               (arr_delay >= {LATE_MINUTES})::INTEGER AS late
        FROM flights
        WHERE arr_delay IS NOT NULL AND carrier {carrier}
        ORDER BY landed_at, carrier, flight, origin, date
        """
    )
    return Log.of(con, name, at="landed_at", date=f"CAST(timezone('{NEW_YORK.key}', landed_at) AS DATE)")
