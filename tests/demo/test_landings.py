"""The demo's labels: they follow the flights, and none is made up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tidepost.demo import nycflights
from tidepost.demo.flights import END_OF_DATA, START, day_start
from tidepost.demo.growing import LogSummary
from tidepost.demo.landings import drop_reports, write_landings

AFTER = END_OF_DATA + timedelta(days=7)
CANCELLED, UNRECORDED, LABELLED = 8_255, 1_175, 327_346


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the tables `logged` and `reported`, as readers see them, and `flights`, with what became of
    them."""
    folder = tmp_path_factory.mktemp("labels")
    assert write_landings(folder / "landings", until=AFTER).files == 366
    assert drop_reports(folder / "reports", until=AFTER).files == 53
    with duckdb.connect() as con:
        nycflights.load(con, nycflights.data_folder(), outcome=True)
        con.execute("CREATE TABLE logged AS SELECT * FROM read_parquet($1)", [f"{folder}/landings/*.parquet"])
        con.execute("CREATE TABLE reported AS SELECT * FROM read_csv($1)", [f"{folder}/reports/*.csv"])
        con.execute("CREATE TABLE labels AS FROM logged UNION ALL FROM reported")
        yield con


def value(con: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = con.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_every_flight_with_a_known_arrival_delay_has_one_label(labels: duckdb.DuckDBPyConnection) -> None:
    key = "carrier, flight, origin, date"
    assert value(labels, "SELECT count(*) FROM labels") == LABELLED
    assert value(labels, f"SELECT count(*) FROM (SELECT DISTINCT {key} FROM labels)") == LABELLED
    assert value(labels, f"SELECT count(*) FROM labels JOIN flights USING ({key})") == LABELLED


def test_flights_that_were_cancelled_or_have_no_recorded_delay_have_none(labels: duckdb.DuckDBPyConnection) -> None:
    bare = "flights ANTI JOIN labels USING (carrier, flight, origin, date)"
    assert value(labels, f"SELECT count(*) FROM {bare} WHERE dep_delay IS NULL") == CANCELLED
    assert value(labels, f"SELECT count(*) FROM {bare} WHERE dep_delay IS NOT NULL") == UNRECORDED


def test_a_label_is_known_when_the_flight_has_landed_and_says_whether_it_was_late(
    labels: duckdb.DuckDBPyConnection,
) -> None:
    wrong = value(
        labels,
        """
        SELECT count(*) FROM labels AS l JOIN flights AS f USING (carrier, flight, origin, date)
        WHERE l.landed_at <> f.scheduled + to_minutes(f.dep_delay + f.air_time)
           OR l.arr_delay <> f.arr_delay OR l.late <> (f.arr_delay >= 15)::INTEGER
        """,
    )
    assert wrong == 0
    assert value(labels, "SELECT min(late) || ' ' || max(late) FROM labels") == "0 1"


def test_a_report_has_the_columns_of_the_log_and_its_carrier_alone(labels: duckdb.DuckDBPyConnection) -> None:
    logged = labels.execute("DESCRIBE logged").fetchall()
    reported = labels.execute("DESCRIBE reported").fetchall()
    assert [row[0] for row in logged] == [row[0] for row in reported]
    assert [row[1] for row in reported] == [row[1].replace("INTEGER", "BIGINT") for row in logged]
    assert labels.execute("SELECT DISTINCT carrier FROM reported").fetchall() == [("US",)]
    assert value(labels, "SELECT count(*) FROM logged WHERE carrier = 'US'") == 0


def test_labels_follow_their_flights(tmp_path: Path) -> None:
    assert write_landings(tmp_path, until=START) == LogSummary(files=0, rows=0, bytes=0, written=1)
    assert [file.name for file in tmp_path.iterdir()] == ["2013-01-01.parquet"], "the log has begun"
    rows = [write_landings(tmp_path, until=START + timedelta(hours=hours)).rows for hours in (12, 18, 24)]
    assert 0 < rows[0] < rows[1] < rows[2] < 842
    assert write_landings(tmp_path, until=START + timedelta(hours=24)).written == 0


def test_a_label_is_in_the_log_from_the_moment_it_is_known(tmp_path: Path, labels: duckdb.DuckDBPyConnection) -> None:
    known = value(labels, "SELECT landed_at FROM logged ORDER BY landed_at OFFSET 1000 LIMIT 1")
    before = value(labels, f"SELECT count(*) FROM logged WHERE landed_at < '{known}'")
    assert write_landings(tmp_path, until=known).rows == before
    assert write_landings(tmp_path, until=known + timedelta(microseconds=1)).rows > before


def test_a_report_appears_whole_once_its_week_is_over(tmp_path: Path) -> None:
    assert drop_reports(tmp_path, until=day_start(7) - timedelta(seconds=1)) == LogSummary(0, 0, 0, 0)
    first = drop_reports(tmp_path, until=day_start(7))
    (file,) = tmp_path.iterdir()
    assert file.name == "us-airways-2013-01-07.csv"
    assert (first.files, first.written) == (1, 1)
    text = file.read_text("utf-8").splitlines()
    assert text[0] == '"landed_at","carrier","flight","origin","date","arr_delay","late"'
    assert text[1] == "2013-01-01 13:00:00.000000Z,US,1019,EWR,2013-01-01,-9,0"
    assert len(text) == first.rows + 1


def test_a_report_was_last_changed_when_it_was_due_and_is_never_touched_again(tmp_path: Path) -> None:
    drop_reports(tmp_path, until=day_start(7))
    (file,) = tmp_path.iterdir()
    before = file.stat()
    assert datetime.fromtimestamp(before.st_mtime, UTC) == day_start(7)
    again = drop_reports(tmp_path, until=day_start(20))
    assert (again.files, again.written) == (2, 1)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_reports_need_a_time_with_a_zone(tmp_path: Path) -> None:
    for write in (drop_reports, write_landings):
        with pytest.raises(ValueError, match="time zone"):
            write(tmp_path / "none", until=datetime(2013, 1, 2))  # noqa: DTZ001 - that is the case
    assert not (tmp_path / "none").exists()
