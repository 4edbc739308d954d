"""PostgreSQL as a source: the contract on a real server, and what is its own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL
from tests.contracts.source_contract import (
    ALL,
    CASES,
    SPRING,
    Holding,
    NaiveTimesContract,
    SourceContract,
    arrow,
    at,
    execute,
    read,
    rows_of,
)
from tests.postgres import ADMIN, Server
from tests.world import eventually

from tidepost.cursor import CursorType
from tidepost.engine import Engine
from tidepost.errors import Misconfigured, Retryable
from tidepost.ports import Source
from tidepost.ranges import Range
from tidepost.sources.postgres.source import Origin, PostgresSource

AT_SERVER = {
    "TIMESTAMPTZ": "timestamptz",
    "TIMESTAMP": "timestamp",
    "DATE": "date",
    "TINYINT": "int2",
    "INTEGER": "int4",
    "BIGINT": "int8",
    "HUGEINT": "numeric(38,0)",
    "UUID": "uuid",
}
"""The types of the contract's cursors, as PostgreSQL has them."""


class Tables:
    """Tables in one database, of the session's server."""

    def __init__(self, server: Server, database: str) -> None:
        self.server = server
        self.database = database
        self._numbers = itertools.count()

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    def execute(self, *statements: str) -> list[Any]:
        return self.server.execute(self.database, *(SQL(one) for one in statements))

    def holding(self, rows: str, type_: str | None = None) -> str:
        """A table with the rows of a query in DuckDB's SQL, and an index on `c`; returns its name."""
        found = arrow(rows)
        name = f"log_{next(self._numbers)}"
        types = {"id": "text", "c": type_ or AT_SERVER[str(_types(rows)["c"])], "v": "int8"}
        columns = ", ".join(f"{column} {of}" for column, of in types.items())
        self.execute(f"CREATE TABLE {name} ({columns})", f"CREATE INDEX ON {name} (c)")
        with (
            psycopg.connect(self.url, autocommit=True) as connection,
            connection.cursor().copy(f"COPY {name} (id, c, v) FROM STDIN") as copy,
        ):
            for row in found.select(["id", "c", "v"]).to_pylist():
                copy.write_row([None if value is None else str(value) for value in row.values()])
        return name


def _types(rows: str) -> dict[str, str]:
    known = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
    return {name: known.get(of, of) for name, of, *_ in execute(f"DESCRIBE {rows}")}


def source_of(tables: Tables, name: str, column: str = "c", **options: Any) -> PostgresSource:
    return PostgresSource(tables.url, Origin(table=name), column=column, **options)


def query_of(tables: Tables, query: str, **options: Any) -> PostgresSource:
    return PostgresSource(tables.url, Origin(query=query), column="c", **options)


@pytest.fixture(scope="module")
def tables(postgres: Server) -> Iterator[Tables]:
    name = postgres.new_database()
    yield Tables(postgres, name)
    postgres.drop(name)


class PostgresContract(SourceContract):
    types = tuple(AT_SERVER)
    type_: str | None = None

    @pytest.fixture
    def holding(self, tables: Tables) -> Holding:
        def make(rows: str, *, zone: str | None = None) -> Source:
            return self.source(tables, tables.holding(rows, self.type_), zone)

        return make

    def source(self, tables: Tables, name: str, zone: str | None) -> Source:
        return PostgresSource(tables.url, Origin(table=name), column="c", zone=zone)


class TestTable(PostgresContract, NaiveTimesContract):
    pass


class TestUnboundedNumeric(PostgresContract):
    types = ("BIGINT", "HUGEINT")
    type_ = "numeric"

    def test_a_survey_has_at_most_about_a_thousand_buckets(self, holding: Holding) -> None:
        survey = holding("SELECT 'a' || i AS id, i AS c, i AS v FROM range(5000) AS r(i)").survey(Range(0, 10_000))
        assert 10 < len(survey.buckets) <= 1100


class TestQuery(PostgresContract, NaiveTimesContract):
    types = ("TIMESTAMPTZ", "DATE", "UUID")

    def source(self, tables: Tables, name: str, zone: str | None) -> Source:
        origin = Origin(query=f'SELECT id, c, v FROM "{name}" -- all of it')
        return PostgresSource(tables.url, origin, column="c", zone=zone)


