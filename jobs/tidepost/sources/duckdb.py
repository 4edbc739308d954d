"""A source that DuckDB reads itself: parquet, CSV and JSON files, and DuckDB databases, on local disk."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidepost.cursor import CursorKind, CursorType
from tidepost.engine import Engine, translated
from tidepost.errors import Misconfigured
from tidepost.ports import CURSOR, Relation, Survey
from tidepost.ranges import Range
from tidepost.sources.footers import Footers
from tidepost.sources.positions import CursorColumn, cursor_column
from tidepost.sources.wrap import END, START, check_query, has_placeholders
from tidepost.sql import quote_identifier, quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

READERS = {"parquet": "read_parquet", "csv": "read_csv", "json": "read_json"}
BOUND_TYPES = {
    CursorType.DATE: "DATE",
    CursorType.INTEGER: "BIGINT",
    CursorType.TIMESTAMP: "TIMESTAMPTZ",
    CursorType.UUID: "UUID",
}
OUTSIDE = "source.query gave a row whose cursor is outside of {start} and {end}; such a row would be lost"


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
    """Satisfies `ports.Source`. Its columns are looked at once; a run has one of its own.

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
        self._name = column
        self._declared = declared
        self._zone = zone
        self._known: dict[str, str] | None = None
        self._footers: Footers | None = None

    # ------------------------------------------------------------------------------------------ the port

    def columns(self) -> Mapping[str, str]:
        if self._known is None:
            with self._connection() as connection:
                if self._origin.query is not None:
                    check_query(connection, self._origin.query)
                self._known = _described(connection, self._rows(self._files(), bound=False))
        return self._known

    def cursor(self) -> CursorKind:
        return self._cursor().kind

    def clock(self) -> float | None:
        return None

    def warnings(self) -> Sequence[str]:
        return ()

    def survey(self, window: Range) -> Survey:
        cursor = self._cursor()
        where, values = cursor.within(window)
        with self._connection() as connection:
            nulls = self._null_cursors(connection)
            files = self._near(connection, window)
            rows = f"SELECT {cursor.position} AS p FROM ({self._rows(files)}) WHERE {where}"
            lowest, highest = _two(connection, f"SELECT min(p), max(p) FROM ({rows})", values)
            if lowest is None or highest is None:
                return Survey(None, (), nulls)
            width = cursor.width(highest - lowest)
            counted = connection.execute(
                f"SELECT b, count(*) FROM (SELECT p - (p % {width} + {width}) % {width} AS b FROM ({rows})) "
                f"GROUP BY b ORDER BY b",
                values,
            ).fetchall()
            return Survey(highest, tuple((max(int(b), window.start), int(n)) for b, n in counted), nulls)

    @contextmanager
    def read(self, connection: DuckDBPyConnection, window: Range, columns: Sequence[str]) -> Iterator[Relation]:
        self._attach(connection)
        cursor = self._cursor()
        where, values = cursor.within(window)
        rows = self._rows(self._near(connection, window))
        types = self.columns()
        pruned = bool(self._origin.files) and self._origin.format == "parquet"
        # Files may spell a column in several ways, which are one to DuckDB.
        have = {name.lower(): of for name, of in (_described(connection, rows) if pruned else types).items()}
        chosen = [_as_known(name, types[name], have.get(name.lower())) for name in columns]
        position = f"{cursor.carried} AS {quote_identifier(CURSOR)}"
        if self._origin.query is not None and has_placeholders(self._origin.query):
            where = f"CASE WHEN {where} THEN true ELSE error({quote_literal(OUTSIDE)}) END"
        yield Relation(f"SELECT {', '.join([*chosen, position])} FROM ({rows}) WHERE {where}", values)

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
        path = quote_literal(str(self._origin.database))
        connection.execute(f"ATTACH IF NOT EXISTS {path} AS source (READ_ONLY)")
        connection.execute("USE source")

    def _cursor(self) -> CursorColumn:
        columns = self.columns()
        if self._name not in columns:
            raise Misconfigured(
                f"cursor.column: the source has no column {self._name!r}", hint=f"It has: {', '.join(columns)}"
            )
        column = cursor_column(self._name, columns[self._name], declared=self._declared, zone=self._zone)
        query = self._origin.query
        if column.kind.zone is not None and query is not None and has_placeholders(query):
            raise Misconfigured(
                f"cursor.column: {self._name!r} has no time zone, so {{start}} and {{end}} have no exact value",
                hint=f"Select {self._name} AT TIME ZONE '{column.kind.zone}' AS {self._name} and compare that.",
            )
        return column

    def _files(self) -> list[str]:
        """The files that match now, sorted; empty for a query or a table."""
        if not self._origin.files:
            return []
        found = {name for pattern in self._origin.files for name in glob.glob(pattern, recursive=True)}  # noqa: PTH207
        if not found:
            raise Misconfigured(
                f"source.files: nothing matches {', '.join(self._origin.files)}",
                hint="Relative patterns start at the project's root.",
            )
        return sorted(found)

    def _near(self, connection: DuckDBPyConnection, window: Range) -> list[str]:
        """The files that can hold rows of a window: at least one, so that there is something to select from."""
        files = self._files()
        cursor = self._cursor()
        if not files or self._origin.format != "parquet" or cursor.kind.type is CursorType.UUID:
            return files
        if self._footers is None:
            self._footers = Footers(cursor.name, cursor.type, cursor.position_of)
        return self._footers.within(connection, files, cursor.near(window))

    def _rows(self, files: Sequence[str], *, bound: bool = True) -> str:
        """The source as a SELECT; a query with placeholders is given the range's ends (NULL while describing)."""
        origin = self._origin
        if origin.query is not None:
            text = f"{origin.query}\n"  # its last line may end in a comment
            if not has_placeholders(text):
                return text
            of = self._cursor().bound if self._known else BOUND_TYPES[self._declared or CursorType.TIMESTAMP]
            start, end = (f"CAST({f'${name}' if bound else 'NULL'} AS {of})" for name in ("_lo", "_hi"))
            return text.replace(START, start).replace(END, end)
        if origin.table is not None:
            return "SELECT * FROM " + ".".join(quote_identifier(name) for name in origin.table.split("."))
        listed = ", ".join(quote_literal(file) for file in files)
        options = f"union_by_name = true{self._folders(files)}"
        return f"SELECT * FROM {READERS[origin.format]}([{listed}], {options})"

    def _folders(self, files: Sequence[str]) -> str:
        """The types of columns that come from folders such as `month=01`, as all files together give them: of some
        files alone, '01' might become 1, and an id made of it another."""
        known = self._known or {}
        names = {part.partition("=")[0] for file in files for part in Path(file).parent.parts if "=" in part}
        types = ", ".join(f"{quote_literal(name)}: {known[name]}" for name in sorted(names & known.keys()))
        return f", hive_types = {{{types}}}" if types else ""

    def _null_cursors(self, connection: DuckDBPyConnection) -> int:
        if self._origin.query is not None and has_placeholders(self._origin.query):
            return 0
        where = f"{quote_identifier(self._name)} IS NULL"
        return _two(connection, f"SELECT count(*), 0 FROM ({self._rows(self._files())}) WHERE {where}", {})[0] or 0


def _described(connection: DuckDBPyConnection, rows: str) -> dict[str, str]:
    return {str(row[0]): str(row[1]) for row in connection.execute(f"DESCRIBE SELECT * FROM ({rows})").fetchall()}


def _as_known(name: str, known: str, have: str | None) -> str:
    """A column with the type that all files together give it, though the files that are read may lack it."""
    column = quote_identifier(name)
    if have == known:
        return column
    return f"CAST({'NULL' if have is None else column} AS {known}) AS {column}"


def _two(connection: DuckDBPyConnection, sql: str, values: Mapping[str, object]) -> tuple[int | None, int | None]:
    found = connection.execute(sql, dict(values)).fetchall()[0]
    return found[0], found[1]
