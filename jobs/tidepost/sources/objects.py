"""Objects of a bucket of S3 as a store that is listed: a thousand to a request, below the longest sure name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING

from tidepost.paths import is_glob, plain
from tidepost.s3.connection import Connection, Object, Store
from tidepost.s3.duckdb import readable
from tidepost.sources.listing import File, matches

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class S3Files:
    """Satisfies `listing.Store`."""

    far = True

    def __init__(self, bucket: str, connection: Connection | None = None) -> None:
        self._store = Store(bucket, connection=connection)
        self._root = f"s3://{bucket}/"
        self._objects: dict[str, Object] = {}

    def folders(self, folder: str) -> Sequence[str]:
        start = folder.removeprefix(self._root)
        return [one[len(start) : -1] for one in self._store.level(start) if isinstance(one, str)]

    def files(self, folder: str, pattern: Sequence[str]) -> Iterator[File]:
        """Of one level alone, folders are left unopened; else all that is below is listed, for it is far quicker
        to look at a thousand names than to open a folder."""
        start = folder.removeprefix(self._root)
        while len(pattern) > 1 and not is_glob(pattern[0]):
            start, pattern = f"{start}{plain(pattern[0])}/", pattern[1:]
        head = start + _before_glob(pattern[0])
        for one in self._store.level(head) if len(pattern) == 1 and pattern[0] != "**" else self._store.list(head):
            if isinstance(one, Object) and _meets(one.key[len(start) :].split("/"), pattern):
                path = f"{self._root}{one.key}"
                self._objects[path] = one
                yield File(path, f"{one.size}-{one.etag}")

    def open(self, file: File) -> IO[bytes]:
        return self._store.reader(self._objects[file.path])

    def modified(self, file: File) -> float:
        return self._objects[file.path].modified.timestamp()

    def readable(self, connection: DuckDBPyConnection) -> None:
        readable(connection, self._store, self._objects.values())


def _before_glob(name: str) -> str:
    """What every name begins with that a glob stands for."""
    return plain(name) if not is_glob(name) else name[: min(name.find(mark) for mark in "*?[" if mark in name)]


def _meets(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the levels of a key are those of a pattern; a key that ends in a slash is no file."""
    if not pattern:
        return not names
    if pattern[0] != "**":
        return bool(names) and matches(names[0], pattern[0]) and _meets(names[1:], pattern[1:])
    rest = pattern[1:] or ["*"]
    hidden = next((at for at, name in enumerate(names) if name[:1] == "."), len(names))
    return any(_meets(names[at:], rest) for at in range(min(hidden + 1, len(names))))
