"""What the engine needs of the outside, as small protocols named by role.

Every adapter, and every fake, passes the contract test of its port (`tests/contracts/`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, runtime_checkable

from tidepost.model import (
    Bucket,
    Coverage,
    Cut,
    Delivery,
    DeliveryState,
    Lease,
    Part,
    Pause,
    Proof,
    Receipt,
    Request,
    RowAnswer,
    Send,
    SendForm,
    SendState,
    Slice,
    Stream,
    StreamName,
    Tally,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from tidepost.cursor import CursorKind
    from tidepost.ranges import Range


# ---------------------------------------------------------------------------------------------------- source


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


# --------------------------------------------------------------------------------------------------- staging


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


# ----------------------------------------------------------------------------------------------- destination


def unguarded() -> float:
    """A guard that lets everything pass, for ever."""
    return float("inf")


@dataclass(frozen=True, slots=True)
class Upload:
    """One part on its way to a destination.

    size:  bytes
    open:  opens the part's bytes anew, so that each attempt sends the whole body
    guard: called before the last bytes leave: until when, by the monotonic clock, they may; raises LeaseLost where
           this process may not finish the send
    """

    name: str
    rows: int
    size: int
    open: Callable[[], IO[bytes]]
    guard: Callable[[], float]
    batch_id: str | None = None


class Destination(Protocol):
    """A platform that receives. It trusts no answer that it cannot check.

    name:    of its deliveries in the ledger
    proof:   what it can show. Only one that shows `rows` is ever given rows one by one or asked for ids and labels,
             and one that shows no more than its `receipt` is not asked for counts either
    loading: seconds that it may take to load what it accepted

    The event time of a label is its ground-truth timestamp. A platform holds one label an id, the last one that it
    loaded: a label that was replaced is counted and found no more, so that counts say little where labels change.
    """

    name: str
    proof: Proof
    loading: float

    def check(self, stream: StreamName, columns: Mapping[str, str]) -> None:
        """Compare the staged columns (name → DuckDB type) with what it expects, before anything is sent.

        Raises Misconfigured (wrong key, no such model, a missing or wrongly typed attribute), Retryable
        (unreachable).
        """

    def send(self, stream: StreamName, upload: Upload) -> Receipt:
        """Send one file. Retries by itself only what provably did not land.

        Raises Retryable (provably did not land), Refused (refused as a whole), Misconfigured (key or model),
        Unknown (may have landed), LeaseLost.
        """

    def send_rows(
        self, stream: StreamName, rows: Sequence[Mapping[str, object]], guard: Callable[[], float] = unguarded
    ) -> Sequence[RowAnswer]:
        """Send rows in the form whose answer names each; `guard` as in `Upload`. Raises as `send` does."""

    def close_batch(self, batch_id: str, total: int) -> None:
        """Say that a batch is complete with `total` rows; repeating it, also with another total, is harmless.
        Raises Retryable, Misconfigured."""

    def counts(self, stream: StreamName, window: Range) -> Mapping[int, int]:
        """Rows that arrived, by hour of event time; `window` is in hours. Raises Retryable, Misconfigured."""

    def ids(self, stream: StreamName, window: Range) -> Iterator[Sequence[str]]:
        """The partner inference ids that arrived with event times in a window of microseconds, in batches of
        bounded size; an id that arrived twice is given twice. Raises Retryable, Misconfigured."""

    def labels(self, window: Range) -> Iterator[pa.Table]:
        """The labels that it holds with event times in a window of microseconds, in tables of bounded size. They
        show which value is there, as an id does not.

        Columns: `partner_inference_id`, `ground_truth_timestamp` (with a zone), and every label attribute under its
        name and in the type that the platform holds it in: a staged value is the same if it is equal after a cast
        to that. Times may be truncated to whole milliseconds. Raises Retryable, Misconfigured.
        """


# ---------------------------------------------------------------------------------------------------- ledger


@dataclass(frozen=True, slots=True)
class PartRef:
    """A published part, and the slice that holds it."""

    sequence: int
    part: Part


@dataclass(frozen=True, slots=True)
class Batch:
    """What was published of one batch, as a destination has it.

    arrived: all of it has arrived there, or was refused
    latest:  the latest event time in it, in microseconds
    """

    id: str
    rows: int
    arrived: bool
    latest: int


@dataclass(frozen=True, slots=True)
class Published:
    """The published parts whose event times meet a window, as of one version of the stream.

    version: the stream's `published` number that this was read at; `Slices.begin` compares it
    """

    version: int
    parts: tuple[PartRef, ...]


class Plans(Protocol):
    """Streams, requests and cuts."""

    def stream(self, job: str, name: StreamName, identity: Mapping[str, str]) -> Stream:
        """The stream, registered at first sight. Raises Misconfigured where an entry of `identity` (cursor,
        id template, destination) is not what it was registered with, naming the entry, old and new; a key that
        was not there before is added."""

    def find(self, job: str, name: StreamName) -> Stream | None:
        """The stream, or None where it was never registered; writes nothing."""

    def know(self, stream: Stream, columns: Mapping[str, str]) -> None:
        """Remember the source's columns, to compare those of later runs with."""

    def coverage(self, stream: Stream) -> Coverage:
        """What is scanned and what is promised to open cuts."""

    def asked(self, stream: Stream, key: str) -> tuple[Cut, ...] | None:
        """The cuts, in order and in whatever state, of a request that was planned before; None for a new one."""

    def write(self, stream: Stream, request: Request, cuts: Sequence[Cut], version: int) -> tuple[Cut, ...]:
        """Write a plan down, durably, before anything is done, and return its cuts with their ids.

        Raises Outdated where another plan was written since `version` was read. A request key that exists
        already returns its cuts unchanged."""

    def cut(self, stream: Stream, cut: int) -> Cut:
        """One cut as it is now. Raises Misconfigured where the stream has none of that number."""

    def open_cuts(self, stream: Stream) -> tuple[Cut, ...]:
        """The cuts that are not done, oldest first."""

    def left(self, stream: Stream, seconds: float) -> tuple[Cut, ...]:
        """Those of `open_cuts` whose request was planned, and whose last cut was done, so many seconds ago at least:
        whoever worked on it has given up."""

    def tallies(self, stream: Stream, of: Sequence[int]) -> Mapping[int, Tally]:
        """What became of the rows of those of some cuts that are done, by cut."""

    def buckets(self, stream: Stream, window: Range) -> tuple[Bucket, ...]:
        """The buckets that meet a window of the cursor, in order. They never overlap; a cut that is done leaves
        one of its whole range, in place of all that it meets. What is scanned and in no bucket is unknown."""

    def rejected(self, stream: Stream, window: Range) -> tuple[int, ...]:
        """The cuts that are done, meet a window of the cursor, and set rows aside."""


