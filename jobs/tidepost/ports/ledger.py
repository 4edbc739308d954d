"""What is remembered, of plans, leases, slices and deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

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
    Request,
    Send,
    SendForm,
    SendState,
    Slice,
    Stream,
    StreamName,
    Tally,
)

if TYPE_CHECKING:
    from tidepost.ranges import Range


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
