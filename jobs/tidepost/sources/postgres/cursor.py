"""A source's cursor column in PostgreSQL's SQL: ranges of it that its index serves, and each row's position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tidepost.cursor import HIGHEST_INTEGER, UUIDS, CursorKind, CursorType
from tidepost.errors import Misconfigured
from tidepost.ranges import Range
from tidepost.sources.positions import CursorColumn, cursor_column
from tidepost.sources.postgres.columns import Column
from tidepost.sql import quote_identifier, quote_literal

ENDS: Final = {"int2": 2**63 - 1, "int4": 2**63 - 1, "int8": 2**63 - 1, "numeric": HIGHEST_INTEGER, "uuid": UUIDS - 1}
"""The greatest value that can be compared with a growing id of a type without giving up its index."""
COMPARED: Final = {"int2": "int8", "int4": "int8"}
FRACTION: Final = "the cursor holds a number with a fraction; a cursor of type numeric holds whole numbers"


@dataclass(frozen=True, slots=True)
class ServerCursor:
    """A column as a cursor. Build it with `server_cursor`."""

    server: str
    column: CursorColumn

    @property
    def kind(self) -> CursorKind:
        return self.column.kind

    @property
    def name(self) -> str:
        """SQL of the column, of what the statement calls `source`: it may be named as what the statement selects."""
        return f"source.{quote_identifier(self.column.name)}"

    @property
    def naive(self) -> bool:
        """Whether its order is not that of its positions, for where clocks are set back."""
        return self.server == "timestamp"

    @property
    def order(self) -> str:
        """SQL of a value that is ordered as positions are: the column itself, or its instant."""
        zone = quote_literal(self.kind.zone or "UTC")
        return f"({self.name} AT TIME ZONE {zone})" if self.naive else self.name

    @property
    def type(self) -> str:
        """PostgreSQL's type of `order`, and of what it is compared with."""
        return "timestamptz" if self.naive else COMPARED.get(self.server, self.server)

    @property
    def text(self) -> str:
        """SQL of `order` as text that `kind.parse` reads."""
        return f"trim_scale({self.order})::text" if self.server == "numeric" else f"{self.order}::text"

    def literal(self, position: int) -> str:
        """A position as a constant of `type`. Between two values of the column, the next one."""
        if not self.kind.timed and self.server != "uuid":
            return f"{quote_literal(str(position))}::{self.type}"
        return f"{quote_literal(self._text(position))}::{self.type}"

    def literals(self, positions: list[int]) -> str:
        """Positions as one array."""
        listed = ", ".join(self.literal(position) for position in positions)
        return f"ARRAY[{listed}]"

    def within(self, window: Range) -> str:
        """`start <= cursor < end`, on the bare column with constants of its own type, so that its index is used.

        Times without zone are narrowed to a day around the range first, then compared as instants.
        """
        if not self.kind.timed:
            return self._ids_within(window)
        start, end = self.literal(window.start), self.literal(window.end)
        exact = f"{self.order} >= {start} AND {self.order} < {end}"
        if not self.naive:
            return exact
        near = [quote_literal(self._text(one).removesuffix("Z")) for one in (window.start, window.end)]
        day = "interval '1 day'"
        low, high = f"{near[0]}::timestamp - {day}", f"{near[1]}::timestamp + {day}"
        return f"{self.name} >= {low} AND {self.name} < {high} AND {exact}"

    def nearest(self, position: int) -> int:
        """A position that has a constant."""
        if self.kind.timed:
            return position
        most = ENDS[self.server]
        return min(max(position, self._least), most)

    @property
    def _least(self) -> int:
        return 0 if self.server == "uuid" else -ENDS[self.server] - 1

    def _ids_within(self, window: Range) -> str:
        """Up to the last value of the range, for what comes after the greatest one of a type cannot be written."""
        inside = window.clamp(Range(self._least, ENDS[self.server] + 1))
        if inside is None:
            return "false"
        return f"{self.order} >= {self.literal(inside.start)} AND {self.order} <= {self.literal(inside.end - 1)}"

    def select(self, inside: str | None = None) -> str:
        """What the server selects for the position; NULL where the row is not inside."""
        value = self.text if self.server in ("numeric", "uuid") else self.order
        return value if inside is None else f"CASE WHEN {inside} THEN {value} END"

    def position(self, name: str) -> str:
        """DuckDB's SQL of the position, from what `select` selects."""
        if self.kind.type is CursorType.TIMESTAMP:
            return f"(epoch_us({name}) * 1000)"
        if self.kind.type is CursorType.DATE:
            return f"CAST({name} - DATE '1970-01-01' AS BIGINT)"
        if self.server == "numeric":
            whole = f"CAST({name} AS HUGEINT)"
            return f"CASE WHEN contains({name}, '.') THEN error({quote_literal(FRACTION)}) ELSE {whole} END"
        return name if self.server == "uuid" else f"CAST({name} AS BIGINT)"

    def parse(self, text: str) -> int:
        """The position of a text that `text` selected."""
        if self.server == "numeric" and not text.lstrip("-").isdecimal():
            raise Misconfigured(f"cursor.column: {FRACTION}")
        return self.kind.parse(text)

    def _text(self, position: int) -> str:
        return self.kind.format(-(-position // self.kind.tick) * self.kind.tick)


def server_cursor(column: Column, *, declared: CursorType | None, zone: str | None) -> ServerCursor:
    """Raises Misconfigured where the column cannot be a cursor, is not what was declared, or lacks a zone."""
    whole = column.server == "numeric" and (column.type == "VARCHAR" or column.type.endswith(",0)"))
    of = "HUGEINT" if whole else column.type
    return ServerCursor(column.server, cursor_column(column.name, of, declared=declared, zone=zone))
