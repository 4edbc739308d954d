"""Staging on a local disk.

A file is written under `_tidepost/`, synced, and renamed to its place; the folder it appears in is synced too, so
what was made visible is still there after a power cut. Renames are atomic: nobody ever sees half a file.

Records are drafted in `_tidepost/drafts/` below the root. A draft lives for moments; what a process that was killed
left there is removed after a day.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from tidepost.errors import Misconfigured, Retryable, Vanished
from tidepost.model import Part, Stream
from tidepost.ports import Relation
from tidepost.staging.relation import relation_over

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


ABANDONED_AFTER: Final = 86_400.0
"""Seconds after which nobody works on a draft any more."""


class LocalStaging:
    """Satisfies `ports.Staging` and `ports.Records`. `root` is created when first written to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lasting: set[Path] = set()

    @property
    def spill(self) -> Path:
        return self.root / "_tidepost" / "spill"

    def where(self, key: str) -> str:
        return str(self.root / key)

    # --------------------------------------------------------------------------------------------- parts

    def scratch(self, stream: Stream, cut: int, fence: int) -> Path:
        self.clear(stream, cut, fence)
        mine = self._scratch(stream) / f"{cut:08d}-{fence}"
        with told_by_disk(mine):
            mine.mkdir(parents=True)
        return mine

    def clear(self, stream: Stream, cut: int, fence: int | None = None) -> None:
        for old in self._scratch(stream).glob(f"{cut:08d}-*"):
            if fence is None or int(old.name.split("-")[1]) <= fence:
                shutil.rmtree(old, ignore_errors=True)

    def leftovers(self, stream: Stream) -> list[int]:
        self._sweep()
        found = self._scratch(stream).glob("*-*")
        return sorted({int(folder.name.split("-")[0]) for folder in found})

    def prepare(self, stream: Stream, part: Part, file: Path) -> Part:
        with told_by_disk(file):
            _sync(file)
            _sync(file.parent)
            token = file.relative_to(self.root).as_posix()
        return replace(part, token=token)

    def reveal(self, stream: Stream, part: Part) -> None:
        source, target = self.root / part.token, self._visible(stream, part)
        with told_by_disk(target):
            _make_folder(target.parent)
            try:
                source.rename(target)
            except FileNotFoundError:
                if target.is_file() and target.stat().st_size == part.size:
                    self._settle(target.parent)
                    return
                raise Vanished(
                    f"staging: {source.name} is gone before it was made visible as {part.path}",
                    hint="It will be staged again from the source by the next run.",
                ) from None
            self._settle(target.parent)

    def withdraw(self, stream: Stream, part: Part) -> None:
        path = self._visible(stream, part)
        with told_by_disk(path):
            path.unlink(missing_ok=True)

    def open(self, stream: Stream, part: Part) -> IO[bytes]:
        path = self._visible(stream, part)
        with told_by_disk(path):
            return path.open("rb")

    def relation(self, connection: DuckDBPyConnection, stream: Stream, parts: Sequence[Part]) -> Relation:
        missing = [part.path for part in parts if not self._visible(stream, part).is_file()]
        folder = str(self.root / stream.prefix)
        return relation_over(folder, parts, missing)

    def remove(self, key: str) -> None:
        path = self.root / key
        with told_by_disk(path):
            path.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------- records

    def put(self, key: str, data: bytes, *, absent: bool = False) -> bool:
        target = self.root / key
        with told_by_disk(target):
            _make_folder(target.parent)
            draft = self._draft(target)
            try:
                with draft.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                if absent:
                    try:
                        target.hardlink_to(draft)
                    except FileExistsError:
                        return False
                else:
                    draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)
            self._settle(target.parent)
        return True

    def get(self, key: str) -> bytes | None:
        path = self.root / key
        with told_by_disk(path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def list(self, prefix: str) -> Iterator[str]:
        folder = self.root / prefix
        found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return iter(sorted(path.relative_to(self.root).as_posix() for path in found))

    @contextmanager
    def file(self, key: str) -> Iterator[Path]:
        target = self.root / key
        with told_by_disk(target):
            _make_folder(target.parent)
            draft = self._draft(target)
            try:
                yield draft
                _sync(draft)
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)
            self._settle(target.parent)

    def _settle(self, folder: Path) -> None:
        """Make the names in a folder last, and once per process its own and those of the folders above it: whoever
        made them may have died before it synced them."""
        _sync(folder)
        for one in (folder, *folder.parents):
            if one.is_relative_to(self.root) and one not in self._lasting:
                _sync(one.parent)
                self._lasting.add(one)

    def _draft(self, target: Path) -> Path:
        """Where a record is written before it has its name. Named by chance: a process's id is its own on one host
        alone."""
        _make_folder(self._drafts)
        return self._drafts / f".{target.name}.{secrets.token_hex(8)}"

    def _sweep(self) -> None:
        """Remove the drafts that nobody works on any more. A process that slept for so long, and wakes, finds that
        its draft is gone, and fails in order."""
        if not self._drafts.is_dir():
            return
        with told_by_disk(self._drafts):
            for draft in self._drafts.iterdir():
                with suppress(FileNotFoundError):
                    if draft.stat().st_mtime < time.time() - ABANDONED_AFTER:
                        draft.unlink()

    @property
    def _drafts(self) -> Path:
        return self.root / "_tidepost" / "drafts"

    def _scratch(self, stream: Stream) -> Path:
        return self.root / stream.prefix / "_tidepost" / "scratch"

    def _visible(self, stream: Stream, part: Part) -> Path:
        return self.root / stream.prefix / part.path


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def told_by_disk(path: Path) -> Iterator[None]:
    """A system's error as one that names the file and says what is safe."""
    try:
        yield
    except OSError as error:
        reason = f"staging: {path}: {error.strerror or error}"
        safe = "Nothing was lost: what is not published will be staged again."
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise Misconfigured(reason, safe=safe, hint="The staging folder must be writable.") from error
        raise Retryable(reason, safe=safe, hint="Free or mend the disk, then run again.") from error