class TestQueryThatSaysWhereItsRangeGoes(PostgresContract):
    types = ("TIMESTAMPTZ", "DATE", "BIGINT", "UUID")

    def source(self, tables: Tables, name: str, zone: str | None) -> Source:
        query = f"SELECT DISTINCT id, c, v FROM {name} WHERE c >= {{start}} AND c < {{end}} ORDER BY v"
        of = {"date": CursorType.DATE, "int8": CursorType.INTEGER, "uuid": CursorType.UUID}
        (type_,) = tables.execute(
            f"SELECT t.typname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            f"WHERE a.attrelid = '{name}'::regclass AND a.attname = 'c'"
        )
        return PostgresSource(tables.url, Origin(query=query), column="c", declared=of.get(str(type_)), zone=zone)


# ------------------------------------------------------------------------------------------------------ types


@pytest.fixture(scope="module")
def typed(tables: Tables) -> str:
    """A table with a column of each type that a log may hold."""
    tables.execute(
        "CREATE TYPE mood AS ENUM ('calm', 'it''s')",
        "CREATE DOMAIN positive AS int8 CHECK (value > 0)",
        "CREATE TABLE typed (c int8, b bool, i2 int2, i4 int4, f4 float4, f8 float8, n numeric, n2 numeric(10,2), "
        "n38 numeric(38,3), n40 numeric(40,3), t text, vc varchar(5), m mood, p positive, u uuid, d date, "
        "ts timestamp, tz timestamptz, ts3 timestamp(3), j json, jb jsonb, tm time, y bytea, ar int[], iv interval)",
        "INSERT INTO typed VALUES (1, true, -32768, 2147483647, 0.1, 0.1, 12345678901234567890.123456789, -0.05, "
        "12345678901234567890123456789012345.678, 1.5, 'größe', 'x', 'it''s', 7, "
        "'ffffffff-0000-0000-0000-000000000001', '2024-02-29', '2024-02-29 23:59:59.999999', "
        "'2024-02-29 23:59:59.999999+02', '2024-01-01 00:00:00.123', '{\"a\": [1]}', '{\"b\":2}', '12:30:00.5', "
        "'\\x00ff', '{1,2}', '1 day')",
        "INSERT INTO typed (c, d, ts, tz) VALUES (2, 'infinity', '-infinity', 'infinity')",
        "INSERT INTO typed (c) VALUES (3)",
    )
    return "typed"


TYPES = {
    "b": "BOOLEAN",
    "i2": "SMALLINT",
    "i4": "INTEGER",
    "f4": "FLOAT",
    "f8": "DOUBLE",
    "n": "VARCHAR",
    "n2": "DECIMAL(10,2)",
    "n38": "DECIMAL(38,3)",
    "n40": "VARCHAR",
    "t": "VARCHAR",
    "vc": "VARCHAR",
    "m": "VARCHAR",
    "p": "BIGINT",
    "u": "UUID",
    "d": "DATE",
    "ts": "TIMESTAMP",
    "tz": "TIMESTAMP WITH TIME ZONE",
    "ts3": "TIMESTAMP",
    "j": "VARCHAR",
    "jb": "VARCHAR",
    "tm": "TIME",
    "y": "BLOB",
    "ar": "int4[]",
    "iv": "interval",
}
FOREIGN = {"ar", "iv"}
"""Types that only PostgreSQL has: they come as its text."""


def test_each_type_has_its_own_in_duckdb(tables: Tables, typed: str, engine: Engine) -> None:
    source = source_of(tables, typed)
    assert source.columns() == {"c": "BIGINT", **TYPES}
    with engine.connect() as connection, source.read(connection, ALL, list(TYPES)) as relation:
        described = connection.execute(f"DESCRIBE {relation.sql}").fetchall()
    assert {name: of for name, of, *_ in described[:-1]} == TYPES | dict.fromkeys(FOREIGN, "VARCHAR")


