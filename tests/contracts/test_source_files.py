"""Which files a source lists and opens: those that can hold the range, and no others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.contracts.source_contract import ALL, at, execute, read
from tests.world import noting

from tidepost.cursor import CursorType
from tidepost.engine import Engine
from tidepost.errors import Misconfigured, Retryable
from tidepost.ranges import Range
from tidepost.sources import files
from tidepost.sources.cache import Footer
from tidepost.sources.duckdb import DuckDBSource, Origin
from tidepost.sources.footers import Footers
from tidepost.sources.listing import File
from tidepost.sources.local import LocalFiles

HOUR = timedelta(hours=1)
START = datetime(2024, 5, 1, tzinfo=UTC)
DAILY = "{start:%Y/%m/%d}/*.parquet"
HOURLY = "day={start:%Y-%m-%d}/hour={start:%H}/*.parquet"

Asked = list[str]


def source_of(pattern: str, engine: Engine, **options: Any) -> DuckDBSource:
    column, zone, declared = options.pop("column", "c"), options.pop("zone", None), options.pop("declared", None)
    return DuckDBSource(Origin(files=(pattern,), **options), engine, column=column, zone=zone, declared=declared)


def log(path: Path, cursors: Mapping[int, str], *, of: str = "TIMESTAMPTZ", options: str = "FORMAT parquet") -> None:
    """A file with a row `a{v}` for each v and cursor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = ", ".join(f"('a{v}', CAST({sql} AS {of}), {v})" for v, sql in cursors.items())
    execute(f"COPY (SELECT * FROM (VALUES {listed}) AS t(id, c, v)) TO '{path}' ({options})")


def hours(folder: Path, template: str, first: datetime, count: int, *, rubbish: bool = False) -> None:
    """A file for each hour from `first` on, with a row at its beginning; what is rubbish is no parquet."""
    for n in range(count):
        start = first + n * HOUR
        path = folder / start.strftime(template.replace("{start:", "").replace("}", "")).replace("*", f"{start:%H}")
        if rubbish:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("no parquet")
        else:
            log(path, {n: f"'{start:%Y-%m-%dT%H:%M:%SZ}'"})


def window(start: str, end: str) -> Range:
    return Range(at(start), at(end))


def ids(found: list[tuple[str, int]]) -> list[str]:
    return [id_ for id_, _ in found]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Every folder that is listed, and every file name that is tried."""
    asked: Asked = []

    def noted(name: str) -> None:
        act = getattr(LocalFiles, name)
        noted = noting(asked, lambda _, folder, pattern=(): "/".join([folder.rstrip("/"), *pattern]), act)
        monkeypatch.setattr(LocalFiles, name, noted)

    noted("files")
    noted("folders")
    return asked


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many footers each look into files read."""
    opened: list[int] = []
    look = Footers._read

    def noted(self: Footers, files: Sequence[File]) -> Iterator[Footer]:
        if files:
            opened.append(len(files))
        return look(self, files)

    monkeypatch.setattr(Footers, "_read", noted)
    return opened


# --------------------------------------------------------------------------------------------------------- templates


@pytest.mark.parametrize("template", [DAILY, HOURLY, "{start:%Y-%m-%d-%H}.parquet", "{start:%Y}/{start:%j-%-H}/*"])
def test_every_row_is_in_exactly_one_of_adjacent_ranges_of_a_template(
    tmp_path: Path, engine: Engine, template: str
) -> None:
    hours(tmp_path, template, datetime(2023, 12, 30, tzinfo=UTC), 72)
    source = source_of(f"{tmp_path}/{template}", engine)
    first = at("2023-12-30")
    seven = 7 * 3600 * 10**9
    found = read(source, engine, *(Range(first + n * seven, first + (n + 1) * seven) for n in range(11)))
    assert sorted(ids(found)) == sorted(f"a{n}" for n in range(72))
    assert source.survey(ALL).highest == at("2024-01-01T23:00:00Z")
    assert sum(count for _, count in source.survey(ALL).buckets) == 72


