"""A table, view or query of PostgreSQL as a source: the server finds the rows by its index, and they come as Arrow.

Each call is one read-only transaction on a connection of its own, which is over when the call is: nothing is open at
the server while rows are uploaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tidepost.cursor import CursorKind, CursorType
from tidepost.errors import Misconfigured, Retryable
from tidepost.ports import CURSOR, Relation, Survey
from tidepost.ranges import Range
from tidepost.sources.postgres.columns import Column, columns_of
from tidepost.sources.postgres.cursor import ServerCursor, server_cursor
from tidepost.sources.postgres.plan import check_rows
from tidepost.sources.postgres.session import Server, Session
from tidepost.sources.wrap import END, START, has_placeholders
from tidepost.sql import quote_identifier, quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ARRIVING: Final = "tidepost_source"
"""The name of the arriving rows in the caller's DuckDB connection."""
OUTSIDE: Final = "source.query gave a row whose cursor is outside of {start} and {end}; such a row would be lost"
UNKNOWN_ENDS: Final = {CursorType.DATE: "date", CursorType.INTEGER: "int8", CursorType.UUID: "uuid"}
"""What {start} and {end} are while the query's columns are not known: NULL, of the type that the job declares."""
INDEXED: Final = """
SELECT c.relkind::text, EXISTS (
  SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
  WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = a.attnum
    AND m.amname IN ('btree', 'brin'))
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
"""
TABLE, MATERIALIZED, PARTITIONED = "r", "m", "p"


@dataclass(frozen=True, slots=True)
class Origin:
    """What is read: exactly one of a table (or view, `schema.table`) and a query in PostgreSQL's SQL."""

    table: str | None = None
    query: str | None = None

    @property
    def key(self) -> str:
        return "source.query" if self.query is not None else "source.table"