def test_values_arrive_as_they_are(tables: Tables, typed: str, engine: Engine) -> None:
    source = source_of(tables, typed)
    with engine.connect() as connection, source.read(connection, Range(1, 2), list(TYPES)) as relation:
        (row,) = connection.execute(relation.sql).to_arrow_table().to_pylist()
    del row["tidepost:cursor"]
    assert row.pop("f4") == pytest.approx(0.1)
    assert row.pop("tm").isoformat() == "12:30:00.500000"
    assert row.pop("tz") == datetime(2024, 2, 29, 21, 59, 59, 999999, UTC)
    assert row == {
        "b": True,
        "i2": -32768,
        "i4": 2**31 - 1,
        "f8": 0.1,
        "n": "12345678901234567890.123456789",
        "n2": Decimal("-0.05"),
        "n38": Decimal("12345678901234567890123456789012345.678"),
        "n40": "1.500",
        "t": "größe",
        "vc": "x",
        "m": "it's",
        "p": 7,
        "u": "ffffffff-0000-0000-0000-000000000001",
        "d": datetime(2024, 2, 29).date(),  # noqa: DTZ001
        "ts": datetime(2024, 2, 29, 23, 59, 59, 999999),  # noqa: DTZ001
        "ts3": datetime(2024, 1, 1, 0, 0, 0, 123000),  # noqa: DTZ001
        "j": '{"a": [1]}',
        "jb": '{"b": 2}',
        "y": b"\x00\xff",
        "ar": "{1,2}",
        "iv": "1 day",
    }


def test_infinite_times_stay_infinite_and_null_stays_null(tables: Tables, typed: str, engine: Engine) -> None:
    source = source_of(tables, typed)
    with engine.connect() as connection, source.read(connection, Range(2, 4), list(TYPES)) as relation:
        sql = f"SELECT d::VARCHAR, ts::VARCHAR, tz::VARCHAR, u, n2, ar FROM ({relation.sql}) ORDER BY 1 NULLS LAST"
        found = connection.execute(sql).fetchall()
    assert found == [("infinity", "-infinity", "infinity", None, None, None), (None,) * 6]


def test_rows_with_an_infinite_cursor_are_in_no_range(tables: Tables, engine: Engine) -> None:
    name = tables.holding(rows_of(CASES[0]), "timestamptz")
    tables.execute(f"INSERT INTO {name} VALUES ('a100', 'infinity', 100), ('a101', '-infinity', 101)")
    source = source_of(tables, name)
    assert source.survey(ALL).highest == CASES[0].positions[-1]
    assert len(read(source, engine, ALL)) == len(CASES[0].positions)


def test_columns_that_only_case_tells_apart_are_refused(tables: Tables) -> None:
    with pytest.raises(Misconfigured, match="two columns named 'C'"):
        query_of(tables, 'SELECT 1 AS c, 2 AS "C"').columns()


def test_names_of_any_kind_are_read(tables: Tables, engine: Engine) -> None:
    tables.execute(
        'CREATE SCHEMA "it\'s"',
        'CREATE TABLE "it\'s"."Ein Log" ("Größe {x}" text, "c""c" int8)',
        'INSERT INTO "it\'s"."Ein Log" VALUES (\'a\', 1)',
    )
    source = source_of(tables, "it's.Ein Log", 'c"c')
    with engine.connect() as connection, source.read(connection, ALL, ["Größe {x}"]) as relation:
        assert connection.execute(relation.sql).fetchall() == [("a", 1)]
    assert 'ON "it\'s"."Ein Log" ("c""c")' in source.warnings()[0]


# ---------------------------------------------------------------------------------------------------- cursors


def test_a_numeric_cursor_may_be_larger_than_any_bigint(tables: Tables, engine: Engine) -> None:
    large = 10**30
    name = tables.holding("SELECT 'a0' AS id, 0 AS c, 0 AS v", "numeric")
    tables.execute(f"INSERT INTO {name} VALUES ('a1', {large}, 1), ('a2', {large + 1}, 2)")
    source = source_of(tables, name)
    assert source.survey(Range(0, 10**38)).highest == large + 1
    assert read(source, engine, Range(1, large + 1)) == [("a1", large)]


def test_a_cursor_with_a_fraction_is_told_and_not_rounded(tables: Tables, engine: Engine) -> None:
    name = tables.holding("SELECT 'a0' AS id, 0 AS c, 0 AS v", "numeric")
    tables.execute(f"INSERT INTO {name} VALUES ('a1', 1.5, 1)")
    with pytest.raises(Misconfigured, match="a number with a fraction"):
        source_of(tables, name).survey(ALL)
    with pytest.raises(Exception, match="a number with a fraction"):
        read(source_of(tables, name), engine, ALL)