class Leases(Protocol):
    """Who works on what. Times are the ledger's, so workers' clocks may disagree."""

    def take(self, kind: str, ref: int, owner: str, seconds: float) -> Lease:
        """Lease a cut or a delivery that is free, lapsed, or held by a process that is provably gone.
        The fence grows by one. Raises HeldElsewhere naming holder and time otherwise."""

    def renew(self, lease: Lease, seconds: float) -> Lease:
        """Raises LeaseLost where another one took over."""

    def release(self, lease: Lease) -> None:
        """Harmless where it was lost."""


class Slices(Protocol):
    """Publishing. At most one slice of a stream is being published at a time; each is one compare-and-set."""

    def published(self, stream: Stream, window: Range | None) -> Published:
        """Published parts whose event times [event_min, event_max] meet a window of microseconds (None: all)."""

    def cuts(self, stream: Stream, days: Set[int] | None) -> tuple[int, Mapping[int, int]]:
        """The stream's `published` number, and cut → sequence of its published slices with labels of inferences of
        any of these days (since 1970; None: of any), in one snapshot."""

    def begin(self, lease: Lease, stream: Stream, draft: Slice, version: int, columns: Mapping[str, str]) -> Slice:
        """Record a slice as publishing, with its prepared parts, in one transaction, and give it its sequence
        number (parts get their paths from it: `{sequence}` in a draft part's path is filled in, 8 digits).

        Raises Outdated where something was published since `version`, LeaseLost where the cut's lease was
        taken over, HeldElsewhere where another slice of the stream is publishing. The stream's column types
        are pinned to `columns` if they are not pinned yet; Misconfigured where they are and differ."""

    def finish(self, stream: Stream, done: Slice, destinations: Sequence[str]) -> tuple[Delivery, ...]:
        """One transaction: the slice is published, its deliveries exist (`held` where the slice is held, closed
        where it has no rows), its range is scanned, its cut is done, its tally is counted. Repeating it is
        harmless; Outdated where the slice was withdrawn meanwhile."""

    def empty(self, lease: Lease, stream: Stream, cut: Cut, tally: Tally) -> None:
        """One transaction: a cut without new rows is done, its range scanned. Raises LeaseLost."""

    def publishing(self, stream: Stream) -> Slice | None:
        """The slice that is being published, or whose publisher died: all that is needed to finish it."""

    def restaged(self, stream: Stream, sequence: int, parts: Sequence[Part]) -> None:
        """Record that purged parts of a published slice have their files again: the same rows in other bytes, so
        `size` and `sha256` are new. Repeating it is harmless."""

    def withdraw(self, stream: Stream, sequence: int) -> None:
        """Give up a slice in `publishing`, after its revealed parts were removed; its cut is planned again."""


