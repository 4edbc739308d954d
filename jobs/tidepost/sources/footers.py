"""What the footers of parquet files say: which columns a file has, and which range of the cursor it can hold.

A file's footer is read once, and again when the file's version differs. A file without statistics, or one that
changed since, is never left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tidepost.ranges import Range
from tidepost.sources.cache import Footer, load, save
from tidepost.sources.listing import File
from tidepost.sources.positions import CursorColumn
from tidepost.sql import quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

AT_ONCE: Final = 8
"""Connections that read footers at the same time: on an object store nearly all of it is waiting."""
CHUNK: Final = 250
"""Files that one statement looks at."""

SCHEMAS: Final = """
    SELECT file_name, md5(string_agg(CAST(row(
        name, type, type_length, repetition_type, num_children, converted_type, scale, precision, logical_type,
        duckdb_type
    ) AS VARCHAR), '' ORDER BY n))
    FROM (SELECT *, row_number() OVER () AS n FROM parquet_schema([{files}])) GROUP BY file_name
"""
STATISTICS: Final = """
    SELECT file_name, min({lowest}), max({highest}),
        bool_or(mine) AND bool_and(NOT mine OR low IS NOT NULL AND high IS NOT NULL
            OR coalesce(stats_null_count, -1) = num_values),
        bool_or(mine),
        CAST(CASE WHEN NOT bool_or(mine) THEN sum(row_group_num_rows) FILTER (column_id = 0)
            WHEN bool_and(NOT mine OR stats_null_count IS NOT NULL) THEN sum(stats_null_count) FILTER (mine)
            END AS BIGINT)
    FROM (
        SELECT *, lower(path_in_schema) = lower($column) AS mine,
            CASE WHEN mine THEN stats_min_value END AS low, CASE WHEN mine THEN stats_max_value END AS high
        FROM parquet_metadata([{files}])
    ) GROUP BY file_name
"""


class Footers:
    """The footers of one source's files.

    column: the cursor, if it is a column of the files themselves
    cache:  the local file that they are kept in
    about:  what they are footers of, so that no other source's are taken for them
    """

    def __init__(self, column: str, cache: Path | None, about: str) -> None:
        self._column = column
        self._cache = cache
        self._about = about
        self._known = {} if cache is None else load(cache, about)

    def schemas(self, connection: DuckDBPyConnection, files: Sequence[File]) -> list[str]:
        """The hash of each file's columns."""
        self._learn_schemas(connection, files)
        return [self._known[file.path].schema for file in files]

    def all(self, connection: DuckDBPyConnection, cursor: CursorColumn, files: Sequence[File]) -> list[Footer]:
        """The footer of each file, with what it says of the cursor."""
        self._learn_schemas(connection, files)
        new = [file.path for file in files if self._known[file.path].type != cursor.type]
        if new:
            self._learn_statistics(connection, cursor, new)
            if self._cache is not None:
                save(self._cache, self._about, self._known, len(files))
        return [self._known[file.path] for file in files]

    def within(
        self, connection: DuckDBPyConnection, cursor: CursorColumn, files: Sequence[File], window: Range
    ) -> list[File]:
        """The files that can hold positions of a window, and at least one that has the column if any does."""
        pairs = list(zip(files, self.all(connection, cursor, files), strict=True))
        chosen = [(file, footer) for file, footer in pairs if footer.meets(window)]
        if not any(footer.named for _, footer in chosen):
            named = [pair for pair in pairs if pair[1].named]
            chosen = [*chosen, *named[:1]] if named else pairs
        return [file for file, _ in chosen]

    def _learn_schemas(self, connection: DuckDBPyConnection, files: Sequence[File]) -> None:
        known = self._known
        new = {file.path: file.version for file in files}
        new = {path: version for path, version in new.items() if path not in known or known[path].version != version}
        for path, schema in _read(connection, SCHEMAS, list(new)):
            known.pop(path, None)  # so that it is the newest known
            known[path] = Footer(new[path], schema)

    def _learn_statistics(self, connection: DuckDBPyConnection, cursor: CursorColumn, files: Sequence[str]) -> None:
        known = self._known
        for path in files:
            known[path] = Footer(known[path].version, known[path].schema, cursor.type)
        lowest, highest = (cursor.position_of(f"CAST({name} AS {cursor.type})") for name in ("low", "high"))
        sql = STATISTICS.replace("{lowest}", lowest).replace("{highest}", highest)
        for path, low, high, certain, named, nulls in _read(connection, sql, files, column=self._column):
            known[path] = Footer(
                known[path].version, known[path].schema, cursor.type, low, high, bool(certain), bool(named), nulls
            )


def _read(
    connection: DuckDBPyConnection, sql: str, files: Sequence[str], **values: object
) -> Iterator[tuple[Any, ...]]:
    """The rows of a statement about `{files}`, asked for some files at a time."""

    def ask(some: Sequence[str]) -> list[tuple[Any, ...]]:
        cursor = connection.cursor()
        try:
            cursor.execute("SET TimeZone = 'UTC'")
            return cursor.execute(sql.replace("{files}", ", ".join(map(quote_literal, some))), values).fetchall()
        finally:
            cursor.close()

    chunks = [files[at : at + CHUNK] for at in range(0, len(files), CHUNK)]
    if len(chunks) < 2:
        yield from (row for chunk in chunks for row in ask(chunk))
        return
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="tidepost-footers") as pool:
        for found in pool.map(ask, chunks):
            yield from found