@pytest.mark.parametrize("name", ["b", "p", "c0", "found", "inside", "source", "count", "tidepost_source"])
def test_a_cursor_may_have_any_name(tables: Tables, engine: Engine, name: str) -> None:
    query = f"SELECT i AS \"{name}\", 'a' || i AS id, i AS v FROM generate_series(8, 12) i"
    for one in (query, f'SELECT * FROM ({query}) q WHERE "{name}" >= {{start}} AND "{name}" < {{end}}'):
        source = PostgresSource(tables.url, Origin(query=one), column=name, declared=CursorType.INTEGER)
        assert source.survey(Range(9, 12)).highest == 11
        assert sum(count for _, count in source.survey(Range(9, 12)).buckets) == 3
        assert read(source, engine, Range(9, 12)) == [("a10", 10), ("a11", 11), ("a9", 9)]


def test_a_zone_that_the_server_does_not_know_is_told(tables: Tables) -> None:
    name = tables.holding(rows_of(SPRING))
    with pytest.raises(Misconfigured, match=r"such as cursor\.timezone"):
        source_of(tables, name, zone="Nowhere/At_All").survey(ALL)


@pytest.mark.parametrize("type_", ["text", "float8", "numeric(10,2)", "bool", "jsonb", "int[]"])
def test_a_type_that_has_no_exact_order_is_no_cursor(tables: Tables, type_: str) -> None:
    with pytest.raises(Misconfigured, match="cannot be a cursor"):
        query_of(tables, f"SELECT NULL::{type_} AS c").cursor()


def test_a_cursor_of_another_type_than_declared_is_refused(tables: Tables, typed: str) -> None:
    with pytest.raises(Misconfigured, match=r"cursor\.type: 'c' is BIGINT, a integer cursor, not uuid"):
        source_of(tables, typed, declared=CursorType.UUID).cursor()


@pytest.fixture(scope="module")
def large(tables: Tables) -> str:
    """A table of 30,000 rows with an index on a cursor of each type; its minutes, days and ids grow with `v`."""
    types = ("timestamptz", "timestamp", "date", "int8", "numeric", "uuid", "int4")
    columns = ", ".join(f"c_{of} {of}" for of in types)
    tables.execute(
        f"CREATE TABLE large (id text, v int8, {columns})",
        "INSERT INTO large SELECT 'a' || i, i, t, t AT TIME ZONE 'UTC', t::date, i, i, "
        "lpad(to_hex(i), 32, '0')::uuid, i "
        "FROM (SELECT i, timestamptz '2024-01-01 00:00:00+00' + interval '1 hour' * i AS t "
        "FROM generate_series(0, 29999) i) AS rows",
        *(f"CREATE INDEX ON large (c_{of})" for of in types),
        "VACUUM ANALYZE large",
    )
    return "large"


@pytest.mark.parametrize("type_", ["timestamptz", "timestamp", "date", "int8", "numeric", "uuid", "int4"])
def test_a_small_range_of_a_large_table_is_found_by_its_index(
    tables: Tables, large: str, engine: Engine, type_: str
) -> None:
    def scans() -> list[Any]:
        sql = "SELECT seq_scan || ' ' || (SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = "
        return tables.execute(f"{sql}'large_c_{type_}_idx') FROM pg_stat_user_tables WHERE relname = '{large}'")

    source = source_of(tables, large, f"c_{type_}", zone="UTC" if type_ == "timestamp" else None)
    window = {
        "timestamptz": Range(at("2025-01-01"), at("2025-01-02")),
        "timestamp": Range(at("2025-01-01"), at("2025-01-02")),
        "date": Range(20_100, 20_101),
    }.get(type_, Range(8000, 8024))
    sequential, indexed = str(scans()[0]).split()
    survey = source.survey(window)
    found = read(source, engine, window)
    assert len(found) == 24
    assert sum(count for _, count in survey.buckets) == 24
    eventually(lambda: int(str(scans()[0]).split()[1]) > int(indexed))
    assert str(scans()[0]).split()[0] == sequential


def test_a_cursor_without_an_index_is_warned_of(tables: Tables, large: str) -> None:
    assert source_of(tables, large, "c_uuid").warnings() == ()
    (text,) = source_of(tables, large, "v").warnings()
    assert 'CREATE INDEX CONCURRENTLY ON "large" ("v")' in text
    tables.execute(
        "CREATE INDEX large_partial ON large (v) WHERE v > 5", "CREATE INDEX large_second ON large (id, v)"
    )
    assert source_of(tables, large, "v").warnings()
    tables.execute("CREATE INDEX large_both ON large (v, id)")
    assert source_of(tables, large, "v").warnings() == ()
    tables.execute("DROP INDEX large_partial, large_second, large_both")


