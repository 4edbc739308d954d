"""Staging on S3, or a store that speaks as S3 does.

A part's key holds its slice's number, which is only known once the slice has begun, and an upload is bound to the
key that it began with. So a finished file goes up out of sight first, below `_tidepost/scratch/` (`prepare`: all the
bytes that have to travel), and is copied to its place inside the store (`reveal`), which any host can do. A copy of
up to 5 GiB is one request: what readers see appears at once and whole, and copying again writes the same bytes.

An object carries the SHA-256 of its content, so that one that is there already can be told from another.

Unfinished files are written to a local folder; what a killed process left of them is found by the next run on its
host, and what it left in the store by the next run anywhere.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from tidepost.errors import Misconfigured, Vanished
from tidepost.model import Part, Stream
from tidepost.ports import Relation
from tidepost.s3.connection import Object, Store
from tidepost.s3.duckdb import readable
from tidepost.s3.once import put_once
from tidepost.staging.local import LocalStaging, told_by_disk
from tidepost.staging.relation import relation_over

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


_ATTEMPT: Final = re.compile(r".*/scratch/(?P<cut>\d+)-(?P<fence>\d+)/[^/]*")
MOST_BYTES: Final = 5 << 30
"""Of a part: what S3 copies in one request."""


class S3Staging:
    """Satisfies `ports.Staging` and `ports.Records`. `root` is a local folder for what is unfinished, created when
    first written to."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store, self.root = store, root
        self._local = LocalStaging(root)
        self._prepared: dict[str, tuple[str, str]] = {}

    @property
    def spill(self) -> Path:
        return self._local.spill

    def where(self, key: str) -> str:
        return self.store.url(key)

    # --------------------------------------------------------------------------------------------- parts

    def scratch(self, stream: Stream, cut: int, fence: int) -> Path:
        self.clear(stream, cut, fence)
        return self._local.scratch(stream, cut, fence)

    def clear(self, stream: Stream, cut: int, fence: int | None = None) -> None:
        self._local.clear(stream, cut, fence)
        start = f"{_scratch(stream)}{cut:08d}-"

        def earlier(name: str) -> bool:
            attempt = _ATTEMPT.fullmatch(name)
            return attempt is not None and (fence is None or int(attempt["fence"]) <= fence)

        for name, upload in self.store.unfinished(start):
            if earlier(name):
                self.store.abort(name, upload)
        old = [name for one in self.store.list(start) if earlier(name := self.store.name(one.key))]
        for name in old:
            self._prepared.pop(name, None)
        self.store.remove(*old)

    def leftovers(self, stream: Stream) -> list[int]:
        start = _scratch(stream)
        names = [self.store.name(one.key) for one in self.store.list(start)]
        names += [name for name, _ in self.store.unfinished(start)]
        attempts = (attempt for name in names if (attempt := _ATTEMPT.fullmatch(name)))
        return sorted({*self._local.leftovers(stream), *(int(attempt["cut"]) for attempt in attempts)})

    def prepare(self, stream: Stream, part: Part, file: Path) -> Part:
        if part.size > MOST_BYTES:
            raise Misconfigured(
                f"staging: {part.path} has {part.size:,} bytes, and S3 copies 5 GiB at most",
                safe="Nothing of its cut was published.",
                hint="Lower `staging.file_bytes` of the job.",
            )
        name = file.relative_to(self.root).as_posix()
        done = self._prepared.get(name)  # a publisher that waits for another one prepares again
        if done is not None and done[0] == part.sha256:
            return replace(part, token=done[1])
        with told_by_disk(file):
            etag = self.store.upload(name, file, about={"sha256": part.sha256})
        token = json.dumps({"name": name, "etag": etag})
        self._prepared[name] = (part.sha256, token)
        return replace(part, token=token)

    def reveal(self, stream: Stream, part: Part) -> None:
        target = _visible(stream, part)
        copied = self._copy(part.token, target)
        found = self.store.find(target)
        if found is not None and (found.size, found.about.get("sha256")) == (part.size, part.sha256):
            return
        if copied:  # the store did not look at the ETag, and what was prepared is not what is there
            self.store.remove(target)
        raise Vanished(
            f"staging: what was prepared is gone before it was made visible as {part.path}",
            hint="It will be staged again from the source by the next run.",
        )

    def _copy(self, token: str, target: str) -> bool:
        try:
            prepared = json.loads(token)
        except ValueError:
            return False  # of a staging that was another one then
        return self.store.copy(prepared["name"], target, etag=prepared["etag"])

    def withdraw(self, stream: Stream, part: Part) -> None:
        self.store.remove(_visible(stream, part))

    def open(self, stream: Stream, part: Part) -> IO[bytes]:
        return self.store.open(_visible(stream, part))

    def relation(self, connection: DuckDBPyConnection, stream: Stream, parts: Sequence[Part]) -> Relation:
        there = self._found(sorted(_visible(stream, part) for part in parts))
        missing = [part.path for part in parts if _visible(stream, part) not in there]
        readable(connection, self.store, there.values())
        return relation_over(self.store.url(stream.prefix), parts, missing)

    def _found(self, names: Sequence[str]) -> dict[str, Object]:
        """Those objects of some names, in order, that there are. One list asks, from the first name to the last:
        parts that are read together lie together."""
        wanted, found = set(names), {}
        for one in self.store.list(names[0] if len(names) == 1 else "", after=names[0][:-1]):
            name = self.store.name(one.key)
            if name > names[-1]:
                break
            if name in wanted:
                found[name] = one
        return found

    # ------------------------------------------------------------------------------------------- records

    def put(self, key: str, data: bytes, *, absent: bool = False) -> bool:
        return put_once(self.store, key, data) if absent else self.store.put(key, data)

    def get(self, key: str) -> bytes | None:
        return self.store.get(key)

    def list(self, prefix: str) -> Iterator[str]:
        start = f"{prefix}/" if prefix else ""
        return iter(sorted(self.store.name(one.key) for one in self.store.list(start)))

    def remove(self, key: str) -> None:
        self.store.remove(key)

    @contextmanager
    def file(self, key: str) -> Iterator[Path]:
        draft = self.root / "_tidepost" / "drafts" / secrets.token_hex(8)
        with told_by_disk(draft):
            draft.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield draft
                self.store.upload(key, draft)
            finally:
                draft.unlink(missing_ok=True)


def _scratch(stream: Stream) -> str:
    return f"{stream.prefix}/_tidepost/scratch/"


def _visible(stream: Stream, part: Part) -> str:
    return f"{stream.prefix}/{part.path}"
