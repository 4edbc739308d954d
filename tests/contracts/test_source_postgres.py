"""PostgreSQL as a source: the contract on a real server, and what is its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.sql import SQL
from tests.contracts.source_contract import (
    Holding,
    NaiveTimesContract,
    SourceContract,
    arrow,
)
from tests.postgres import Server

from tidepost.cursor import CursorType
from tidepost.ports import Source
from tidepost.ranges import Range
from tidepost.sources.postgres import Origin, PostgresSource

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

    def execute(self, *statements: str) -> list[object]:
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
    from tests.contracts.source_contract import execute  # noqa: PLC0415

    known = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
    return {name: known.get(of, of) for name, of, *_ in execute(f"DESCRIBE {rows}")}


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
