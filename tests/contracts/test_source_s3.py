"""Files in S3 as a source: the contract, and what is their own. The server is a real one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pytest
from tests.contracts.source_contract import ALL, Holding, NaiveTimesContract, SourceContract, at, read
from tests.contracts.test_source_duckdb import TEXTUAL, split_over_files, write
from tests.s3 import SECRET, NewPlace, S3Server
from tests.world import START, World, rows

from tidepost.engine import Engine, translated
from tidepost.errors import Misconfigured, Retryable
from tidepost.ports import Source
from tidepost.ranges import Range
from tidepost.s3.connection import Connection, Store
from tidepost.sources.duckdb import DuckDBSource, Origin

Upload = Callable[[Path], str]


def in_s3(pattern: str, engine: Engine, format: str = "parquet", zone: str | None = None) -> DuckDBSource:  # noqa: A002
    return DuckDBSource(Origin(files=(pattern,), format=format), engine, column="c", zone=zone)


@pytest.fixture
def uploaded(new_place: NewPlace) -> Upload:
    """Uploads what a folder holds to a place of its own, and gives its address."""

    def upload(folder: Path) -> str:
        place = new_place()
        store = Store.at(place)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                store.upload(path.relative_to(folder).as_posix(), path)
        return place

    return upload


class ObjectContract(SourceContract):
    format, suffix, options = "parquet", "parquet", "FORMAT parquet"

    @pytest.fixture
    def holding(self, tmp_path: Path, engine: Engine, uploaded: Upload) -> Holding:
        number = itertools.count()

        def make(sql: str, *, zone: str | None = None) -> Source:
            folder = tmp_path / f"log {next(number)}"
            folder.mkdir()
            split_over_files(folder, self.suffix, self.options, sql)
            return in_s3(f"{uploaded(folder)}/*.{self.suffix}", engine, self.format, zone)

        return make


class TestParquetInS3(ObjectContract, NaiveTimesContract):
    types = ("TIMESTAMPTZ", "TIMESTAMP", "DATE", "BIGINT")


class TestCsvInS3(ObjectContract):
    format, suffix, options = "csv", "csv", "FORMAT csv, HEADER"
    types = TEXTUAL[:1]


class TestGzippedCsvInS3(ObjectContract):
    format, suffix, options = "csv", "csv.gz", "FORMAT csv, HEADER, COMPRESSION gzip"
    types = TEXTUAL[:1]


class TestJsonInS3(ObjectContract):
    format, suffix, options = "json", "jsonl", "FORMAT json"
    types = ("DATE",)


class TestJsonWithZstdInS3(ObjectContract):
    format, suffix, options = "json", "jsonl.zst", "FORMAT json, COMPRESSION zstd"
    types = ("DATE",)


# ----------------------------------------------------------------------------------------------------------- S3 alone

HOURLY = "day={start:%Y-%m-%d}/hour={start:%H}/*.parquet"


@pytest.fixture
def requests(s3: S3Server) -> list[tuple[str, str]]:
    """Every request that asks for names or bytes: its kind, and the prefix or key."""
    asked: list[tuple[str, str]] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        asked.append((model.name, unquote(params["url_path"]) + params["query_string"].get("prefix", "")))

    Connection.shared().client.meta.events.register("before-call.s3", note)
    return asked


def hourly(folder: Path, first: datetime, count: int, *, rubbish: bool = False) -> None:
    """A file for each hour, with a row at its beginning."""
    for n in range(count):
        start = first + timedelta(hours=n)
        path = folder / f"day={start:%Y-%m-%d}" / f"hour={start:%H}" / "0.parquet"
        path.parent.mkdir(parents=True)
        if rubbish:
            path.write_text("no parquet")
        else:
            write(path, f"SELECT 'a{n}' AS id, TIMESTAMPTZ '{start:%Y-%m-%d %H:%M:%S}Z' AS c, {n} AS v")


def test_only_the_folders_of_a_range_are_listed_and_only_its_files_read(
    tmp_path: Path, engine: Engine, uploaded: Upload, requests: list[tuple[str, str]]
) -> None:
    hourly(tmp_path, datetime(2024, 4, 30, 12, tzinfo=UTC), 12, rubbish=True)
    hourly(tmp_path, datetime(2024, 5, 1, tzinfo=UTC), 24)
    source = DuckDBSource(Origin(files=(f"{uploaded(tmp_path)}/{HOURLY}",), slack=0), engine, column="c")
    window = Range(at("2024-05-01T05:00:00Z"), at("2024-05-01T06:00:00Z"))
    assert source.columns()["v"] == "INTEGER"
    requests.clear()
    assert read(source, engine, window) == [("a5", window.start)]
    assert [path.rpartition("some/place/")[2] for kind, path in requests if kind == "ListObjectsV2"] == [
        "day=2024-05-01/hour=05/"
    ]
    assert {path.rpartition("some/place/")[2] for kind, path in requests if kind == "GetObject"} == {
        "day=2024-05-01/hour=05/0.parquet"
    }


def test_footers_that_were_kept_are_not_read_again(
    tmp_path: Path, engine: Engine, uploaded: Upload, requests: list[tuple[str, str]]
) -> None:
    hourly(tmp_path / "log", datetime(2024, 5, 1, tzinfo=UTC), 24)
    (tmp_path / "cache").mkdir()
    pattern = f"{uploaded(tmp_path / 'log')}/**/*.parquet"
    window = Range(at("2024-05-01T05:00:00Z"), at("2024-05-01T06:00:00Z"))
    asked = []
    for _ in range(2):
        requests.clear()
        source = DuckDBSource(Origin(files=(pattern,), cache=tmp_path / "cache"), engine, column="c")
        assert read(source, engine, window) == [("a5", window.start)]
        asked.append({path for kind, path in requests if kind == "GetObject"})
    assert len(asked[0]) == 24
    assert {path.rpartition("some/place/")[2] for path in asked[1]} == {
        "day=2024-05-01/hour=00/0.parquet",  # for its columns, as all files have the same
        "day=2024-05-01/hour=05/0.parquet",
    }


def test_an_object_that_was_written_anew_is_looked_at_again(
    tmp_path: Path, engine: Engine, new_place: NewPlace
) -> None:
    place = new_place()
    store = Store.at(place)
    write(tmp_path / "0.parquet", "SELECT 'a0' AS id, TIMESTAMPTZ '2024-05-01' AS c, 0 AS v")
    store.upload("0.parquet", tmp_path / "0.parquet")
    source = in_s3(f"{place}/*.parquet", engine)
    assert read(source, engine, ALL) == [("a0", at("2024-05-01"))]
    write(tmp_path / "0.parquet", "SELECT 'a1' AS id, TIMESTAMPTZ '2024-05-09' AS c, 1 AS v")
    store.upload("0.parquet", tmp_path / "0.parquet")
    assert read(source, engine, Range(at("2024-05-09"), at("2024-05-10"))) == [("a1", at("2024-05-09"))]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.parquet", ["a0"]),
        ("**/*.parquet", ["a0", "a1", "a2", "a3"]),
        ("*/*.parquet", ["a1", "a3"]),
        ("one/*", ["a1"]),
        ("o*/**", ["a1", "a2"]),
        ("one/two words+%41/2.parquet", ["a2"]),
        ("*/[ab]-?.parquet", ["a3"]),
    ],
)
def test_a_pattern_finds_what_it_would_find_on_a_disk(
    tmp_path: Path, engine: Engine, new_place: NewPlace, pattern: str, found: list[str]
) -> None:
    store = Store.at(new_place())
    names = ["0.parquet", "one/1.parquet", "one/two words+%41/2.parquet", "three/b-3.parquet", ".tmp/4.parquet"]
    for n, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        write(path, f"SELECT 'a{n}' AS id, {n} AS c, {n} AS v")
        store.upload(name, path)
    store.put("one/", b"")  # as some tools mark a folder
    for place in (str(store), str(tmp_path)):
        assert [id_ for id_, _ in read(in_s3(f"{place}/{pattern}", engine), engine, ALL)] == found


def test_an_object_that_is_gone_when_it_is_to_be_read_passes(
    tmp_path: Path, engine: Engine, new_place: NewPlace
) -> None:
    store = Store.at(new_place())
    for n in range(2):
        write(tmp_path / f"{n}.parquet", f"SELECT 'a{n}' AS id, {n} AS c, {n} AS v")
        store.upload(f"{n}.parquet", tmp_path / f"{n}.parquet")
    source = in_s3(f"{store}/*.parquet", engine)
    assert len(read(source, engine, ALL)) == 2
    connection = engine.connect()
    with source.read(connection, ALL, ["id"]) as relation:
        store.remove("0.parquet")
        with pytest.raises(duckdb.Error) as error:
            connection.execute(relation.sql, dict(relation.values)).fetchall()
    assert isinstance(translated(error.value, "source"), Retryable)
    assert read(source, engine, ALL) == [("a1", 1)]


def test_a_bucket_that_is_not_there_is_named(engine: Engine, s3: S3Server) -> None:
    with pytest.raises(Misconfigured, match="there is no bucket not-there at"):
        in_s3("s3://not-there/log/*.parquet", engine).columns()


def test_a_place_without_files_is_named(engine: Engine, new_place: NewPlace) -> None:
    with pytest.raises(Misconfigured, match=r"source\.files: nothing matches s3://bucket-.*/some/place/\*\.parquet"):
        in_s3(f"{new_place()}/*.parquet", engine).columns()


def test_without_credentials_the_error_says_how_to_give_them(
    engine: Engine, new_place: NewPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = new_place()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Misconfigured, match="there are no credentials") as error:
        in_s3(f"{place}/*.parquet", engine).columns()
    assert "AWS_ACCESS_KEY_ID" in str(error.value)


def test_a_log_in_s3_arrives_once_and_what_comes_later_too(world: World, new_place: NewPlace, tmp_path: Path) -> None:
    store = Store.at(new_place())

    def shipped(name: str, first: int, count: int) -> None:
        hours = [START + timedelta(hours=n) for n in range(first, first + count)]
        for hour in hours:
            number = int((hour - START).total_seconds() // 3600) * 10
            path = world.log(name, rows(10, first=number, at=hour))
            store.upload(f"{hour:%Y/%m/%d/%H}/{name}.parquet", path)

    world.define(source=f"{store}/{{start:%Y/%m/%d/%H}}/*.parquet")
    shipped("one", 0, 14)
    assert world.run().tally.published == 140
    shipped("two", 14, 6)
    assert world.run().tally.published == 60
    assert world.run().tally.published == 0
    assert world.everything_arrived_once(200)
    for folder in (world.root / "jobs", world.root / ".tidepost"):
        assert not any(SECRET.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())
