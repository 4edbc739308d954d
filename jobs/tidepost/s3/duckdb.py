"""DuckDB reads `s3://` addresses through the same client as everything else.

So there is one set of credentials, renewed as boto3 renews it, and no extension to install. DuckDB asks for ranges:
a query that reads one column fetches the footer and that column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from tidepost.s3.connection import Connection, Object, Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PROTOCOL: Final = "s3"


@dataclass(frozen=True, slots=True)
class _Known:
    """What a connection of DuckDB knows: objects by address, and who asks for those of a bucket."""

    objects: dict[str, Object] = field(default_factory=dict)
    clients: dict[str, Connection] = field(default_factory=dict)


_known: WeakKeyDictionary[DuckDBPyConnection, _Known] = WeakKeyDictionary()


def readable(connection: DuckDBPyConnection, store: Store, objects: Iterable[Object] = ()) -> None:
    """Let a connection read `s3://bucket/key`, as `Store.url` gives it, through a store's client; of a bucket that no
    store was given for, through that of the first one.

    objects: of the store, as they were listed just now: the store is not asked about these before they are read

    An error of the store leaves DuckDB as `duckdb.Error` that begins with its name, such as `Retryable: `.
    """
    known = _known.get(connection)
    if known is None:
        known = _known[connection] = _Known()
        connection.register_filesystem(_filesystem(store, known))
    known.clients[store.bucket] = store.connection
    known.objects.update((f"s3://{store.bucket}/{one.key}", one) for one in objects)


def _filesystem(store: Store, known: _Known) -> Any:
    """A filesystem as fsspec defines it, which is imported only where one is needed."""
    from fsspec import AbstractFileSystem  # noqa: PLC0415
    from fsspec.utils import glob_translate  # noqa: PLC0415

    listed = known.objects
    looked_up: dict[str, Object] = {}

    def place(path: str) -> tuple[Store, str]:
        bucket, _, key = path.removeprefix("s3://").partition("/")
        return Store(bucket, connection=known.clients.get(bucket, store.connection)), key

    def find(path: str) -> Object:
        found = listed.get(path) or looked_up.get(path)
        if found is None:
            raise FileNotFoundError(path)
        return found

    class Objects(AbstractFileSystem):  # type: ignore[misc]
        """Reads only. DuckDB asks for the paths of a pattern first, and then for each one's size, time and bytes."""

        protocol = PROTOCOL
        cachable = False

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path

        def glob(self, path: str, **_: Any) -> list[str]:
            """The path itself where there is such an object, whatever its characters mean; else what it matches."""
            if path in listed:
                return [path]
            bucket, key = place(path)
            one = bucket.find(key)
            if one is not None:
                looked_up[path] = one
                return [path]
            fixed = re.split(r"[*?\[]", key, maxsplit=1)[0]
            if fixed == key:
                return []
            pattern = re.compile(glob_translate(path))
            found = {address: each for each in bucket.list(fixed) if pattern.match(address := bucket.url(each.key))}
            looked_up.update(found)
            return sorted(found)

        def exists(self, path: str, **_: Any) -> bool:
            return bool(self.glob(path))

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            found = find(path)
            return {"name": path, "size": found.size, "type": "file", "mtime": found.modified}

        def modified(self, path: str) -> datetime:
            return find(path).modified

        def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
            if mode != "rb":
                raise OSError("DuckDB does not write to S3 here")
            return place(path)[0].reader(find(path))

    return Objects()