@pytest.mark.parametrize(
    ("range_", "inside"),
    [
        (("2024-05-01T00:00:00Z", "2024-05-02T00:00:00Z"), ["2024/05/01"]),
        (("2024-05-01T23:59:59Z", "2024-05-02T00:00:00.000000001Z"), ["2024/05/01", "2024/05/02"]),
        (("2024-02-29T12:00:00Z", "2024-03-01T12:00:00Z"), ["2024/02/29", "2024/03/01"]),
        (("2023-12-31T12:00:00Z", "2024-01-01T00:00:01Z"), ["2023/12/31", "2024/01/01"]),
    ],
)
def test_only_the_folders_of_a_range_are_listed(
    tmp_path: Path, engine: Engine, asked: Asked, range_: tuple[str, str], inside: list[str]
) -> None:
    for day in inside:
        log(tmp_path / day / "0.parquet", {0: f"'{day.replace('/', '-')}T00:00:00Z'"})
    source = source_of(f"{tmp_path}/{DAILY}", engine, slack=0)
    source.columns()
    asked.clear()
    source.survey(window(*range_))
    assert sorted(asked) == [f"{tmp_path}/{day}/*.parquet" for day in inside]


def test_rows_a_unit_away_from_their_path_are_found_and_slack_finds_those_further_away(
    tmp_path: Path, engine: Engine
) -> None:
    log(tmp_path / "2024/05/01/0.parquet", {0: "'2024-05-02T23:00:00Z'", 1: "'2024-05-03T23:00:00Z'"})
    log(tmp_path / "2024/05/05/0.parquet", {2: "'2024-05-04T01:00:00Z'", 3: "'2024-05-02T01:00:00Z'"})
    wide = window("2024-05-02", "2024-05-05")
    pattern = f"{tmp_path}/{DAILY}"

    def found(**options: Any) -> list[str]:
        source = source_of(pattern, engine, **options)
        days = [window(f"2024-05-0{day}", f"2024-05-0{day + 1}") for day in (2, 3, 4)]
        assert set(ids(read(source, engine, *days))) <= set(ids(read(source, engine, wide)))
        return sorted(ids(read(source, engine, *days)))

    assert found(slack=0) == []
    assert found() == ["a0", "a2"]
    assert found(slack=4 * 86_400) == ["a0", "a1", "a2", "a3"]


def test_an_hour_asks_for_the_same_beside_ten_days_and_ten_years(
    tmp_path: Path, engine: Engine, asked: Asked
) -> None:
    def cost(folder: Path, first: datetime, count: int, step: timedelta) -> list[str]:
        last = datetime(2024, 5, 1, 12, tzinfo=UTC)
        for n in range(count):
            day = first + n * step
            (folder / f"day={day:%Y-%m-%d}" / "hour=00").mkdir(parents=True)
            (folder / f"day={day:%Y-%m-%d}" / "hour=00" / "0.parquet").write_text("never opened")
        hours(folder, HOURLY, last - 4 * HOUR, 6)
        source = source_of(f"{folder}/{HOURLY}", engine)
        source.columns()
        asked.clear()
        found = window("2024-05-01T11:00:00Z", "2024-05-01T12:00:00Z")
        assert source.survey(found).highest == at("2024-05-01T11:00:00Z")
        assert ids(read(source, engine, found)) == ["a3"]
        return [path.removeprefix(str(folder)) for path in asked]

    few = cost(tmp_path / "few", datetime(2024, 4, 20, tzinfo=UTC), 10, timedelta(days=1))
    many = cost(tmp_path / "many", datetime(2014, 4, 20, tzinfo=UTC), 3650, timedelta(days=1))
    assert few == many
    assert len(few) == 2 * 3


def test_what_lies_outside_of_a_range_is_never_opened(tmp_path: Path, engine: Engine) -> None:
    hours(tmp_path, HOURLY, datetime(2024, 5, 1, tzinfo=UTC), 12, rubbish=True)
    hours(tmp_path, HOURLY, datetime(2024, 5, 1, 12, tzinfo=UTC), 12)
    source = source_of(f"{tmp_path}/{HOURLY}", engine, slack=0)
    assert list(source.columns()) == ["id", "c", "v", "day", "hour"]
    found = window("2024-05-01T12:00:00Z", "2024-05-02T00:00:00Z")
    assert source.survey(found).highest == at("2024-05-01T23:00:00Z")
    assert len(read(source, engine, found)) == 12
    with pytest.raises(Misconfigured):
        source.survey(window("2024-05-01T11:00:00Z", "2024-05-01T12:00:00Z"))


