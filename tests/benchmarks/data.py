"""What the cases read: tables of inferences, made once a run, in a temporary folder.

A row has 17 columns: id, two times, inputs, a prediction, a text and ten floats. Rows are evenly spaced in time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

START = datetime(2024, 5, 1, tzinfo=UTC)
DAY = 86_400_000_000
EXTRAS = 10
NON_INPUTS = ("logged_at", "note", *(f"extra_{n}" for n in range(EXTRAS)))
ATTRIBUTES = (
    ("distance", "INTEGER", "PIPELINE_INPUT"),
    ("carrier", "STRING", "PIPELINE_INPUT"),
    ("score", "FLOAT", "PREDICTED_VALUE"),
    ("logged_at", "TIMESTAMP", "NON_INPUT_DATA"),
    ("note", "STRING", "NON_INPUT_DATA"),
    *((f"extra_{n}", "FLOAT", "NON_INPUT_DATA") for n in range(EXTRAS)),
    ("late", "INTEGER", "GROUND_TRUTH"),
)
URL = "http://127.0.0.1:9"
"""Of a platform that no run asks, unless a case gives another one."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is.

    rows, days: to stage, of which a day is a cut
    small, large: rows between which memory must not grow
    hours: files of the hourly log
    slices: in the ledger of a run with nothing new
    labelled: slices of labels beside which those of an hour are staged
    messages: in a Kafka topic
    latency: seconds a request
    """

    rows: int = 5_000_000
    days: int = 32
    small: int = 1_000_000
    large: int = 20_000_000
    hours: int = 8_760
    slices: tuple[int, int] = (100, 100_000)
    labelled: tuple[int, int] = (10, 1_000)
    messages: int = 1_000_000
    latency: float = 0.4

    @property
    def a_day(self) -> int:
        return self.rows // self.days


QUICK = Sizes(
    rows=640,
    days=4,
    small=400,
    large=1_600,
    hours=600,
    slices=(10, 200),
    labelled=(2, 5),
    messages=300,
    latency=0.05,
)
CUTS = 24
EARLIER = 3
"""Days before the first that is staged, for an index that holds rows already."""


def day(number: int) -> datetime:
    """The first instant of a day, counted from the first that is staged."""
    return START + timedelta(days=number)


@dataclass
class Data:
    """The run's folder; everything in it is made when it is first asked for."""

    folder: Path
    sizes: Sizes
    _made: dict[str, Path] = field(default_factory=dict)

    def made(self, name: str, make: Callable[[Path], object]) -> Path:
        """What `make` makes below this name."""
        if name not in self._made:
            make(self.folder / name)
            self._made[name] = self.folder / name
        return self._made[name]

    def days(self) -> Path:
        """The days to stage and those before them, in a table `inferences`."""
        count = self.sizes.a_day * (self.sizes.days + EARLIER)
        return self.made("days.duckdb", partial(make_table, count=count, first=day(-EARLIER), a_day=self.sizes.a_day))

    def of(self, count: int) -> Path:
        """A table of so many rows."""
        return self.made(f"{count}.duckdb", partial(make_table, count=count, first=START, a_day=self.sizes.a_day))

    def log(self) -> Log:
        """An hourly log of about as many rows as there are to stage."""
        log = Log(self.folder / "log", self.sizes.hours, max(2, self.sizes.rows // self.sizes.hours))
        self.made("log", lambda _: log.make())
        return log

    def fresh(self, name: str) -> Path:
        """An empty folder, whatever was there."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def select(count: int, first: datetime, a_day: int, *, offset: int = 0) -> str:
    """SQL of `count` rows, evenly spaced from a time on; `offset` makes their ids differ from others'."""
    wide = ", ".join(f"(i * {n + 7} % 1000003) / 7.0 AS extra_{n}" for n in range(EXTRAS))
    return (
        f"SELECT 'inference-' || i AS id, t AS at, t AS logged_at, i % 900 AS distance, "
        f"['UA', 'AA', 'DL'][i % 3 + 1] AS carrier, i % 101 / 100 AS score, 'note ' || i % 5000 AS note, {wide} "
        f"FROM (SELECT i + {offset} AS i, TIMESTAMPTZ '{first.isoformat()}' + "
        f"INTERVAL (i * {DAY} // {a_day}) MICROSECONDS AS t FROM range({count}) AS r(i))"
    )


def make_table(database: Path, *, count: int, first: datetime, a_day: int) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE TABLE inferences AS {select(count, first, a_day)}")


@dataclass(frozen=True, slots=True)
class Log:
    """A log of hourly files, and the same rows in 24 files: of as many days each, but for the few first days, which
    are quiet (a row an hour), so that the others fall into 24 equal cuts.

    hourly: `{day}/{hour}.parquet`
    coarse: `{number}.parquet`
    an_hour: rows, of an hour that is not quiet
    """

    folder: Path
    hours: int
    an_hour: int

    @property
    def hourly(self) -> Path:
        return self.folder / "hourly"

    @property
    def coarse(self) -> Path:
        return self.folder / "coarse"

    @property
    def days_a_cut(self) -> int:
        return self.hours // 24 // CUTS

    @property
    def quiet_days(self) -> int:
        return self.hours // 24 - self.days_a_cut * CUTS

    def make(self) -> None:
        self.coarse.mkdir(parents=True)
        offset = 0
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            quiet = connection.sql(select(self.quiet_days * 24, START, 24)).to_arrow_table()
            self._hourly(quiet, 0, 1)
            for number in range(CUTS):
                offset += 10_000_000
                first = self.quiet_days + number * self.days_a_cut
                count = self.days_a_cut * 24 * self.an_hour
                rows = connection.sql(select(count, day(first), 24 * self.an_hour, offset=offset)).to_arrow_table()
                self._hourly(rows, first, self.an_hour)
                whole = pa.concat_tables([quiet, rows]) if number == 0 else rows
                pq.write_table(whole, self.coarse / f"{number:02d}.parquet")

    def _hourly(self, rows: pa.Table, first: int, an_hour: int) -> None:
        for number in range(rows.num_rows // an_hour):
            at = day(first) + timedelta(hours=number)
            folder = self.hourly / f"{at:%Y-%m-%d}"
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows.slice(number * an_hour, an_hour), folder / f"{at:%H}.parquet")
