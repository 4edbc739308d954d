"""The sources that DuckDB reads: the contract, and what is their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.contracts.source_contract import (
    ALL,
    CASES,
    Holding,
    NaiveTimesContract,
    SourceContract,
    arrow,
    at,
    execute,
    read,
    rows_of,
)

from tidepost.cursor import CursorType
from tidepost.engine import Engine
from tidepost.errors import Misconfigured
from tidepost.ports import Source
from tidepost.ranges import Range
from tidepost.sources.duckdb import DuckDBSource, Origin

ZONED = CASES[0]
AT = "TIMESTAMPTZ"
TEXTUAL = ("TIMESTAMPTZ", "TIMESTAMP", "DATE", "BIGINT")
"""What is found again in text: of the types, only these."""


def split_over_files(folder: Path, suffix: str, options: str, rows: str) -> None:
    """Write rows to three files, so that some of them lack some values, or all."""
    for part in range(3):
        execute(
            f"COPY (SELECT * FROM ({rows}) WHERE v % 3 = {part} ORDER BY v) TO '{folder}/{part}.{suffix}' ({options})"
        )


class FileContract(SourceContract):
    format = "parquet"
    suffix = "parquet"
    options = "FORMAT parquet"

    @pytest.fixture
    def holding(self, tmp_path: Path, engine: Engine) -> Holding:
        number = itertools.count()

        def make(rows: str, *, zone: str | None = None) -> Source:
            folder = tmp_path / f"log {next(number)}"
            folder.mkdir()
            split_over_files(folder, self.suffix, self.options, rows)
            origin = Origin(files=(f"{folder}/*.{self.suffix}",), format=self.format)
            return DuckDBSource(origin, engine, column="c", zone=zone)

        return make


class TestParquet(FileContract, NaiveTimesContract):
    types = ("TIMESTAMPTZ", "TIMESTAMP", "TIMESTAMP_NS", "DATE", "TINYINT", "BIGINT", "UBIGINT", "UUID")


class TestParquetOfManyRowGroups(FileContract):
    options = "FORMAT parquet, ROW_GROUP_SIZE 1"
    types = ("TIMESTAMPTZ", "UTINYINT")


class TestParquetWithoutStatistics(FileContract):
    types = ("TIMESTAMPTZ", "BIGINT")

    @pytest.fixture
    def holding(self, tmp_path: Path, engine: Engine) -> Holding:
        number = itertools.count()

        def make(rows: str, *, zone: str | None = None) -> Source:
            folder = tmp_path / f"log {next(number)}"
            folder.mkdir()
            pq.write_table(arrow(rows), folder / "a.parquet", write_statistics=False)
            origin = Origin(files=(f"{folder}/*.parquet",))
            return DuckDBSource(origin, engine, column="c", zone=zone)

        return make


class TestParquetOfArrow(FileContract):
    """Files as pandas, polars and Spark write them: with Arrow's own statistics, a file for each row."""

    types = ("TIMESTAMPTZ", "TIMESTAMP_NS", "UTINYINT", "UBIGINT")

    @pytest.fixture
    def holding(self, tmp_path: Path, engine: Engine) -> Holding:
        number = itertools.count()

        def make(rows: str, *, zone: str | None = None) -> Source:
            folder = tmp_path / f"log {next(number)}"
            folder.mkdir()
            table = arrow(rows)
            step = max(1, table.num_rows // 10)
            for first in range(0, table.num_rows, step):
                pq.write_table(table.slice(first, step), folder / f"{first:05d}.parquet")
            return DuckDBSource(Origin(files=(f"{folder}/*.parquet",)), engine, column="c", zone=zone)

        return make


class TestCsv(FileContract, NaiveTimesContract):
    format, suffix, options = "csv", "csv", "FORMAT csv, HEADER"
    types = TEXTUAL


class TestGzippedCsv(FileContract):
    format, suffix, options = "csv", "csv.gz", "FORMAT csv, HEADER, COMPRESSION gzip"
    types = ("TIMESTAMPTZ",)


class TestJsonLines(FileContract):
    format, suffix, options = "json", "jsonl", "FORMAT json"
    types = ("DATE", "BIGINT")


class TableContract(SourceContract):
    @pytest.fixture
    def holding(self, tmp_path: Path, engine: Engine) -> Holding:
        number = itertools.count()

        def make(rows: str, *, zone: str | None = None) -> Source:
            database = tmp_path / f"{next(number)}.duckdb"
            with duckdb.connect(database) as connection:
                execute(f'CREATE TABLE "the log" AS {rows}', connection)
            return self.source(database, engine, zone)

        return make

    def source(self, database: Path, engine: Engine, zone: str | None) -> Source:
        return DuckDBSource(Origin(table="the log", database=database), engine, column="c", zone=zone)


class TestTable(TableContract, NaiveTimesContract):
    types = ("TIMESTAMPTZ", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TINYINT", "HUGEINT")


class TestQuery(TableContract, NaiveTimesContract):
    types = ("TIMESTAMPTZ", "DATE", "UUID")

    def source(self, database: Path, engine: Engine, zone: str | None) -> Source:
        query = 'SELECT id, c, v FROM "the log" -- all of it'
        return DuckDBSource(Origin(query=query, database=database), engine, column="c", zone=zone)


class TestQueryThatSaysWhereItsRangeGoes(TableContract):
    types = ("TIMESTAMPTZ",)

    def source(self, database: Path, engine: Engine, zone: str | None) -> Source:
        query = 'SELECT DISTINCT id, c, v FROM "the log" WHERE c >= {start} AND c < {end} ORDER BY v'
        return DuckDBSource(Origin(query=query, database=database), engine, column="c", zone=zone)


@pytest.mark.parametrize("type_", ["DATE", "BIGINT", "INTEGER"])
def test_the_ends_that_a_query_is_given_have_the_declared_type(tmp_path: Path, engine: Engine, type_: str) -> None:
    case = next(one for one in CASES if one.type == type_)
    with duckdb.connect(tmp_path / "log.duckdb") as connection:
        execute(f"CREATE TABLE log AS {rows_of(case)}", connection)
    query = "SELECT * FROM log WHERE c >= {start} AND c < {end}"
    declared = CursorType.DATE if type_ == "DATE" else CursorType.INTEGER
    source = DuckDBSource(
        Origin(query=query, database=tmp_path / "log.duckdb"), engine, column="c", declared=declared
    )
    low, high = case.positions[1], case.positions[3]
    assert [position for _, position in read(source, engine, Range(low, high))] == case.positions[1:3]


# ---------------------------------------------------------------------------------------------------- files alone


def in_files(folder: Path, engine: Engine, column: str = "c", **options: str) -> DuckDBSource:
    return DuckDBSource(Origin(files=(f"{folder}/*.parquet",)), engine, column=column, zone=options.get("zone"))


def write(path: Path, sql: str) -> None:
    execute(f"COPY ({sql}) TO '{path}' (FORMAT parquet)")


def test_a_file_that_lacks_the_cursor_is_no_obstacle_wherever_the_range_lies(tmp_path: Path, engine: Engine) -> None:
    write(tmp_path / "0.parquet", "SELECT 'old' AS id, 9 AS v")
    write(tmp_path / "1.parquet", rows_of(ZONED))
    source = in_files(tmp_path, engine)
    assert source.survey(ALL).highest == ZONED.positions[-1]
    assert source.survey(Range(ALL.end, ALL.end + 1)).highest is None
    assert read(source, engine, Range(ALL.end, ALL.end + 1)) == []


def test_a_file_that_lacks_a_column_gives_null_for_it(tmp_path: Path, engine: Engine) -> None:
    write(tmp_path / "0.parquet", "SELECT 'a0' AS id, TIMESTAMPTZ '2024-05-01 00:00:00Z' AS c")
    write(tmp_path / "1.parquet", "SELECT 'a1' AS id, TIMESTAMPTZ '2024-05-02 00:00:00Z' AS c, 1 AS v")
    source = in_files(tmp_path, engine)
    window = Range(at("2024-05-01"), at("2024-05-02"))
    with engine.connect() as connection, source.read(connection, window, ["id", "v"]) as relation:
        found = connection.execute(f"SELECT id, v FROM ({relation.sql})", dict(relation.values)).fetchall()
    assert found == [("a0", None)]


def test_a_column_that_is_spelt_otherwise_in_a_later_file_is_the_same(tmp_path: Path, engine: Engine) -> None:
    write(tmp_path / "0.parquet", "SELECT 'a0' AS id, TIMESTAMPTZ '2024-05-01 00:00:00Z' AS c, 0 AS v")
    write(tmp_path / "1.parquet", "SELECT 'a1' AS id, TIMESTAMPTZ '2024-05-02 00:00:00Z' AS C, 1 AS V")
    source = in_files(tmp_path, engine)
    assert [id_ for id_, _ in read(source, engine, ALL)] == ["a0", "a1"]
    assert [id_ for id_, _ in read(source, engine, Range(at("2024-05-02"), at("2024-05-03")))] == ["a1"]


def test_files_whose_own_columns_differ_tell_them_in_the_range_that_is_read(tmp_path: Path, engine: Engine) -> None:
    folder = tmp_path / "month=05"
    folder.mkdir()
    usual, spelt, lacks, wider = (str(folder / f"{number}.parquet") for number in range(4))
    nested = "{'v': 1, 'w': {'u': 2}} AS s, [{'t': 1}] AS l"
    write(Path(usual), f"SELECT 'a0' AS id, {AT} '2024-05-01 00:00:00Z' AS c, {nested}, 0 AS v")
    write(Path(spelt), f"SELECT 'a1' AS ID, {AT} '2024-05-02 00:00:00Z' AS C, {nested}, 0 AS V")
    write(Path(lacks), f"SELECT 'a2' AS id, {AT} '2024-05-03 00:00:00Z' AS c, {nested}")
    write(Path(wider), f"SELECT 4 AS id, {AT} '2024-05-04 00:00:00Z' AS c, {nested}, 0 AS v")
    write(folder / "4.parquet", "SELECT 'without a cursor' AS x")
    origin = Origin(files=(f"{tmp_path}/month=*/*.parquet",))
    source = DuckDBSource(origin, engine, column="c")
    found = source.layouts(Range(at("2024-05-01"), at("2024-05-05")))
    assert set(found) == {usual, spelt, lacks, wider}, "none has x"
    (folder / "4.parquet").unlink()
    source = DuckDBSource(origin, engine, column="c")
    found = source.layouts(Range(at("2024-05-01"), at("2024-05-05")))
    assert set(found) == {lacks, wider}
    of = "TIMESTAMP WITH TIME ZONE"
    assert found[lacks] == {"month": "", "id": "VARCHAR", "c": of, "s": "", "l": ""}
    assert found[wider] == {"month": "", "id": "INTEGER", "c": of, "s": "", "l": "", "v": "INTEGER"}
    assert source.layouts(Range(at("2024-05-01"), at("2024-05-03"))) == {}
    write(Path(lacks), f"SELECT 'a2' AS id, {AT} '2024-05-03 00:00:00Z' AS c, {nested}, 0 AS v")
    assert set(source.layouts(Range(at("2024-05-01"), at("2024-05-05")))) == {wider}


@pytest.mark.parametrize(("format_", "told"), [("csv", {"b": {"id": "", "c": ""}}), ("json", {})])
def test_text_files_tell_their_columns_as_far_as_they_say_them(
    tmp_path: Path, engine: Engine, format_: str, told: dict[str, dict[str, str]]
) -> None:
    execute(f"COPY (SELECT 'a' AS id, {AT} '2024-05-01 00:00:00Z' AS c, 0 AS v) TO '{tmp_path}/a.{format_}'")
    execute(f"COPY (SELECT 'b' AS id, {AT} '2024-05-02 00:00:00Z' AS c) TO '{tmp_path}/b.{format_}'")
    source = DuckDBSource(Origin(files=(f"{tmp_path}/*.{format_}",), format=format_), engine, column="c")
    found = source.layouts(Range(at("2024-05-01"), at("2024-05-05")))
    assert {Path(file).stem: dict(layout) for file, layout in found.items()} == told


def test_a_file_that_grew_since_it_was_looked_at_is_read_as_it_is(tmp_path: Path, engine: Engine) -> None:
    write(tmp_path / "0.parquet", "SELECT 'a0' AS id, TIMESTAMPTZ '2024-05-01 00:00:00Z' AS c, 0 AS v")
    source = in_files(tmp_path, engine)
    assert source.survey(ALL).highest == at("2024-05-01")
    grown = (
        "SELECT 'a' || i AS id, TIMESTAMPTZ '2024-05-01 00:00:00Z' + INTERVAL (i) DAY AS c, i AS v FROM range(2) r(i)"
    )
    write(tmp_path / "0.parquet", grown)
    assert source.survey(ALL).highest == at("2024-05-02")


@pytest.mark.parametrize("folder", ["it's", "with [brackets]", "stars * and ?", "größe 🎈", "{braces}"])
def test_a_folder_of_any_name_can_hold_the_log(
    tmp_path: Path, engine: Engine, folder: str, make_pattern: Callable[[Path], str]
) -> None:
    (tmp_path / folder).mkdir()
    table = pa.table({"id": ["a0"], "c": pa.array([0], pa.int64()), "v": [0]})
    pq.write_table(table, tmp_path / folder / "0.parquet")
    source = DuckDBSource(Origin(files=(make_pattern(tmp_path / folder),)), engine, column="c")
    assert read(source, engine, ALL) == [("a0", 0)]
    assert list(source.columns()) == ["id", "c", "v"]


@pytest.fixture
def make_pattern() -> Callable[[Path], str]:
    """A pattern below a folder whose own name is no pattern."""
    import glob  # noqa: PLC0415

    return lambda folder: f"{glob.escape(str(folder))}/*.parquet"


def test_a_folder_that_names_a_partition_is_a_column(tmp_path: Path, engine: Engine) -> None:
    for day in (1, 2):
        folder = tmp_path / f"day=2024-05-0{day}"
        folder.mkdir()
        write(folder / "0.parquet", f"SELECT 'a{day}' AS id, {day} AS v")
    source = DuckDBSource(Origin(files=(f"{tmp_path}/*/*.parquet",)), engine, column="day")
    assert source.columns()["day"] == "DATE"
    start = at("2024-05-02") // at("1970-01-02")
    assert [id_ for id_, _ in read(source, engine, Range(start, start + 1))] == ["a2"]


def test_a_column_from_folders_is_of_one_type_whichever_files_are_read(tmp_path: Path, engine: Engine) -> None:
    for number, shard in enumerate(("01", "x")):
        folder = tmp_path / f"shard={shard}"
        folder.mkdir()
        write(folder / "0.parquet", f"SELECT 'a' AS id, {number}::BIGINT AS c")
    source = DuckDBSource(Origin(files=(f"{tmp_path}/*/*.parquet",)), engine, column="c")
    with engine.connect() as connection, source.read(connection, Range(0, 1), ["shard"]) as relation:
        assert connection.execute(relation.sql, dict(relation.values)).fetchall() == [("01", 0)]


def test_a_pattern_without_files_names_itself(tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(Misconfigured, match=r"nothing matches .*\*\.parquet"):
        in_files(tmp_path, engine).columns()


def test_a_database_that_is_not_there_is_named(tmp_path: Path, engine: Engine) -> None:
    source = DuckDBSource(Origin(table="log", database=tmp_path / "no.duckdb"), engine, column="c")
    with pytest.raises(Misconfigured, match=r"source\.database: there is no file .*no\.duckdb"):
        source.columns()


def test_the_users_tables_are_read_and_never_written(tmp_path: Path, engine: Engine) -> None:
    with duckdb.connect(tmp_path / "log.duckdb") as connection:
        execute(f"CREATE TABLE log AS {rows_of(ZONED)}", connection)
    before = (tmp_path / "log.duckdb").read_bytes()
    source = DuckDBSource(Origin(table="main.log", database=tmp_path / "log.duckdb"), engine, column="c")
    read(source, engine, ALL)
    assert (tmp_path / "log.duckdb").read_bytes() == before


@pytest.mark.parametrize("type_", ["VARCHAR", "DOUBLE", "BOOLEAN", "TIME"])
def test_a_type_that_has_no_exact_order_is_no_cursor(tmp_path: Path, engine: Engine, type_: str) -> None:
    write(tmp_path / "0.parquet", f"SELECT 'a0' AS id, NULL::{type_} AS c, 0 AS v")
    with pytest.raises(Misconfigured, match="cannot be a cursor"):
        in_files(tmp_path, engine).cursor()


def test_a_cursor_of_another_type_than_declared_is_refused(tmp_path: Path, engine: Engine) -> None:
    write(tmp_path / "0.parquet", rows_of(ZONED))
    source = DuckDBSource(Origin(files=(f"{tmp_path}/*.parquet",)), engine, column="c", declared=CursorType.INTEGER)
    with pytest.raises(Misconfigured, match=r"cursor\.type: 'c' is TIMESTAMP WITH TIME ZONE, a timestamp cursor"):
        source.cursor()