def test_names_that_are_no_dates_are_left_alone(tmp_path: Path, engine: Engine) -> None:
    hours(tmp_path, DAILY, datetime(2024, 2, 28, tzinfo=UTC), 48)
    for name in ("2024/02/30", "2024/13/01", "2024/_tmp/01", "old/02/29", "2024/02/29.bak"):
        log(tmp_path / name / "0.parquet", {99: "'2024-02-29'"})
    source = source_of(f"{tmp_path}/{DAILY}", engine)
    assert len(read(source, engine, window("2020-01-01", "2030-01-01"))) == 48


def test_paths_are_named_by_the_cursors_zone(tmp_path: Path, engine: Engine) -> None:
    """In New York the hour of 1 o'clock is there twice on 3 November, that of 2 o'clock not at all on 10 March."""
    local = ["2024-03-10 01:30", "2024-03-10 03:30", "2024-11-03 00:30", "2024-11-03 01:30", "2024-11-03 02:30"]
    for n, value in enumerate(local):
        hour = datetime.fromisoformat(value)
        log(tmp_path / f"{hour:%Y/%m/%d/%H}" / "0.parquet", {n: f"'{value}:00'"}, of="TIMESTAMP")
    pattern = f"{tmp_path}/{{start:%Y/%m/%d/%H}}/*.parquet"
    source = source_of(pattern, engine, zone="America/New_York", slack=0)
    half = 1800 * 10**9
    days = [("2024-03-10T04:00:00Z", 12), ("2024-11-03T03:00:00Z", 16)]
    found = [
        id_
        for start, count in days
        for id_ in ids(
            read(source, engine, *(Range(at(start) + n * half, at(start) + (n + 1) * half) for n in range(count)))
        )
    ]
    assert sorted(found) == ["a0", "a1", "a2", "a3", "a4"]


def test_a_cursor_that_is_a_date_lies_in_the_folder_of_its_day(tmp_path: Path, engine: Engine, asked: Asked) -> None:
    for day in (1, 2, 3):
        log(tmp_path / f"2024/05/0{day}/0.parquet", {day: f"'2024-05-0{day}'"}, of="DATE")
    source = source_of(f"{tmp_path}/{DAILY}", engine, slack=0)
    second = at("2024-05-02") // at("1970-01-02")
    source.columns()
    asked.clear()
    assert ids(read(source, engine, Range(second, second + 1))) == ["a2"]
    assert asked == [f"{tmp_path}/2024/05/02/*.parquet"]


def test_a_cursor_that_is_no_time_has_no_place_in_a_template(tmp_path: Path, engine: Engine) -> None:
    log(tmp_path / "2024/05/01/0.parquet", {0: "7"}, of="BIGINT")
    source = source_of(f"{tmp_path}/{DAILY}", engine)
    with pytest.raises(
        Misconfigured, match=r"source\.files: \{start:…\} needs a cursor that is a time; 'c' is BIGINT"
    ):
        source.survey(Range(0, 10))


def test_a_range_without_a_folder_holds_no_rows(tmp_path: Path, engine: Engine) -> None:
    hours(tmp_path, DAILY, datetime(2024, 5, 1, tzinfo=UTC), 2)
    source = source_of(f"{tmp_path}/{DAILY}", engine)
    empty = window("2023-05-01", "2023-05-02")
    assert source.survey(empty).highest is None
    assert read(source, engine, empty) == []


def test_a_log_that_is_gone_is_not_an_empty_range(tmp_path: Path, engine: Engine) -> None:
    """A disk that is not mounted holds no rows either: its ranges must not count as scanned."""
    hours(tmp_path / "log", DAILY, datetime(2024, 5, 1, tzinfo=UTC), 2)
    source = source_of(f"{tmp_path}/log/{DAILY}", engine)
    source.columns()
    (tmp_path / "log").rename(tmp_path / "elsewhere")
    with pytest.raises(Misconfigured, match="nothing matches"):
        read(source, engine, window("2024-05-01", "2024-05-02"))


@pytest.mark.parametrize("of", ["now", "old"])
def test_columns_are_those_of_the_newest_folders(tmp_path: Path, engine: Engine, asked: Asked, of: str) -> None:
    newest = (
        datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        if of == "now"
        else datetime(2020, 1, 3, tzinfo=UTC)
    )
    hours(tmp_path, HOURLY, newest - 72 * HOUR, 60, rubbish=True)
    hours(tmp_path, HOURLY, newest - 2 * HOUR, 3)
    assert list(source_of(f"{tmp_path}/{HOURLY}", engine).columns()) == ["id", "c", "v", "day", "hour"]
    assert len([path for path in asked if path.endswith("*.parquet")]) <= 40


