"""Files of the local disk, and of whatever is mounted there, as a store that is listed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tidepost.errors import Misconfigured, Retryable, TidepostError
from tidepost.paths import is_glob, plain
from tidepost.sources.listing import File, matches

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class LocalFiles:
    """Satisfies `listing.Store`. Links are followed."""

    def folders(self, folder: str) -> Sequence[str]:
        return [entry.name for entry in _entries(folder) if _is_folder(entry)]

    def files(self, folder: str, pattern: Sequence[str]) -> Iterator[File]:
        first, *rest = pattern
        if first == "**":
            yield from self._anywhere(folder, rest or ["*"], set())
        elif not is_glob(first):
            path = f"{folder}{plain(first)}"
            if rest:
                yield from self.files(f"{path}/", rest)
            else:
                yield from _if_file(path, Path(path))
        else:
            for entry in _entries(folder):
                if not matches(entry.name, first):
                    continue
                if rest and _is_folder(entry):
                    yield from self.files(f"{folder}{entry.name}/", rest)
                elif not rest:
                    yield from _if_file(f"{folder}{entry.name}", entry)

    def readable(self, connection: DuckDBPyConnection) -> None:
        """DuckDB reads local files by itself."""

    def _anywhere(self, folder: str, rest: Sequence[str], above: set[str]) -> Iterator[File]:
        """What matches in a folder, or any below it; a link to a folder above is not followed."""
        real = os.path.realpath(folder)
        if real in above:
            return
        yield from self.files(folder, rest)
        for name in self.folders(folder):
            if not name.startswith("."):
                yield from self._anywhere(f"{folder}{name}/", rest, above | {real})


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _told(folder, error) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        raise _told(entry.path, error) from error


def _if_file(path: str, entry: os.DirEntry[str] | Path) -> Iterator[File]:
    """What is there, if it is a file; one that is gone since its folder was listed is none."""
    try:
        if entry.is_file():
            stat = entry.stat()
            yield File(path, f"{stat.st_size}-{stat.st_mtime_ns}")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _told(path, error) from error


def _told(path: str, error: OSError) -> TidepostError:
    if isinstance(error, PermissionError):
        return Misconfigured(f"source.files: {path} may not be looked at", hint="Give this user the right to.")
    return Retryable(f"source.files: {path}: {error.strerror}", hint="Run again when it can be read.")
