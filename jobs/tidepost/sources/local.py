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

    far = False

    def folders(self, folder: str) -> Sequence[str]:
        return [entry.name for entry in _entries(folder) if _is_folder(entry)]

    def files(self, folder: str, pattern: Sequence[str]) -> Iterator[File]:
        first, *rest = pattern
        if first == "**":
            return self._anywhere(folder, rest or ["*"])
        if is_glob(first):
            return self._matching(folder, _entries(folder), first, rest)
        path = f"{folder}{plain(first)}"
        if rest:
            return self.files(f"{path}/", rest)
        found = _found(path, Path(path))
        return iter([found] if found else [])

    def _matching(
        self, folder: str, entries: Sequence[os.DirEntry[str]], glob: str, rest: Sequence[str]
    ) -> Iterator[File]:
        for entry in entries:
            if not matches(entry.name, glob):
                continue
            if not rest:
                found = _found(f"{folder}{entry.name}", entry)
                if found:
                    yield found
            elif _is_folder(entry):
                yield from self.files(f"{folder}{entry.name}/", rest)

    def _anywhere(self, folder: str, rest: Sequence[str]) -> Iterator[File]:
        """What matches in a folder, or any below it; a link to a folder above is not followed."""
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            entries = _entries(here)
            if len(rest) == 1 and is_glob(rest[0]):
                yield from self._matching(here, entries, rest[0], ())
            else:
                yield from self.files(here, rest)
            for entry in entries:
                if not entry.name.startswith(".") and _is_folder(entry) and not _leads_up(entry):
                    waiting.append(f"{here}{entry.name}/")

    def open(self, file: File) -> str:
        return file.path

    def modified(self, file: File) -> float:
        return int(file.version.partition("-")[2]) / 1e9

    def readable(self, connection: DuckDBPyConnection) -> None:
        """DuckDB reads local files by itself."""


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


def _leads_up(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to a folder that it lies in."""
    if not entry.is_symlink():
        return False
    target, path = os.path.realpath(entry.path), Path(entry.path)
    return path.is_relative_to(target) or Path(os.path.realpath(path.parent)).is_relative_to(target)


def _found(path: str, entry: os.DirEntry[str] | Path) -> File | None:
    """What is there, if it is a file; one that is gone since its folder was listed is none."""
    try:
        if entry.is_file():
            stat = entry.stat()
            return File(path, f"{stat.st_size}-{stat.st_mtime_ns}")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _told(path, error) from error
    return None


def _told(path: str, error: OSError) -> TidepostError:
    if isinstance(error, PermissionError):
        return Misconfigured(f"source.files: {path} may not be looked at", hint="Give this user the right to.")
    return Retryable(f"source.files: {path}: {error.strerror}", hint="Run again when it can be read.")