# ---------------------------------------------------------------------------------------------------- queries

REFUSED = {
    "SELECT * FROM large LIMIT 5": "LIMIT or OFFSET",
    "SELECT * FROM large OFFSET 5": "LIMIT or OFFSET",
    "SELECT l.* FROM large l, LATERAL (SELECT 1 FROM large WHERE v = l.v LIMIT 1) x": "LIMIT or OFFSET",
    "SELECT * FROM large TABLESAMPLE bernoulli (50)": "TABLESAMPLE",
    "SELECT * FROM large FOR UPDATE": "",
    "SELECT *, now() FROM large": "now()",
    "SELECT *, CURRENT_TIMESTAMP FROM large": "now()|CURRENT_TIMESTAMP",
    "SELECT * FROM large WHERE c_date < current_date": "CURRENT_DATE",
    "SELECT *, random() FROM large": "random()",
    "SELECT * FROM large WHERE random() < 0.5": "random()",
    "SELECT *, gen_random_uuid() FROM large": "gen_random_uuid()",
    "SELECT *, clock_timestamp() FROM large": "clock_timestamp()",
    "SELECT *, guess(v) FROM large": "guess()",
}
GROUPED = {
    "SELECT DISTINCT id, c FROM large": "DISTINCT",
    "SELECT max(id) AS id, c FROM large GROUP BY c": "an aggregate",
    "SELECT count(*) AS c FROM large": "an aggregate",
    "SELECT *, row_number() OVER (ORDER BY v) FROM large": "a window function",
    "SELECT id, c FROM large UNION SELECT id, c FROM large": "an aggregate|DISTINCT or UNION",
    "SELECT id, c FROM large EXCEPT SELECT id, c FROM large WHERE v < 5": "EXCEPT",
    "SELECT *, (SELECT max(v) FROM large) AS most FROM large": "an aggregate",
    "SELECT * FROM latest": "an aggregate|DISTINCT",
}
ALLOWED = (
    "SELECT * FROM large",
    "SELECT id, c FROM large UNION ALL SELECT id, c FROM large",
    "SELECT l.* FROM large l JOIN typed t ON t.i4 = l.v ORDER BY l.v",
    "SELECT * FROM large WHERE v IN (SELECT i4 FROM typed)",
    "SELECT * FROM large l WHERE EXISTS (SELECT FROM typed t WHERE t.i4 = l.v)",
    "SELECT *, 'now() and random() or CURRENT_DATE' AS note FROM odd",
    "WITH few AS (SELECT * FROM large WHERE v < 5) SELECT * FROM few",
    "SELECT *, upper(id), round(v / 2.0, 1) FROM large",
)


@pytest.fixture(scope="module")
def queried(tables: Tables, large: str, typed: str) -> Tables:
    """The tables that the queries here read, where `c` is a cursor."""
    tables.execute(
        "ALTER TABLE large ADD COLUMN c int8 GENERATED ALWAYS AS (v) STORED",
        "CREATE VIEW latest AS SELECT DISTINCT ON (id) id, c FROM large ORDER BY id, c DESC",
        'CREATE TABLE odd (c int8, "odd random()" int8)',
        "CREATE FUNCTION guess(int8) RETURNS int8 LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'",
    )
    return tables