class Deliveries(Protocol):
    """Sends, and what became of them."""

    def open(self, stream: Stream, destination: str) -> tuple[Delivery, ...]:
        """The deliveries that are neither closed nor held, oldest first."""

    def held(self, stream: Stream, destination: str) -> tuple[Delivery, ...]:
        """The deliveries that wait for a person, with the reason, oldest first."""

    def of(self, stream: Stream, cuts: Sequence[int]) -> tuple[Delivery, ...]:
        """The deliveries, in whatever state, of the slices that some cuts became, oldest first."""

    def paused(self, job: str) -> Mapping[str, Pause]:
        """The destinations of a job to which nothing is sent for now, by name, and who said so."""

    def enroll(self, stream: Stream, destination: str) -> int:
        """Give every published slice a delivery at a destination, where it has none: for one that joined later.
        Returns how many were new; repeating it is harmless."""

    def current(self, delivery: Delivery) -> Delivery:
        """The delivery as it is now; to be asked under its lease, as another run may have closed it meanwhile."""

    def contents(self, delivery: Delivery) -> tuple[Slice, tuple[Send, ...]]:
        """The delivery's slice, and every send so far, oldest first."""

    def intend(self, lease: Lease, delivery: Delivery, part: int, form: SendForm, rows: int) -> Send:
        """Write a send's intent down; the delivery is `sending`. Raises LeaseLost."""

    def answer(self, lease: Lease, send: Send, state: SendState, detail: str) -> None:
        """Write down what was learnt of a send. Raises LeaseLost."""

    def settle(
        self,
        lease: Lease,
        delivery: Delivery,
        state: DeliveryState,
        *,
        arrived: int = 0,
        refused: Mapping[int, int] | None = None,
        reason: str = "",
        proof: Proof | None = None,
    ) -> Delivery:
        """Move a delivery on. `arrived`, and `refused` by hour of event time, are totals so far, so that a repeat
        changes nothing; `proof` says by what it was closed. Raises LeaseLost; Outdated where the delivery was
        closed or held meanwhile."""


class Reports(Protocol):
    """What people and confirmation ask. Reads only, except for the log and the audit."""

    def expected(self, stream: Stream, destination: str, hours: Range) -> Mapping[int, int]:
        """Rows by hour of event time that should be at a destination once everything sent there has loaded:
        of deliveries `sent` and `closed`, without what was refused."""

    def in_flight(self, stream: Stream, destination: str, hours: Range) -> frozenset[int]:
        """The hours in which counts prove nothing: of deliveries there that are `sending` or `unknown`, or that are
        `todo` or `held` with a send that may have landed."""

    def seen(self, stream: Stream, at: float, highest: int) -> None:
        """Log the greatest cursor seen at a time; for growing ids, settle and lookback resolve through it."""

    def batches(self, stream: Stream, destination: str) -> Sequence[Batch]:
        """The batches of the published parts, those with earlier events first."""

    def ran(self, stream: Stream) -> None:
        """Remember that a run of the stream has ended now."""

    def highest_seen(self, stream: Stream, before: float) -> int | None:
        """The greatest cursor logged at or before a time, or None."""

    def first_seen(self, stream: Stream, position: int) -> float | None:
        """When a cursor of at least this was logged first, or None."""


class Ledger(Protocol):
    """The transactional record. `id` is drawn once, when it is created."""

    @property
    def id(self) -> str: ...
    @property
    def plans(self) -> Plans: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def slices(self) -> Slices: ...
    @property
    def deliveries(self) -> Deliveries: ...
    @property
    def reports(self) -> Reports: ...