def test_columns_are_those_of_every_folder_that_a_glob_finds_before_the_time(tmp_path: Path, engine: Engine) -> None:
    for region, extra in (("a", 1), ("b", 2)):
        path = tmp_path / region / "2024/05/01/0.parquet"
        path.parent.mkdir(parents=True)
        execute(f"COPY (SELECT 'a{extra}' AS id, TIMESTAMPTZ '2024-05-01' AS c, {extra} AS v{region}) TO '{path}'")
    source = source_of(f"{tmp_path}/*/{DAILY}", engine)
    assert list(source.columns()) == ["id", "c", "va", "vb"]
    assert source.survey(ALL).buckets[0][1] == 2


def test_a_type_that_newer_files_cannot_hold_is_refused_and_never_rounded(tmp_path: Path, engine: Engine) -> None:
    for day, value in ((1, "1.5::DOUBLE"), (2, "2"), (3, "3"), (4, "4")):
        path = tmp_path / f"2024/05/0{day}/0.parquet"
        path.parent.mkdir(parents=True)
        execute(f"COPY (SELECT 'a' AS id, TIMESTAMPTZ '2024-05-0{day}' AS c, {value} AS v) TO '{path}'")
    source = source_of(f"{tmp_path}/{DAILY}", engine, slack=0)
    assert source.columns()["v"] == "INTEGER"
    with pytest.raises(Misconfigured, match=r"column 'v' is DOUBLE in some files, and INTEGER in"):
        read(source, engine, window("2024-05-01", "2024-05-02"))


@pytest.mark.parametrize(("format_", "suffix"), [("csv", "csv"), ("json", "jsonl")])
def test_text_is_read_with_the_sources_types_whatever_some_files_look_like(
    tmp_path: Path, engine: Engine, format_: str, suffix: str
) -> None:
    for day, value in ((1, "01"), (2, "x")):
        path = tmp_path / f"2024/05/0{day}/0.{suffix}"
        path.parent.mkdir(parents=True)
        row = f"TIMESTAMP '2024-05-0{day}' AS c, '{value}' AS shard, '2024-05-0{day} {value}:00:00' AS note"
        execute(f"COPY (SELECT {row}) TO '{path}' (FORMAT {format_})")
    source = source_of(f"{tmp_path}/{{start:%Y/%m/%d}}/*.{suffix}", engine, format=format_, slack=0, zone="UTC")
    assert (source.columns()["shard"], source.columns()["note"]) == ("VARCHAR", "VARCHAR")
    with (
        engine.connect() as connection,
        source.read(connection, window("2024-05-01", "2024-05-02"), ["shard", "note"]) as relation,
    ):
        found = connection.execute(relation.sql, dict(relation.values)).fetchall()
    assert [row[:2] for row in found] == [("01", "2024-05-01 01:00:00")]


# ---------------------------------------------------------------------------------------------------- fresh and gone


@pytest.mark.parametrize("each", [1, 3])
def test_of_many_small_files_footers_alone_say_where_rows_are(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, each: int
) -> None:
    days = [START + timedelta(days=3 * n) for n in range(60)]
    for n, day in enumerate(days):
        own = {n * each + i: f"'{day + i * timedelta(hours=5):%Y-%m-%dT%H:%M:%SZ}'" for i in range(each)}
        log(tmp_path / f"{n:03d}.parquet", own)
    pattern, within = str(tmp_path / "*.parquet"), window("2024-05-01", "2025-05-01")
    told = source_of(pattern, engine).survey(within)
    cut = source_of(pattern, engine).survey(window("2024-05-01T02:00:00Z", "2024-07-01"))
    monkeypatch.setattr(files, "MANY", 1_000)
    read_ = source_of(pattern, engine).survey(within)
    assert (told.highest, told.null_cursors) == (read_.highest, 0)
    assert sum(rows for _, rows in told.buckets) == sum(rows for _, rows in read_.buckets) == 60 * each
    assert [position for position, _ in told.buckets] == [at(f"{day:%Y-%m-%dT%H:%M:%SZ}") for day in days]
    assert sum(rows for _, rows in cut.buckets) == 21 * each - 1, "what lies across an end is read"


