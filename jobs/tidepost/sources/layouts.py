"""The columns of each file by itself, where all files together are read as one table.

Of files that are certainly alike, one is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        self._known: dict[str, Layout] = {}

    def of(self, connection: DuckDBPyConnection, kinds: Mapping[str, str]) -> dict[str, Layout]:
        """file → its columns, those that its folders name (`month=01`) included; empty for JSON files.

        kinds: file → text that only files with the same columns share
        """
        if self._format == "json":
            return {}
        new = {kind: file for file, kind in kinds.items() if kind not in self._known}
        read = _of_parquet if self._format == "parquet" else _of_csv
        found = read(connection, list(new.values()))
        self._known |= {kind: found[file] for kind, file in new.items()}
        return {file: {**_folders(file), **self._known[kind]} for file, kind in kinds.items()}


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
