"""The columns of each file by itself, where all files together are read as one table.

A file is looked at once, and again when its size or time of change differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tidepost.ports import Layout
from tidepost.sql import quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Layouts:
    """The layouts of one source's files. Only parquet and CSV files say their columns, and only parquet their types.

    format: parquet, csv or json
    """

    def __init__(self, format_: str) -> None:
        self._format = format_
        self._known: dict[str, tuple[tuple[int, int], Layout]] = {}

    def of(self, connection: DuckDBPyConnection, files: Sequence[str]) -> dict[str, Layout]:
        """file → its columns, those that its folders name (`month=01`) included; empty for JSON files."""
        if self._format == "json":
            return {}
        versions = {file: _version(file) for file in files}
        new = [file for file in files if file not in self._known or self._known[file][0] != versions[file]]
        read = _of_parquet(connection, new) if self._format == "parquet" else _of_csv(connection, new)
        self._known |= {file: (versions[file], {**_folders(file), **layout}) for file, layout in read.items()}
        return {file: self._known[file][1] for file in files}


def _of_parquet(connection: DuckDBPyConnection, files: Sequence[str]) -> dict[str, dict[str, str]]:
    """Footers list their columns as a tree, each followed by what it holds: only its first level is taken."""
    found: dict[str, dict[str, str]] = {file: {} for file in files}
    if not files:
        return found
    listed = ", ".join(quote_literal(file) for file in files)
    inside: dict[str, int] = {}
    for file, name, children, of in connection.execute(
        f"SELECT file_name, name, num_children, duckdb_type FROM parquet_schema([{listed}])"
    ).fetchall():
        if file not in inside:
            inside[file] = 0  # the root
            continue
        if inside[file] == 0:
            found[file][name.lower()] = "" if children else str(of)
        inside[file] += (children or 0) - (inside[file] > 0)
    return found


def _of_csv(connection: DuckDBPyConnection, files: Sequence[str]) -> dict[str, dict[str, str]]:
    return {
        file: {
            str(row[0]).lower(): ""
            for row in connection.execute(
                f"DESCRIBE SELECT * FROM read_csv([{quote_literal(file)}], union_by_name = true)"
            ).fetchall()
        }
        for file in files
    }


def _folders(file: str) -> dict[str, str]:
    return {part.partition("=")[0].lower(): "" for part in Path(file).parent.parts if "=" in part}


def _version(file: str) -> tuple[int, int]:
    stat = Path(file).stat()
    return stat.st_size, stat.st_mtime_ns