class PostgresSource:
    """Satisfies `ports.Source`. Its columns are looked at once; a run has one of its own.

    url:      of the database, with its password
    column:   the cursor
    declared: the cursor's type as the job declares it, or None for whatever the column is
    zone:     IANA name, for a cursor column without zone
    """

    def __init__(
        self, url: str, origin: Origin, *, column: str, declared: CursorType | None = None, zone: str | None = None
    ) -> None:
        self._server = Server(url)
        self._origin = origin
        self._explicit = origin.query is not None and has_placeholders(origin.query)
        self._name = column
        self._declared = declared
        self._zone = zone
        self._known: dict[str, Column] | None = None
        self._found: ServerCursor | None = None
        if origin.query is not None and origin.query.rstrip().endswith(";"):
            raise Misconfigured(
                "source.query: it ends in a semicolon", hint="Give one SELECT statement, without a semicolon."
            )

    # ------------------------------------------------------------------------------------------ the port

    def columns(self) -> Mapping[str, str]:
        return {name: column.type for name, column in self._columns().items()}

    def cursor(self) -> CursorKind:
        return self._cursor().kind

    def clock(self) -> float | None:
        with self._server.session() as session:
            # As text, for the time of a server may be far from any that Arrow's fits Python.
            return float(session.rows("SELECT extract(epoch FROM clock_timestamp())::text")[0][0])

    def warnings(self) -> Sequence[str]:
        if self._origin.table is None:
            return ()
        name = _table(self._origin.table)
        where = f"WHERE c.oid = {quote_literal(name)}::regclass AND a.attname = {quote_literal(self._name)}"
        with self._server.session() as session:
            found = session.rows(f"{INDEXED} {where}")
        if not found or found[0][1] or found[0][0] not in (TABLE, MATERIALIZED, PARTITIONED):
            return ()
        concurrently = "" if found[0][0] == PARTITIONED else " CONCURRENTLY"
        return (
            f"{self._origin.table} has no index that begins with {self._name}, so each cut reads the whole table. "
            f"To make one:  CREATE INDEX{concurrently} ON {name} ({quote_identifier(self._name)})",
        )

    def survey(self, window: Range) -> Survey:
        cursor = self._cursor()
        rows = f"SELECT * FROM ({self._rows(window)}) AS source WHERE {cursor.within(window)}"
        with self._server.session() as session:
            nulls = self._null_cursors(session)
            ends = session.rows(
                f"SELECT (SELECT {cursor.text} AS found FROM ({rows}) AS source ORDER BY {cursor.order} LIMIT 1), "
                f"(SELECT {cursor.text} AS found FROM ({rows}) AS source ORDER BY {cursor.order} DESC LIMIT 1)"
            )[0]
            if ends[0] is None:
                return Survey(None, (), nulls)
            lowest, highest = cursor.parse(ends[0]), cursor.parse(ends[1])
            width = cursor.column.width(highest - lowest)
            starts = [max(lowest // width * width, window.start)]
            starts += range((starts[0] // width + 1) * width, highest + 1, width)
            counted = session.rows(
                f"SELECT width_bucket({cursor.order}::{cursor.type}, {cursor.literals(starts)}), count(*) "
                f"FROM ({rows}) AS source GROUP BY 1 ORDER BY 1"
            )
        return Survey(highest, tuple((starts[int(b) - 1], int(n)) for b, n in counted), nulls)

    @contextmanager
    def read(self, connection: DuckDBPyConnection, window: Range, columns: Sequence[str]) -> Iterator[Relation]:
        cursor = self._cursor()
        chosen = [self._columns()[name] for name in columns]
        within = cursor.within(window)
        inside = f"coalesce({within}, false)" if self._explicit else None
        selected = [one for number, column in enumerate(chosen) for one in column.select(f"c{number}")]
        selected.append(f"{cursor.select(inside)} AS p")
        rows = self._rows(window)
        if inside is None:
            sql = f"SELECT {', '.join(selected)} FROM ({rows}) AS source WHERE {within}"
        else:
            sql = f"SELECT {', '.join(selected)}, {inside} AS inside FROM ({rows}) AS source"
        values = [f"{column.value(f'c{n}')} AS {quote_identifier(column.name)}" for n, column in enumerate(chosen)]
        values.append(f"{cursor.position('p')} AS {quote_identifier(CURSOR)}")
        relation = f"SELECT {', '.join(values)} FROM {ARRIVING}"
        if inside is not None:
            relation += f" WHERE CASE WHEN inside THEN true ELSE error({quote_literal(OUTSIDE)}) END"
        with self._server.session() as session:
            self._still(session, rows, [*chosen, self._columns()[self._name]])
            with session.stream(sql) as stream:
                connection.register(ARRIVING, stream.reader)
                try:
                    yield Relation(relation, {})
                finally:
                    stream.close()
                    connection.unregister(ARRIVING)

    # ------------------------------------------------------------------------------------------- its SQL

    def _columns(self) -> dict[str, Column]:
        if self._known is None:
            with self._server.session() as session:
                known = columns_of(session, self._rows(None))
                self._found = self._cursor_of(known)
                check_rows(session, self._rows(Range(0, 1)), key=self._origin.key, explicit=self._explicit)
            self._known = known
        return self._known

    def _cursor(self) -> ServerCursor:
        self._columns()
        assert self._found is not None  # noqa: S101 - for mypy
        return self._found

    def _cursor_of(self, columns: Mapping[str, Column]) -> ServerCursor:
        if self._name not in columns:
            raise Misconfigured(
                f"cursor.column: the source has no column {self._name!r}", hint=f"It has: {', '.join(columns)}"
            )
        cursor = server_cursor(columns[self._name], declared=self._declared, zone=self._zone)
        if cursor.naive and self._explicit:
            raise Misconfigured(
                f"cursor.column: {self._name!r} has no time zone, so {{start}} and {{end}} have no exact value",
                hint=f"Select {self._name} AT TIME ZONE '{cursor.kind.zone}' AS {self._name} and compare that.",
            )
        return cursor

    def _rows(self, window: Range | None) -> str:
        """The source as a SELECT; a query with placeholders is given the ends of a range (NULL without one)."""
        if self._origin.table is not None:
            return f"SELECT * FROM {_table(self._origin.table)}"
        query = f"{self._origin.query}\n"  # its last line may end in a comment
        if not self._explicit:
            return query
        if window is None or self._found is None:
            of = UNKNOWN_ENDS.get(self._declared or CursorType.TIMESTAMP, "timestamptz")
            ends = [f"NULL::{of}"] * 2
        else:
            ends = [self._found.literal(self._found.nearest(end)) for end in (window.start, window.end)]
        return query.replace(START, ends[0]).replace(END, ends[1])

    def _null_cursors(self, session: Session) -> int:
        if self._explicit:
            return 0
        where = f"{quote_identifier(self._name)} IS NULL"
        return int(session.rows(f"SELECT count(*) FROM ({self._rows(None)}) AS source WHERE {where}")[0][0])

    def _still(self, session: Session, rows: str, columns: Sequence[Column]) -> None:
        """Whether the columns are what they were when the run began. Raises Misconfigured or Retryable."""
        now = columns_of(session, rows)
        safe = "Nothing was lost: the mark stays where it is."
        for column in columns:
            if column.name not in now:
                raise Misconfigured(
                    f"source {self._server.name}: the column {column.name!r} is gone since the run began",
                    safe=safe,
                    hint=f"It has: {', '.join(now)}",
                )
            if now[column.name] != column:
                of = now[column.name].type
                raise Retryable(
                    f"source {self._server.name}: the column {column.name!r} was {column.type} and is {of} now",
                    safe=safe,
                    hint="Run again.",
                )


def _table(name: str) -> str:
    return ".".join(quote_identifier(part) for part in name.split("."))