def test_files_that_overlap_are_read_for_where_their_rows_are(tmp_path: Path, engine: Engine) -> None:
    for n in range(60):
        ends = {2 * n: f"'{START + timedelta(hours=n):%Y-%m-%dT%H:%M:%SZ}'", 2 * n + 1: "'2024-12-31T00:00:00Z'"}
        log(tmp_path / f"{n:03d}.parquet", ends)
    survey = source_of(str(tmp_path / "*.parquet"), engine).survey(window("2024-05-01", "2025-05-01"))
    assert [rows for _, rows in survey.buckets][-1] == 60
    assert sum(rows for _, rows in survey.buckets) == 120


def test_a_file_that_appears_after_planning_is_read(tmp_path: Path, engine: Engine) -> None:
    log(tmp_path / "0.parquet", {0: "'2024-05-01'"})
    source = source_of(f"{tmp_path}/*.parquet", engine)
    source.survey(ALL)
    log(tmp_path / "1.parquet", {1: "'2024-05-01'"})
    assert ids(read(source, engine, ALL)) == ["a0", "a1"]


def test_a_file_that_is_gone_when_it_is_to_be_read_passes(tmp_path: Path, engine: Engine) -> None:
    log(tmp_path / "0.parquet", {0: "'2024-05-01'"})
    log(tmp_path / "1.parquet", {1: "'2024-05-01'"})
    source = source_of(f"{tmp_path}/*.parquet", engine)
    source.survey(ALL)
    found = LocalFiles.files

    def rotated(store: LocalFiles, folder: str, pattern: list[str]) -> Iterator[Any]:
        yield from list(found(store, folder, pattern))
        (tmp_path / "0.parquet").unlink(missing_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalFiles, "files", rotated)
        with pytest.raises(Retryable, match=r"0\.parquet"):
            source.survey(ALL)
    assert ids(read(source, engine, ALL)) == ["a1"]


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path, engine: Engine) -> None:
    log(tmp_path / "log" / "a" / "0.parquet", {0: "'2024-05-01'"})
    log(tmp_path / "elsewhere" / "1.parquet", {1: "'2024-05-01'"})
    (tmp_path / "log" / "a" / "up").symlink_to(tmp_path / "log")
    (tmp_path / "log" / "other").symlink_to(tmp_path / "elsewhere")
    assert ids(read(source_of(f"{tmp_path}/log/**/*.parquet", engine), engine, ALL)) == ["a0", "a1"]


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, engine: Engine) -> None:
    log(tmp_path / "0.parquet", {0: "'2024-05-01'"})
    (tmp_path / "1.parquet").write_bytes((tmp_path / "0.parquet").read_bytes()[:-9])
    with pytest.raises(Misconfigured, match=r"1\.parquet is no parquet file that can be read"):
        source_of(f"{tmp_path}/*.parquet", engine).columns()


