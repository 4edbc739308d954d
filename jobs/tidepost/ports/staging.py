"""Where files lie between a source and its destinations, and the records beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from tidepost.model import Part, Stream
from tidepost.ports.source import Relation

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Staging(Protocol):
    """Where slices live. A part is finished out of sight, made visible whole, and never changes after that.

    Keys are relative to the staging's root and use slashes: `{job}/{stream}/data/…`, `{job}/{stream}/_tidepost/…`.
    """

    @property
    def spill(self) -> Path:
        """A local folder for what does not fit into memory; made by who needs it."""

    def where(self, key: str) -> str:
        """A key as people find it: a path, or an address."""

    def scratch(self, stream: Stream, cut: int, fence: int) -> Path:
        """An empty local folder for a cut's unfinished parts; what an earlier attempt left there is removed."""

    def clear(self, stream: Stream, cut: int, fence: int | None = None) -> None:
        """Remove what attempts up to `fence` (None: all) left of a cut; harmless where there is nothing."""

    def leftovers(self, stream: Stream) -> Sequence[int]:
        """The cuts of which anything is left in scratch folders."""

    def prepare(self, stream: Stream, part: Part, file: Path) -> Part:
        """Make a finished file durable, still out of sight. The part returned carries the token that `reveal`
        needs, from any host that shares the staging."""

    def reveal(self, stream: Stream, part: Part) -> None:
        """Make a prepared part visible, whole, under its path. Repeating it is harmless.
        Raises Vanished where the prepared file is gone and the part is not visible either."""

    def withdraw(self, stream: Stream, part: Part) -> None:
        """Remove a part of a slice that was given up before it was published; harmless where there is none."""

    def open(self, stream: Stream, part: Part) -> IO[bytes]:
        """A visible part's bytes. Raises Retryable where it cannot be read."""

    def relation(self, connection: DuckDBPyConnection, stream: Stream, parts: Sequence[Part]) -> Relation:
        """SQL over visible parts, with all their columns, `_part` (the part's path) and `_row` (its row number
        there). Raises Retryable where one is not readable: absence is never "no ids"."""


class Records(Protocol):
    """The small files beside the data, from which a lost ledger can be rebuilt. Part of every staging."""

    def put(self, key: str, data: bytes, *, absent: bool = False) -> bool:
        """Write a file whole and durably. With `absent`, only where there is none: False where there was one."""

    def get(self, key: str) -> bytes | None:
        """A file's bytes, or None where there is none. Raises Retryable where the store cannot be read."""

    def list(self, prefix: str) -> Iterator[str]:
        """The keys below a prefix, in order."""

    def remove(self, key: str) -> None:
        """Remove a file; harmless where there is none."""

    def file(self, key: str) -> AbstractContextManager[Path]:
        """A local path to write a larger record to; it appears under its key, durably, when the block ends."""


class StagingArea(Staging, Records, Protocol):
    """A staging as a whole: its parts, and the records beside them."""
