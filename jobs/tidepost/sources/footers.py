"""Which parquet files of many can hold a range of the cursor, by the statistics in their footers.

A file's footer is read once, and again when the file's size or time of change differ. A file without statistics, or
one that changed since, is never left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidepost.ranges import Range
from tidepost.sql import quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Footer:
    """What one file's footer says of the cursor: its positions, None where it does not say or holds none.

    certain: every row group with values has statistics
    named:   the file has the column
    """

    version: tuple[int, int]
    lowest: int | None
    highest: int | None
    certain: bool
    named: bool = True

    def meets(self, window: Range) -> bool:
        if not self.certain:
            return True
        return (
            self.lowest is not None
            and self.highest is not None
            and (self.lowest < window.end and self.highest >= window.start)
        )


class Footers:
    """The footers of one source's files.

    column:   the cursor, a column of the files themselves
    position: SQL of the position of a value of the column, given the value's SQL
    """

    def __init__(self, column: str, duckdb_type: str, position: Callable[[str], str]) -> None:
        self._column = column
        self._type = duckdb_type
        self._position = position
        self._known: dict[str, Footer] = {}

    def within(self, connection: DuckDBPyConnection, files: Sequence[str], window: Range) -> list[str]:
        """The files that can hold positions of a window, and at least one that has the column if any does."""
        versions = {file: _version(file) for file in files}
        self._read(
            connection,
            [file for file in files if file not in self._known or self._known[file].version != versions[file]],
            versions,
        )
        chosen = [file for file in files if self._known[file].meets(window)]
        if any(self._known[file].named for file in chosen):
            return chosen
        named = [file for file in files if self._known[file].named]
        return [*chosen, *named[:1]] if named else list(files)

    def _read(
        self, connection: DuckDBPyConnection, files: Sequence[str], versions: dict[str, tuple[int, int]]
    ) -> None:
        if not files:
            return
        listed = ", ".join(quote_literal(file) for file in files)
        ends = [self._position(f"CAST({name} AS {self._type})") for name in ("stats_min_value", "stats_max_value")]
        found = connection.execute(
            f"SELECT file_name, min({ends[0]}), max({ends[1]}), "
            f"bool_and(stats_min_value IS NOT NULL AND stats_max_value IS NOT NULL "
            f"OR coalesce(stats_null_count, -1) = num_values) "
            f"FROM parquet_metadata([{listed}]) WHERE lower(path_in_schema) = lower($column) GROUP BY file_name",
            {"column": self._column},
        ).fetchall()
        for file in files:
            self._known[file] = Footer(versions[file], None, None, certain=False, named=False)
        for file, lowest, highest, certain in found:
            self._known[str(file)] = Footer(versions[str(file)], lowest, highest, bool(certain))


def _version(file: str) -> tuple[int, int]:
    stat = Path(file).stat()
    return stat.st_size, stat.st_mtime_ns