def test_a_folder_that_may_not_be_looked_at_is_named(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr("os.scandir", refused)
    with pytest.raises(Misconfigured, match="may not be looked at"):
        source_of(f"{tmp_path}/*.parquet", engine).columns()


def test_rows_without_a_cursor_are_counted_by_statistics_in_files_that_are_not_opened(
    tmp_path: Path, engine: Engine
) -> None:
    log(tmp_path / "0.parquet", {0: "'2024-05-01'", 1: "NULL"})
    log(tmp_path / "1.parquet", {2: "NULL", 3: "NULL"})
    log(tmp_path / "2.parquet", {4: "'2024-05-09'", 5: "NULL"})
    execute(f"COPY (SELECT 'a6' AS id, 6 AS v) TO '{tmp_path}/3.parquet'")
    source = source_of(f"{tmp_path}/*.parquet", engine)
    assert source.survey(window("2024-05-01", "2024-05-02")).null_cursors == 5


# --------------------------------------------------------------------------------------------------------- the cache


@pytest.fixture
def cached(tmp_path: Path, engine: Engine) -> Callable[[], DuckDBSource]:
    """Makes sources of one log that share a cache, as runs one after the other do."""
    (tmp_path / "cache").mkdir()
    for n in range(30):
        log(tmp_path / f"{n:02d}.parquet", {n: f"'2024-05-{n + 1:02d}'"})
    return lambda: source_of(f"{tmp_path}/*.parquet", engine, cache=tmp_path / "cache")


def test_footers_are_read_once_and_kept_from_run_to_run(
    tmp_path: Path, engine: Engine, cached: Callable[[], DuckDBSource], opened: list[int]
) -> None:
    source = cached()
    for _ in range(3):
        assert len(read(source, engine, ALL)) == 30
    assert opened == [30]
    log(tmp_path / "30.parquet", {30: "'2024-05-31'"})
    again = cached()
    assert len(read(again, engine, ALL)) == 31
    assert ids(read(again, engine, window("2024-05-07", "2024-05-08"))) == ["a6"]
    assert opened == [30, 1]


def test_a_file_that_changed_is_looked_at_again(
    tmp_path: Path, engine: Engine, cached: Callable[[], DuckDBSource], opened: list[int]
) -> None:
    read(cached(), engine, ALL)
    opened.clear()
    log(tmp_path / "05.parquet", {5: "'2024-05-06'", 77: "'2024-05-28'"})
    assert ids(read(cached(), engine, window("2024-05-28", "2024-05-29"))) == ["a27", "a77"]
    assert opened == [1]


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "other", "missing"])
def test_a_cache_that_is_damaged_or_gone_is_made_again(
    tmp_path: Path, engine: Engine, cached: Callable[[], DuckDBSource], opened: list[int], damage: str
) -> None:
    read(cached(), engine, ALL)
    (cache,) = (tmp_path / "cache").iterdir()
    whole = cache.read_bytes()
    at_ = len(whole) // 4
    spoilt = {
        "empty": b"",
        "cut": whole[:-20],
        "changed": whole[:at_] + bytes([whole[at_] ^ 255]) + whole[at_ + 1 :],
        "other": (tmp_path / "00.parquet").read_bytes(),
    }
    if damage == "missing":
        cache.unlink()
    else:
        cache.write_bytes(spoilt[damage])
    opened.clear()
    assert ids(read(cached(), engine, window("2024-05-07", "2024-05-08"))) == ["a6"]
    assert opened == [30]
    opened.clear()
    assert ids(read(cached(), engine, window("2024-05-07", "2024-05-08"))) == ["a6"]
    assert opened == []


def test_what_is_kept_of_one_type_of_cursor_is_not_taken_for_another(
    tmp_path: Path, engine: Engine, cached: Callable[[], DuckDBSource]
) -> None:
    read(cached(), engine, ALL)
    for n in range(30):
        log(tmp_path / f"{n:02d}.parquet", {n: str(n)}, of="BIGINT")
    assert ids(read(cached(), engine, Range(6, 7))) == ["a6"]


def test_nothing_is_kept_where_there_is_no_folder_for_it(tmp_path: Path, engine: Engine) -> None:
    log(tmp_path / "0.parquet", {0: "'2024-05-01'"})
    source = source_of(f"{tmp_path}/*.parquet", engine, cache=tmp_path / "cache")
    assert ids(read(source, engine, ALL)) == ["a0"]
    assert not (tmp_path / "cache").exists()


LOOK = """
import sys
from pathlib import Path
from tidepost.engine import Engine
from tidepost.ranges import Range
from tidepost.sources.duckdb import DuckDBSource, Origin
folder = Path(sys.argv[1])
engine = Engine(memory=200_000_000, threads=1, scratch=folder / "spill")
for n in range(5):
    source = DuckDBSource(Origin(files=(f"{folder}/*.parquet",), cache=folder / "cache"), engine, column="c")
    assert source.survey(Range(-(2**62), 2**62)).buckets
    for cache in (folder / "cache").glob("*.parquet"):
        if n < 4:
            cache.unlink(missing_ok=True)
"""


def test_processes_that_write_the_cache_at_once_leave_a_whole_one(
    tmp_path: Path, engine: Engine, cached: Callable[[], DuckDBSource], opened: list[int]
) -> None:
    looking = [subprocess.Popen([sys.executable, "-c", LOOK, str(tmp_path)]) for _ in range(2)]
    assert [process.wait(60) for process in looking] == [0, 0]
    read(cached(), engine, ALL)
    assert opened == []
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".parquet"]


def test_the_last_and_the_first_value_of_a_cursor_can_be_kept(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "cache").mkdir()
    log(tmp_path / "0.parquet", {0: str(2**64 - 1), 1: "0"}, of="UBIGINT")
    for _ in range(2):
        source = source_of(f"{tmp_path}/*.parquet", engine, cache=tmp_path / "cache", declared=CursorType.INTEGER)
        assert source.survey(Range(2**64 - 1, 2**64)).highest == 2**64 - 1
