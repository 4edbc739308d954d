"""A source that DuckDB reads itself: parquet, CSV and JSON files, and DuckDB databases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidepost.cursor import CursorKind, CursorType
from tidepost.engine import Engine, translated
from tidepost.errors import Misconfigured
from tidepost.paths import PathTemplate
from tidepost.ports import CURSOR, FILE, Layout, Relation, Survey
from tidepost.ranges import Range
from tidepost.sources.files import Files, Pattern, described
from tidepost.sources.listing import File, Store
from tidepost.sources.local import LocalFiles
from tidepost.sources.positions import CursorColumn, cursor_column
from tidepost.sources.wrap import END, START, check_query, has_placeholders
from tidepost.sql import quote_identifier, quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from tidepost.s3.connection import Connection

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

    files:    path templates (see `paths.py`) that begin at `/` or `s3://`
    format:   of the files: parquet, csv or json
    slack:    seconds by which rows may lie away from where a template says; None: its unit
    cache:    the folder for what is learnt of the files, kept if it is there; None: nothing is kept
    database: a DuckDB file that `query` or `table` reads, opened read-only
    s3:       who reads files in S3; None: whom boto3 finds
    """

    files: tuple[str, ...] = ()
    format: str = "parquet"
    query: str | None = None
    table: str | None = None
    database: Path | None = None
    slack: float | None = None
    cache: Path | None = None
    s3: Connection | None = None


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
        self._files = _files(origin, column, zone) if origin.files else None

    # ------------------------------------------------------------------------------------------ the port

    def columns(self) -> Mapping[str, str]:
        if self._known is None:
            with self._connection() as connection:
                if self._files is not None:
                    self._known = self._files.columns(connection)
                    return self._known
                if self._origin.query is not None:
                    check_query(connection, self._origin.query)
                self._known = described(connection, self._rows(bound=False))
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
            found, ends, nulls = self._looked_at(connection, cursor, window)
            if not isinstance(found, str):
                return _survey_of(found, cursor, nulls)
            rows = f"SELECT {cursor.position} AS p FROM ({found}) WHERE {where}"
            if ends is None:
                lowest, highest = _two(connection, f"SELECT min(p), max(p) FROM ({rows})", values)
                ends = None if lowest is None or highest is None else Range(lowest, highest + 1)
            ends = ends and ends.clamp(window)
            if ends is None:
                return Survey(None, (), nulls)
            width = cursor.width(ends.end - 1 - ends.start)
            counted = connection.execute(
                f"SELECT p - (p % {width} + {width}) % {width} AS b, count(*), max(p) FROM ({rows}) "
                f"GROUP BY b ORDER BY b",
                values,
            ).fetchall()
            highest = max((int(last) for _, _, last in counted), default=None)
            return Survey(highest, tuple((max(int(b), window.start), int(n)) for b, n, _ in counted), nulls)

    @contextmanager
    def read(self, connection: DuckDBPyConnection, window: Range, columns: Sequence[str]) -> Iterator[Relation]:
        self._attach(connection)
        cursor = self._cursor()
        where, values = cursor.within(window)
        layouts: Mapping[str, Layout] = {}
        if self._files is None:
            rows = self._rows()
        else:
            near = self._files.within(cursor, self._files.listed(connection, cursor, window), window)
            layouts = self._odd(connection, self._files, near)
            names = list(dict.fromkeys([*columns, self._name]))
            rows = self._files.typed(connection, near, self.columns(), names, named=bool(layouts))
        chosen = [quote_identifier(name) for name in columns]
        position = f"{cursor.carried} AS {quote_identifier(CURSOR)}"
        file = [quote_identifier(FILE)] if layouts else []
        if self._origin.query is not None and has_placeholders(self._origin.query):
            where = f"CASE WHEN {where} THEN true ELSE error({quote_literal(OUTSIDE)}) END"
        yield Relation(f"SELECT {', '.join([*chosen, position, *file])} FROM ({rows}) WHERE {where}", values, layouts)

    def layouts(self, window: Range) -> Mapping[str, Layout]:
        if self._files is None or self._origin.format == "json":
            return {}
        with self._connection() as connection:
            cursor = self._cursor()
            near = self._files.within(cursor, self._files.listed(connection, cursor, window), window)
            return self._odd(connection, self._files, near)

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

    def _looked_at(
        self, connection: DuckDBPyConnection, cursor: CursorColumn, window: Range
    ) -> tuple[str | list[tuple[Range, int]], Range | None, int]:
        """The cursor of what can hold rows of a window, as a SELECT, or what footers say of it (`Files.counted`); a
        range that holds all of it, if that is known before it is read; and how many rows without a cursor were
        seen."""
        if self._files is None:
            return self._rows(), None, self._null_cursors(connection)
        listed = self._files.listed(connection, cursor, window)
        near = self._files.within(cursor, listed, window)
        nulls = self._files.nulls(connection, cursor, listed)
        counted = self._files.counted(cursor, near, window)
        if counted is not None:
            return counted, None, nulls
        rows = self._files.typed(connection, near, self.columns(), [self._name])
        return rows, self._files.ends(cursor, near), nulls

    def _odd(self, connection: DuckDBPyConnection, files: Files, near: Sequence[File]) -> dict[str, Layout]:
        """The files whose own columns are not those of all files together. One that lacks the cursor has no row in
        any range."""
        types = {name.lower(): of for name, of in self.columns().items()}
        return {
            path: layout
            for path, layout in files.layouts(connection, near).items()
            if self._name.lower() in layout and any(layout.get(name) not in ("", of) for name, of in types.items())
        }

    def _rows(self, *, bound: bool = True) -> str:
        """A query or a table as a SELECT; a query with placeholders is given the range's ends (NULL while
        describing)."""
        if self._origin.query is not None:
            text = f"{self._origin.query}\n"  # its last line may end in a comment
            if not has_placeholders(text):
                return text
            of = self._cursor().bound if self._known else BOUND_TYPES[self._declared or CursorType.TIMESTAMP]
            start, end = (f"CAST({f'${name}' if bound else 'NULL'} AS {of})" for name in ("_lo", "_hi"))
            return text.replace(START, start).replace(END, end)
        return "SELECT * FROM " + ".".join(quote_identifier(name) for name in (self._origin.table or "").split("."))

    def _null_cursors(self, connection: DuckDBPyConnection) -> int:
        if self._origin.query is not None and has_placeholders(self._origin.query):
            return 0
        where = f"{quote_identifier(self._name)} IS NULL"
        return _two(connection, f"SELECT count(*), 0 FROM ({self._rows()}) WHERE {where}", {})[0] or 0


