"""DuckDB as tidepost uses it: in UTC, within a memory limit, spilling beside the staging.

Only what DuckDB 1.5 and 2.0 have in common is used, and every result is drained before the next statement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidepost.errors import Misconfigured, Retryable, TidepostError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH_ROWS = 61_440
"""Rows of an Arrow batch and of a parquet row group: half of DuckDB's own. The next is read while one is encoded, so
that of a cut of a few row groups less is waited for at both ends; the benchmark's files are 3 % larger for it."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How much a connection may use.

    memory:  bytes, DuckDB's limit; what does not fit is spilled below `scratch`
    threads: at most
    """

    memory: int
    threads: int
    scratch: Path

    def connect(self) -> DuckDBPyConnection:
        """A connection of its own, in UTC; the caller closes it."""
        import duckdb  # noqa: PLC0415 - heavy, and not needed to read a definition

        self.scratch.mkdir(parents=True, exist_ok=True)
        connection = duckdb.connect(
            config={
                "memory_limit": f"{self.memory // 1_000_000}MB",
                "threads": self.threads,
                "temp_directory": str(self.scratch),
                "preserve_insertion_order": True,
                "enable_external_file_cache": False,  # files are read once: it would fill the memory for nothing
            }
        )
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # it would write among what the caller writes
        return connection


def rows(
    connection: DuckDBPyConnection, sql: str, values: Mapping[str, object] | None = None
) -> list[tuple[object, ...]]:
    """All rows of a small result."""
    result: list[tuple[object, ...]] = connection.execute(sql, dict(values or {})).fetchall()
    return result


def translated(error: Exception, where: str) -> TidepostError:
    """A DuckDB error as one of ours: a full disk or a locked file passes, a wrong name or type does not."""
    import duckdb  # noqa: PLC0415

    text = str(error).strip().splitlines()
    name, _, ours = text[0].partition(": ") if text else ("", "", "")
    for kind in (Retryable, Misconfigured):
        if name == kind.__name__:  # raised while DuckDB read through us (`s3/duckdb.py`)
            return kind(f"{where}: {ours}", hint=text[1].strip() if text[1:] else "")
    message = f"{where}: {text[0] if text else type(error).__name__}"
    if isinstance(error, duckdb.OutOfMemoryException):
        return Retryable(message, hint="Nothing was lost: raise limits.memory, or free space for what is spilled.")
    if isinstance(error, duckdb.IOException):
        return Retryable(message, hint="Nothing was lost: run again when the file is readable and there is space.")
    return Misconfigured(message, hint="Check the source and the columns named in the job.")
