"""A source's cursor column in DuckDB's SQL: its positions, and ranges of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tidepost.cursor import (
    DAY,
    HIGHEST_INTEGER,
    HOUR,
    MICROSECOND,
    MILLISECOND,
    NANOSECOND,
    SECOND,
    UUIDS,
    CursorKind,
    CursorType,
)
from tidepost.errors import Misconfigured
from tidepost.ranges import Range
from tidepost.sql import quote_identifier, quote_literal

ZONED: Final = "TIMESTAMP WITH TIME ZONE"
TICKS: Final = {
    ZONED: MICROSECOND,
    "TIMESTAMP": MICROSECOND,
    "TIMESTAMP_NS": NANOSECOND,
    "TIMESTAMP_MS": MILLISECOND,
    "TIMESTAMP_S": SECOND,
}
INTEGERS: Final = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
)
BUCKETS: Final = 1000
WIDTHS: Final = (*(n * SECOND for n in (1, 10, 60, 300, 900)), HOUR, 6 * HOUR, *(n * DAY for n in (1, 7, 28, 364)))
"""Widths of a time survey's buckets: each divides a day or is made of whole days, so that cuts meet partitions."""


@dataclass(frozen=True, slots=True)
class CursorColumn:
    """A column with its DuckDB type, as a cursor. Build it with `cursor_column`."""

    name: str
    type: str
    kind: CursorKind

    @property
    def bound(self) -> str:
        """The type of a bound: the column's, or an integer wide enough for bounds beyond what the column can hold."""
        if self.kind.type is not CursorType.INTEGER:
            return self.type
        return "HUGEINT" if self.type in ("UBIGINT", "HUGEINT") else "BIGINT"

    @property
    def position(self) -> str:
        """SQL of each row's position."""
        return self.position_of(quote_identifier(self.name))

    @property
    def carried(self) -> str:
        """SQL of a relation's `CURSOR`: the position, or a UUID's text, for Arrow has no integer of 128 bits."""
        column = quote_identifier(self.name)
        return f"CAST({column} AS VARCHAR)" if self.kind.type is CursorType.UUID else self.position

    def position_of(self, value: str) -> str:
        """SQL of the position of a value of the column, given as SQL."""
        if self.kind.type is CursorType.INTEGER:
            return value
        if self.kind.type is CursorType.DATE:
            return f"CAST({value} - DATE '1970-01-01' AS BIGINT)"
        if self.kind.type is CursorType.UUID:
            digits = f"replace(CAST({value} AS VARCHAR), '-', '')"
            high, low = (f"CAST('0x' || {digits}[{part}] AS UBIGINT)" for part in ("1:16", "17:32"))
            return f"(CAST({high} AS UHUGEINT) * 18446744073709551616 + {low})"
        naive = f"CAST({value} AS TIMESTAMP)"
        zoned = f"({naive} AT TIME ZONE {quote_literal(self.kind.zone)})" if self.kind.zone else value
        if self.kind.tick == NANOSECOND:
            return f"(epoch_ns({value}) + epoch_ns({zoned}) - epoch_ns({naive}))"
        return f"(epoch_us({zoned}) * 1000)"

    def within(self, window: Range) -> tuple[str, dict[str, object]]:
        """`start <= cursor < end` and its bound values: exactly, in a form that reaches the files' statistics.

        A bound between two values of the column is moved up to the next one, which selects the same rows. Times
        without zone are narrowed to a day around the range first, then compared as instants, for where clocks are
        set back their own order is not that of time.
        """
        column = quote_identifier(self.name)
        if self._naive:
            near = (
                f"{column} >= CAST($_lo AS TIMESTAMP) - INTERVAL 1 DAY AND "
                f"{column} < CAST($_hi AS TIMESTAMP) + INTERVAL 1 DAY"
            )
            ends = {name: _utc(end).removesuffix("Z") for name, end in (("_lo", window.start), ("_hi", window.end))}
            exact = f"{self.position} >= $_from AND {self.position} < $_to"
            return f"{near} AND {exact}", {**ends, "_from": window.start, "_to": window.end}
        values = {"_lo": self._value(window.start), "_hi": self._value(window.end)}
        if self.kind.type is CursorType.UUID and window.end >= UUIDS:
            return f"{column} >= CAST($_lo AS UUID) AND {column} <= CAST($_hi AS UUID)", values
        return f"{column} >= CAST($_lo AS {self.bound}) AND {column} < CAST($_hi AS {self.bound})", values

    def near(self, window: Range) -> Range:
        """A window that meets the statistics of every file with rows in `window`: wider for times without a zone,
        which statistics give as if they were UTC, and whose order is not that of time."""
        return Range(window.start - DAY, window.end + DAY) if self._naive else window

    def width(self, span: int) -> int:
        """A bucket's width in positions, so that a span has at most about a thousand buckets."""
        if self.kind.type is CursorType.TIMESTAMP and span > SECOND:
            return next((width for width in WIDTHS if span // width <= BUCKETS), -(-span // BUCKETS))
        return max(1, -(-span // BUCKETS))

    @property
    def _naive(self) -> bool:
        return self.kind.type is CursorType.TIMESTAMP and self.kind.zone is not None

    def _value(self, position: int) -> object:
        if self.kind.type is CursorType.INTEGER:
            most = HIGHEST_INTEGER if self.bound == "HUGEINT" else 2**63 - 1
            return min(max(position, -most), most)
        return self.kind.format(-(-position // self.kind.tick) * self.kind.tick)


def cursor_column(name: str, duckdb_type: str, *, declared: CursorType | None, zone: str | None) -> CursorColumn:
    """Raises Misconfigured where the column cannot be a cursor, is not what was declared, or lacks a zone."""
    if duckdb_type in TICKS:
        if duckdb_type != ZONED and zone is None:
            raise Misconfigured(
                f"cursor.column: {name!r} is {duckdb_type}, without a time zone",
                hint="Say which zone its values are in: cursor.timezone, such as UTC or America/New_York.",
            )
        kind = CursorKind(CursorType.TIMESTAMP, TICKS[duckdb_type], None if duckdb_type == ZONED else zone)
    elif duckdb_type == "DATE":
        kind = CursorKind(CursorType.DATE, 1, zone)
    elif duckdb_type in INTEGERS:
        kind = CursorKind(CursorType.INTEGER)
    elif duckdb_type == "UUID":
        kind = CursorKind(CursorType.UUID)
    else:
        raise Misconfigured(
            f"cursor.column: {name!r} is {duckdb_type}, which cannot be a cursor",
            hint="A cursor is a timestamp, a date, an integer or a UUID; cast it in source.query.",
        )
    if declared is not None and declared is not kind.type:
        raise Misconfigured(
            f"cursor.type: {name!r} is {duckdb_type}, a {kind.type} cursor, not {declared}",
            hint=f"Declare type: {kind.type}, or cast the column in source.query.",
        )
    return CursorColumn(name, duckdb_type, kind)


def _utc(position: int) -> str:
    return CursorKind(CursorType.TIMESTAMP).format(position)
