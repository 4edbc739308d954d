"""Where rows come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from tidepost.cursor import CursorKind
    from tidepost.ranges import Range


@dataclass(frozen=True, slots=True)
class Survey:
    """What a source shows of a range, in one snapshot, before anything is planned.

    highest:      the greatest cursor in the range, or None where it holds no row
    buckets:      (first position, rows), ascending; the rows of a bucket lie between it and the next
    null_cursors: rows whose cursor is NULL; no range holds them
    """

    highest: int | None
    buckets: tuple[tuple[int, int], ...]
    null_cursors: int = 0


CURSOR, FILE = "tidepost:cursor", "tidepost:file"
"""Columns of a source's relation: each row's position, and, where the relation has `layouts`, the row's file."""

FAULT, WHERE = "tidepost:fault", "tidepost:where"
"""Columns of a relation that is `judged`: why a row cannot be taken at all, or NULL; and a STRUCT that says where the
row lies in the source and what it is there, which is kept with a row that is set aside."""

Layout = Mapping[str, str]
"""A file's own columns: name in lower case → DuckDB type, empty where the file does not say it."""


@dataclass(frozen=True, slots=True)
class Relation:
    """SQL that reads a range of a source inside the caller's DuckDB connection, with its bound values.

    layouts: the files among those read whose own columns are not those of all files together
    judged:  it has `FAULT` and `WHERE`
    """

    sql: str
    values: Mapping[str, object]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    judged: bool = False


class Source(Protocol):
    """Where inferences are logged. Reads only; keeps nothing open between two calls."""

    def columns(self) -> Mapping[str, str]:
        """The source's columns with their DuckDB types. Raises Misconfigured where the source cannot be read."""

    def cursor(self) -> CursorKind:
        """The cursor's exact type. Raises Misconfigured for a column that cannot be one, or lacks a zone."""

    def clock(self) -> float | None:
        """The source's own clock, in seconds since 1970; None where it has none but the worker's."""

    def warnings(self) -> Sequence[str]:
        """What a person should know of the source, though nothing is lost by it: whole sentences, told once a run."""

    def survey(self, window: Range) -> Survey:
        """What there is in a range, counted in at most about a thousand buckets."""

    def read(
        self, connection: DuckDBPyConnection, window: Range, columns: Sequence[str]
    ) -> AbstractContextManager[Relation]:
        """The rows of a range, to be read once before the block ends; after it nothing stays open at the source.
        The relation has `columns` as the source types them, and `CURSOR`, the row's position as BIGINT or HUGEINT;
        of a UUID its text, which has the same order."""


@runtime_checkable
class OfFiles(Protocol):
    """What a source adds whose rows lie in files, each with columns of its own."""

    def layouts(self, window: Range) -> Mapping[str, Layout]:
        """As `Relation.layouts`, of the files that can hold rows of a range; empty where files do not say their
        columns."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The positions that a lane holds now, `[first, end)`; the same ones where it holds none."""

    first: int
    end: int


@runtime_checkable
class OfLanes(Protocol):
    """What a source adds whose rows lie in lanes: each has positions of its own, and a row keeps its position."""

    def lanes(self) -> Mapping[str, Extent]:
        """The lanes by name, in order, with what can be read of them now. Raises Retryable, Misconfigured."""

    def lane(self, name: str, *, empty: bool = False, again: bool = False) -> Source:
        """One lane as a source of its own. Reading what it no longer holds is told by `missing`.
        empty: what is read was never held, so that nothing is missed
        again: what is read was read before, so that what is gone since is left out and not missed"""

    def missing(self, name: str, window: Range) -> None:
        """Positions that were not read yet are gone. Raises Misconfigured, or records it where that was accepted."""

    def holds(self, name: str) -> bool:
        """Whether a lane is this process's to work on now; what it loses goes on elsewhere."""

    def share(self, only: Sequence[int] | None) -> AbstractContextManager[Source]:
        """The same source with the lanes that are this process's while the block lasts: those of some numbers, or
        what comes and goes as other processes do. Raises Retryable, Misconfigured."""

    def mirror(self, marks: Mapping[str, int]) -> None:
        """Tell the source how far the lanes have arrived, for those who look there. Nothing depends on it."""


def lane_of(source: Source, name: str, *, empty: bool = False, again: bool = False) -> Source:
    """The source that positions of a lane belong to; the source itself for the lane without a name."""
    return source.lane(name, empty=empty, again=again) if name and isinstance(source, OfLanes) else source


@dataclass(frozen=True, slots=True)
class Drop:
    """A file of labels that somebody put down.

    path:     absolute, or `s3://bucket/key`
    version:  another one if its content may be another one: size, and ETag or time
    modified: when, in seconds since 1970
    """

    path: str
    version: str
    modified: float


class Drops(Protocol):
    """Where files of labels are put down. Raises Retryable where there is no answer, Misconfigured where it may not
    look."""

    def found(self) -> Iterator[Drop]:
        """The files that are there now."""

    def now(self, path: str) -> Drop | None:
        """One file as it is now; None where it is gone."""

    def rows(self, connection: DuckDBPyConnection, drop: Drop) -> tuple[str, Mapping[str, str]]:
        """SQL that reads a file that was listed, and its columns with their DuckDB types. Raises `duckdb.Error`,
        Misconfigured."""