@pytest.mark.parametrize("query", REFUSED)
def test_a_query_that_no_range_makes_complete_is_refused(queried: Tables, query: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        query_of(queried, query).columns()
    assert any(word in refused.value.message for word in REFUSED[query].split("|"))


@pytest.mark.parametrize("query", GROUPED)
def test_a_query_over_more_than_its_range_says_where_the_range_goes(queried: Tables, query: str) -> None:
    with pytest.raises(Misconfigured, match="looks at rows of more than one range") as refused:
        query_of(queried, query).columns()
    assert any(word in refused.value.message for word in GROUPED[query].split("|"))
    explicit = f"SELECT * FROM ({query}) AS q WHERE c >= {{start}} AND c < {{end}}"
    assert "c" in query_of(queried, explicit, declared=CursorType.INTEGER).columns()


@pytest.mark.parametrize("query", ALLOWED)
def test_a_query_whose_rows_stem_from_one_range_is_taken(queried: Tables, query: str) -> None:
    assert "c" in query_of(queried, query).columns()


def test_a_view_is_looked_into(queried: Tables) -> None:
    with pytest.raises(Misconfigured, match=r"source\.table: .* looks at rows of more than one range"):
        source_of(queried, "latest").columns()


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT * FROM large;", "semicolon"),
        ("SELECT 1 AS c; SELECT 2", "syntax error"),
        ("DELETE FROM large RETURNING *", "syntax error"),
        ("SELECT * FROM large WHERE c >= {start}", "alone"),
        ("SELEC 1", "syntax error"),
        ("SELECT nope AS c FROM large", 'column "nope" does not exist'),
        ("SELECT 1 AS c FROM nope", 'relation "nope" does not exist'),
        ("SELECT 1 AS id", "no column 'c'"),
    ],
)
def test_a_query_that_cannot_be_read_is_told_in_the_servers_words(queried: Tables, query: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why):
        query_of(queried, query).columns()
    assert queried.execute("SELECT count(*) FROM large") == [30_000]


def test_a_row_outside_of_what_a_query_was_asked_for_fails_the_cut(queried: Tables, engine: Engine) -> None:
    query = "SELECT id, c, v FROM large WHERE c >= {start} - 1 AND c < {end}"
    with pytest.raises(Exception, match=r"outside of \{start\} and \{end\}"):
        read(query_of(queried, query, declared=CursorType.INTEGER), engine, Range(10, 20))


def test_a_query_may_not_write(queried: Tables, engine: Engine) -> None:
    queried.execute(
        "CREATE FUNCTION wipe() RETURNS void LANGUAGE plpgsql AS 'BEGIN DELETE FROM odd; END'",
        "CREATE FUNCTION hidden() RETURNS int8 STABLE LANGUAGE plpgsql AS 'BEGIN PERFORM wipe(); RETURN 1; END'",
    )
    with pytest.raises(Misconfigured, match="reading it would write something"):
        query_of(queried, "SELECT 'a' AS id, hidden() AS c, 0 AS v").survey(ALL)


# ----------------------------------------------------------------------------------------------------- errors


@pytest.fixture
def guarded(tables: Tables) -> Iterator[str]:
    """The URL of a user whom the server asks for a password, which is "right", and who may read nothing."""
    tables.server.execute(ADMIN, SQL("CREATE ROLE guarded LOGIN PASSWORD 'right'"))
    yield f"postgresql://guarded:{{}}@/{tables.database}?host={tables.server.folder}"
    tables.server.execute(ADMIN, SQL("DROP ROLE guarded"))


def refusal(url: str, table: str = "large") -> Misconfigured:
    with pytest.raises(Misconfigured) as refused:
        PostgresSource(url, Origin(table=table), column="c").columns()
    assert refused.value.__suppress_context__
    return refused.value


def test_a_wrong_password_is_told_and_not_shown(tables: Tables, guarded: str) -> None:
    error = refusal(guarded.format("hunter2"))
    assert "refuses the user or the password" in error.message
    assert "hunter2" not in str(error)
    assert "guarded" not in str(error)
    assert tables.database in error.message


def test_what_the_user_may_not_read_is_named(tables: Tables, large: str, guarded: str) -> None:
    assert "permission denied for table large" in refusal(guarded.format("right")).message


def test_a_database_that_is_not_there_is_told(tables: Tables) -> None:
    assert "no such user or database" in refusal(tables.server.url("nowhere")).message


def test_a_table_that_is_not_there_is_named(tables: Tables) -> None:
    assert 'relation "nowhere" does not exist' in refusal(tables.url, "nowhere").message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunt@er2@host/database",
        "postgresql://me:hunt/er2@host/database",
        "postgresql://me:hunt#er2@host/database",
        "postgresql://me:hunt?er2@host/database",
        "host=there password=hunter2",
        "mysql://me:hunter2@host/database",
    ],
)
def test_a_url_that_cannot_be_read_is_told_and_not_shown(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"source\.postgres") as refused:
        PostgresSource(url, Origin(table="large"), column="c")
    assert "hunt" not in str(refused.value)
    assert "er2" not in str(refused.value)


