"""A source that DuckDB reads itself: parquet, CSV and JSON files, and DuckDB databases, on local disk."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidepost.cursor import (
    DAY,
    HOUR,
    MICROSECOND,
    MILLISECOND,
    NANOSECOND,
    SECOND,
    CursorKind,
    CursorType,
)
from tidepost.engine import Engine, translated
from tidepost.errors import Misconfigured
from tidepost.ports import CURSOR, Relation, Survey
from tidepost.ranges import Range
from tidepost.sources.wrap import END, START, check_query, has_placeholders
from tidepost.sql import quote_identifier, quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

READERS = {"parquet": "read_parquet", "csv": "read_csv", "json": "read_json"}
TICKS = {
    "TIMESTAMP WITH TIME ZONE": MICROSECOND,
    "TIMESTAMP": MICROSECOND,
    "TIMESTAMP_NS": NANOSECOND,
    "TIMESTAMP_MS": MILLISECOND,
    "TIMESTAMP_S": SECOND,
}
INTEGERS = frozenset("TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT".split())
BUCKETS = 1000
WIDTHS = (*tuple(n * SECOND for n in (1, 10, 60, 300, 900)), HOUR, 6 * HOUR, DAY, 7 * DAY, 28 * DAY, 364 * DAY)
"""Widths of a time survey's buckets: each divides a day or is made of whole days, so that cuts meet partitions."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the rows come from: exactly one of files, query or table.

    files:    glob patterns with absolute paths
    format:   of the files: parquet, csv or json
    database: a DuckDB file that `query` or `table` reads, opened read-only
    """

    files: tuple[str, ...] = ()
    format: str = "parquet"
    query: str | None = None
    table: str | None = None
    database: Path | None = None


class DuckDBSource:
    """Satisfies `ports.Source`.

    column:   the cursor
    declared: the cursor's type as the job declares it, or None for whatever the column is
    zone:     IANA name, for a cursor column without zone
    """

    def __init__(
        self,
        origin: Origin,
        engine: Engine,
        *,
        column: str,
        declared: CursorType | None = None,
        zone: str | None = None,
    ) -> None:
        self._origin = origin
        self._engine = engine
        self._column = column
        self._declared = declared
        self._zone = zone
        self._known: dict[str, str] | None = None

    # ------------------------------------------------------------------------------------------ the port

    def columns(self) -> Mapping[str, str]:
        if self._known is None:
            with self._connection() as connection:
                if self._origin.query is not None:
                    check_query(connection, self._origin.query)
                sql = f"DESCRIBE SELECT * FROM ({self._rows(bound=False)})"
                self._known = {str(row[0]): str(row[1]) for row in connection.execute(sql).fetchall()}
        return self._known

    def cursor(self) -> CursorKind:
        columns = self.columns()
        if self._column not in columns:
            raise Misconfigured(
                f"cursor.column: the source has no column {self._column!r}",
                hint=f"It has: {', '.join(columns)}",
            )
        duckdb_type = columns[self._column]
        kind = self._kind(duckdb_type)
        if self._declared is not None and self._declared is not kind.type:
            raise Misconfigured(
                f"cursor.type: {self._column!r} is {duckdb_type}, a {kind.type} cursor, not {self._declared}",
                hint=f"Declare type: {kind.type}, or cast the column in source.query.",
            )
        query = self._origin.query
        if kind.zone is not None and query is not None and has_placeholders(query):
            raise Misconfigured(
                f"cursor.column: {self._column!r} has no time zone, so {{start}} and {{end}} have no exact value",
                hint=f"Select {self._column} AT TIME ZONE '{kind.zone}' AS {self._column} and compare that.",
            )
        return kind

    def clock(self) -> float | None:
        return None

    def survey(self, window: Range) -> Survey:
        with self._connection() as connection:
            where, values = self._within(window)
            position = self._position()
            rows = f"SELECT {position} AS p FROM ({self._rows()}) WHERE {where}"
            ends = _first(connection, f"SELECT min(p), max(p) FROM ({rows})", values)
            nulls = self._null_cursors(connection)
            if ends[0] is None or ends[1] is None:
                return Survey(None, (), nulls)
            width = self._width(ends[1] - ends[0])
            counted = connection.execute(
                f"SELECT b, count(*) FROM (SELECT p - p % {width} AS b FROM ({rows})) GROUP BY b ORDER BY b", values
            ).fetchall()
            return Survey(ends[1], tuple((max(int(b), window.start), int(n)) for b, n in counted), nulls)

    def read(self, connection: DuckDBPyConnection, window: Range, columns: Sequence[str]) -> Relation:
        self._attach(connection)
        where, values = self._within(window)
        chosen = ", ".join(
            [*(quote_identifier(name) for name in columns), f"{self._position()} AS {quote_identifier(CURSOR)}"]
        )
        return Relation(f"SELECT {chosen} FROM ({self._rows()}) WHERE {where}", values)

    # ------------------------------------------------------------------------------------------- its SQL

    @contextmanager
    def _connection(self) -> Iterator[DuckDBPyConnection]:
        import duckdb  # noqa: PLC0415 - heavy, and not needed to read a definition

        connection = self._engine.connect()
        try:
            self._attach(connection)
            yield connection
        except duckdb.Error as error:
            raise translated(error, "source") from error
        finally:
            connection.close()

    def _attach(self, connection: DuckDBPyConnection) -> None:
        if self._origin.database is None:
            return
        if not self._origin.database.is_file():
            raise Misconfigured(f"source.database: there is no file {self._origin.database}")
        connection.execute(f"ATTACH {quote_literal(str(self._origin.database))} AS source (READ_ONLY)")
        connection.execute("USE source")

    def _rows(self, *, bound: bool = True) -> str:
        """The source as a SELECT; a query with placeholders is given the range's ends (NULL while describing)."""
        origin = self._origin
        if origin.query is not None:
            if not has_placeholders(origin.query):
                return origin.query
            kind = "CAST({} AS {})"
            ends = [kind.format(f"${name}" if bound else "NULL", self._bound_type()) for name in ("_lo", "_hi")]
            return origin.query.replace(START, ends[0]).replace(END, ends[1])
        if origin.table is not None:
            return "SELECT * FROM " + ".".join(quote_identifier(name) for name in origin.table.split("."))
        files = sorted({file for pattern in origin.files for file in glob.glob(pattern, recursive=True)})  # noqa: PTH207 - the pattern is absolute
        if not files:
            raise Misconfigured(
                f"source.files: nothing matches {', '.join(origin.files)}",
                hint="Relative patterns start at the project's root.",
            )
        listed = ", ".join(quote_literal(file) for file in files)
        return f"SELECT * FROM {READERS[origin.format]}([{listed}], union_by_name = true)"

    def _bound_type(self) -> str:
        """The type of `{start}` and `{end}`, which stand in the query before its columns are known."""
        if self._known is not None and self._column in self._known:
            return self._known[self._column]
        plain = {
            CursorType.DATE: "DATE",
            CursorType.INTEGER: "BIGINT",
            CursorType.TIMESTAMP: "TIMESTAMPTZ",
            None: "TIMESTAMPTZ",
        }
        return plain[self._declared]

    def _kind(self, duckdb_type: str) -> CursorKind:
        if duckdb_type in TICKS:
            if duckdb_type != "TIMESTAMP WITH TIME ZONE" and self._zone is None:
                raise Misconfigured(
                    f"cursor.column: {self._column!r} is {duckdb_type}, without a time zone",
                    hint="Say which zone its values are in: cursor.timezone, such as UTC or America/New_York.",
                )
            zone = None if duckdb_type == "TIMESTAMP WITH TIME ZONE" else self._zone
            return CursorKind(CursorType.TIMESTAMP, TICKS[duckdb_type], zone)
        if duckdb_type == "DATE":
            return CursorKind(CursorType.DATE, 1, self._zone)
        if duckdb_type in INTEGERS:
            return CursorKind(CursorType.INTEGER)
        raise Misconfigured(
            f"cursor.column: {self._column!r} is {duckdb_type}, which cannot be a cursor",
            hint="A cursor is a timestamp, a date or an integer; cast it in source.query.",
        )

    def _position(self) -> str:
        """The cursor as its position."""
        kind, column = self.cursor(), quote_identifier(self._column)
        if kind.type is CursorType.INTEGER:
            return column
        if kind.type is CursorType.DATE:
            return f"CAST({column} - DATE '1970-01-01' AS BIGINT)"
        if kind.tick == NANOSECOND:
            shift = f" - epoch_ns({column}::TIMESTAMP) + epoch_ns({self._zoned(column)})" if kind.zone else ""
            return f"(epoch_ns({column}){shift})"
        return f"(epoch_us({self._zoned(column)}) * 1000)"

    def _zoned(self, column: str) -> str:
        zone = self.cursor().zone
        return column if zone is None else f"(CAST({column} AS TIMESTAMP) AT TIME ZONE {quote_literal(zone)})"

    def _within(self, window: Range) -> tuple[str, dict[str, object]]:
        """`start <= cursor < end`, exactly, in a form that reaches the files' own statistics.

        A bound between two values of the column is moved up to the next one, which selects the same rows. Times
        without zone are narrowed to a day around the range first, then compared as instants, for where clocks
        are set back their own order is not that of time.
        """
        kind, column = self.cursor(), quote_identifier(self._column)
        duckdb_type = self.columns()[self._column]
        if kind.zone is not None and kind.type is CursorType.TIMESTAMP:
            position = self._position()
            near = (
                f"{column} >= CAST($_lo AS TIMESTAMP) - INTERVAL 1 DAY AND "
                f"{column} < CAST($_hi AS TIMESTAMP) + INTERVAL 1 DAY"
            )
            values: dict[str, object] = {
                "_lo": self._naive(window.start),
                "_hi": self._naive(window.end),
                "_from": window.start,
                "_to": window.end,
            }
            return f"{near} AND {position} >= $_from AND {position} < $_to", values
        values = {"_lo": self._value(kind, window.start), "_hi": self._value(kind, window.end)}
        return f"{column} >= CAST($_lo AS {duckdb_type}) AND {column} < CAST($_hi AS {duckdb_type})", values

    def _value(self, kind: CursorKind, position: int) -> object:
        if kind.type is CursorType.INTEGER:
            return position
        return kind.format(-(-position // kind.tick) * kind.tick)

    def _naive(self, position: int) -> str:
        return CursorKind(CursorType.TIMESTAMP).format(position).removesuffix("Z")

    def _width(self, span: int) -> int:
        """A bucket's width in positions, so that there are at most about a thousand buckets."""
        kind = self.cursor()
        if kind.type is CursorType.TIMESTAMP:
            fitting = [width for width in WIDTHS if span // width <= BUCKETS]
            smallest = 1 if span < BUCKETS else span // BUCKETS
            return fitting[0] if span > SECOND and fitting else smallest
        return max(1, span // BUCKETS)

    def _null_cursors(self, connection: DuckDBPyConnection) -> int:
        if self._origin.query is not None and has_placeholders(self._origin.query):
            return 0
        column = quote_identifier(self._column)
        return int(_first(connection, f"SELECT count(*), 0 FROM ({self._rows()}) WHERE {column} IS NULL", {})[0] or 0)


def _first(connection: DuckDBPyConnection, sql: str, values: Mapping[str, object]) -> tuple[int | None, int | None]:
    found = connection.execute(sql, dict(values)).fetchall()[0]
    return found[0], found[1]