def _files(origin: Origin, column: str, zone: str | None) -> Files:
    """Raises Misconfigured for a path that cannot be read."""
    patterns, stores = [], dict[str, Store]()
    for text in origin.files:
        try:
            template = PathTemplate(text)
        except ValueError as error:
            raise Misconfigured(f"source.files: {text} {error}") from None
        if template.root not in stores:
            stores[template.root] = store_of(template.root, origin.s3)
        patterns.append(Pattern(template, stores[template.root]))
    return Files(patterns, origin.format, column=column, zone=zone, slack=origin.slack, cache=origin.cache)


def store_of(root: str, s3: Connection | None = None) -> Store:
    """What a template's root is in."""
    if not root.startswith("s3://"):
        return LocalFiles()
    from tidepost.sources.objects import S3Files  # noqa: PLC0415 - boto3 is heavy, and only needed here

    return S3Files(root.removeprefix("s3://").rstrip("/"), s3)


def _survey_of(counted: Sequence[tuple[Range, int]], cursor: CursorColumn, nulls: int) -> Survey:
    """A survey by the positions of whole files, which are apart and in order."""
    if not counted:
        return Survey(None, (), nulls)
    first, end = counted[0][0].start, counted[-1][0].end
    width = cursor.width(end - 1 - first)
    buckets: dict[int, tuple[int, int]] = {}
    for positions, rows in counted:
        start, before = buckets.get(positions.start // width, (positions.start, 0))
        buckets[positions.start // width] = start, before + rows
    return Survey(end - 1, tuple(buckets.values()), nulls)


def _two(connection: DuckDBPyConnection, sql: str, values: Mapping[str, object]) -> tuple[int | None, int | None]:
    found = connection.execute(sql, dict(values)).fetchall()[0]
    return found[0], found[1]