@pytest.mark.parametrize("port", [1, "1&connect_timeout=2"])
def test_a_server_that_does_not_answer_is_tried_again_later(port: int | str) -> None:
    source = PostgresSource(f"postgresql://me:hunter2@/x?host=127.0.0.1&port={port}", Origin(table="t"), column="c")
    with pytest.raises(Retryable, match=r"source 127\.0\.0\.1:1/x: nothing listens there") as refused:
        source.columns()
    assert "hunter2" not in str(refused.value)


def test_a_column_that_is_dropped_while_a_run_goes_on_is_named(tables: Tables, engine: Engine) -> None:
    name = tables.holding(rows_of(CASES[0]))
    source = source_of(tables, name)
    assert source.columns()["v"] == "BIGINT"
    tables.execute(f"ALTER TABLE {name} ALTER v TYPE int4")
    with pytest.raises(Retryable, match="the column 'v' was BIGINT and is INTEGER now"):
        read(source, engine, ALL)
    tables.execute(f"ALTER TABLE {name} DROP v")
    with pytest.raises(Misconfigured, match="the column 'v' is gone"):
        read(source, engine, ALL)


def others(tables: Tables) -> list[Any]:
    """What else is connected to the database."""
    return tables.execute(
        "SELECT application_name || ' ' || state FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )


def test_nothing_is_open_at_the_server_between_two_calls(tables: Tables, large: str, engine: Engine) -> None:
    source = source_of(tables, large, "c_int8")
    source.survey(ALL)
    with engine.connect() as connection, source.read(connection, ALL, ["id", "v"]) as relation:
        assert others(tables) == ["tidepost active"] or connection.execute(relation.sql)
    assert eventually(lambda: not others(tables))


def rows_read(source: Source, engine: Engine, meanwhile: Callable[[], object]) -> int:
    """Read a source's ids; after the first batch, do something."""
    with engine.connect() as connection, source.read(connection, ALL, ["id"]) as relation:
        reader = connection.execute(relation.sql).to_arrow_reader(1000)
        first = reader.read_next_batch().num_rows
        meanwhile()
        return int(first + reader.read_all().num_rows)


@pytest.fixture
def endless(tables: Tables) -> Source:
    """More rows than anybody reads ahead."""
    return query_of(tables, "SELECT c, c::text AS id FROM (SELECT generate_series(1, 200000000) AS c) s")


def test_reading_that_is_given_up_ends_at_the_server(tables: Tables, engine: Engine, endless: Source) -> None:
    def give_up() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        rows_read(endless, engine, give_up)
    assert eventually(lambda: not others(tables))


def test_a_connection_that_drops_while_rows_arrive_is_tried_again_later(
    tables: Tables, engine: Engine, endless: Source
) -> None:
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'tidepost'"
    )
    with pytest.raises(Retryable, match="the connection to it was lost") as lost:
        rows_read(endless, engine, lambda: tables.execute(end))
    assert "Nothing was lost" in str(lost.value)


def test_a_statement_that_is_cancelled_at_the_server_is_tried_again_later(
    tables: Tables, engine: Engine, endless: Source
) -> None:
    end = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidepost'"
    with pytest.raises(Retryable, match="cancelled at the server"):
        rows_read(endless, engine, lambda: tables.execute(end))


def test_a_limit_of_the_servers_on_time_is_kept_and_told(tables: Tables, engine: Engine) -> None:
    url = f"{tables.url}&options=-cstatement_timeout%3D50"
    tables.execute(
        "CREATE FUNCTION slow() RETURNS text STABLE LANGUAGE sql BEGIN ATOMIC SELECT pg_sleep(60)::text; END"
    )
    source = PostgresSource(url, Origin(query="SELECT 1::int8 AS c, slow() AS id"), column="c")
    with pytest.raises(Retryable, match="took longer than its statement_timeout"):
        rows_read(source, engine, lambda: None)


def test_a_value_that_cannot_be_computed_is_told_without_it(tables: Tables, engine: Engine) -> None:
    source = query_of(tables, "SELECT i AS c, ('secret' || i)::int4 AS id FROM generate_series(1, 3) i")
    with pytest.raises(Misconfigured, match="could not be computed") as refused:
        rows_read(source, engine, lambda: None)
    assert "secret" not in str(refused.value)


def test_the_servers_clock_is_asked(tables: Tables) -> None:
    told = source_of(tables, "large").clock()
    assert told is not None
    assert abs(told - time.time()) < 5
