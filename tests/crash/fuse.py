"""Fuses: every effect of a run on the outside is counted, and the process is killed at a chosen one.

An effect is a ledger transaction, a file begun or finished, an fsync, rename, link, removal or new folder, a request
to a destination, one that writes to S3, and offsets that go to a topic's group. A point stands before each effect,
which is also the point after the one before it; commits, requests and offsets have one of their own after them. The
product knows nothing of it: the child process arms itself by wrapping what the product calls.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.client import BaseClient
from sqlalchemy import Connection

from tidepost.destinations.arize.destination import ArizeDestination
from tidepost.destinations.arthur.destination import ArthurDestination
from tidepost.ledger.engine import Database
from tidepost.ports import Upload
from tidepost.rows.writer import HashedFile
from tidepost.sources.kafka.client import Cluster

S3_WRITES = frozenset(
    {
        "PutObject",
        "CopyObject",
        "DeleteObject",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
    }
)
ASKED: dict[type, tuple[str, ...]] = {
    ArthurDestination: ("send", "send_rows", "counts", "ids"),
    ArizeDestination: ("send",),
}
SYSTEM_CALLS = ("fsync", "rename", "replace", "link", "unlink", "mkdir", "rmdir")


Point = int | tuple[str, int]
"""Which point: by its number among all, or by its name and the number among those of that name."""


def _gone() -> None:
    """The process is gone, without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


class Fuse:
    """Counts points; at the point `at` it blows, which is the end of the process, but for another `blow`."""

    def __init__(self, at: Point | None, blow: Callable[[], object] = _gone) -> None:
        self._at = at
        self._blow = blow
        self._lock = threading.Lock()
        self.passed: list[str] = []

    def point(self, name: str) -> None:
        with self._lock:
            self.passed.append(name)
            now = len(self.passed) if isinstance(self._at, int) else (name, self.passed.count(name))
            if now == self._at:
                self._blow()

    def before(self, name: str, function: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.point(f"before {name}")
            result = function(*arguments, **named)
            if after:
                self.point(f"after {name}")
            return result

        return wrapped


def arm(fuse: Fuse) -> None:
    """Put a fuse on every effect of this process. There is no way back: for child processes."""
    for call in SYSTEM_CALLS:
        setattr(os, call, fuse.before(call, getattr(os, call)))
    plain_write = Database.write

    @contextmanager
    def write(self: Database) -> Iterator[Connection]:
        with plain_write(self) as connection:
            yield connection
            fuse.point("before commit")
        fuse.point("after commit")

    Database.write = write  # type: ignore[method-assign]
    HashedFile.__init__ = fuse.before("file", HashedFile.__init__)  # type: ignore[method-assign]
    HashedFile.close = fuse.before("end of file", HashedFile.close)  # type: ignore[method-assign]
    for destination, requests in ASKED.items():
        for request in requests:
            plain = getattr(destination, request)
            setattr(destination, request, fuse.before(request, plain, after=True))
    arm_s3(fuse)
    Cluster.commit = fuse.before("offsets", Cluster.commit, after=True)  # type: ignore[method-assign]
    plain_upload = Upload.__init__

    def upload(self: Upload, *arguments: Any, **named: Any) -> None:
        guard = named["guard"]

        def guarded() -> Any:
            until = guard()
            fuse.point("before last bytes")
            return until

        plain_upload(self, *arguments, **{**named, "guard": guarded})

    Upload.__init__ = upload  # type: ignore[method-assign]


def arm_s3(fuse: Fuse) -> None:
    """A fuse on every request that writes to S3, after which there is a point too: its answer may be lost."""
    plain = BaseClient._make_api_call  # type: ignore[attr-defined]

    def call(self: BaseClient, operation: str, params: Any) -> Any:
        if operation not in S3_WRITES:
            return plain(self, operation, params)
        return fuse.before(operation, plain, after=True)(self, operation, params)

    BaseClient._make_api_call = call  # type: ignore[attr-defined]
