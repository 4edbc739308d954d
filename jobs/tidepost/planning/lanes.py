"""Planning over lanes: partitions whose rows are numbered one by one, and keep their numbers.

Takes values and returns a value, as `plan.py` does. What is planned of a lane is what it holds beyond what was
scanned or promised; nothing is looked at again, for a position never gets another row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tidepost.errors import Misconfigured
from tidepost.model import Coverage, Cut, Request, ScanKind, Stream
from tidepost.planning.plan import NOTHING, frontier, pending
from tidepost.ports import Extent, Ledger
from tidepost.ranges import Range

CUT_ROWS = 100_000
"""Positions in a cut of a lane, at most, where the job does not say."""


@dataclass(frozen=True, slots=True)
class Gone:
    """Positions of a lane that were not read, and are not there any more."""

    lane: str
    range: Range


def gone(held: Mapping[str, Extent], *, start: int, coverage: Coverage) -> Iterator[Gone]:
    """What was to be read and is gone. What lies before all that was ever scanned or promised was never there."""
    for lane, has in held.items():
        if has.first <= start:
            continue
        below = Request("", ScanKind.INCREMENTAL)
        for one in pending(below, start=start, limit=has.first, coverage=coverage, lane=lane):
            if one.start > start:
                yield Gone(lane, one)


def check_ends(job: str, held: Mapping[str, Extent], coverage: Coverage) -> None:
    """Raises Misconfigured where a lane ends before what was scanned: it is not the lane that it was."""
    for lane, has in held.items():
        known = coverage.scanned.get(lane, NOTHING).union(coverage.planned.get(lane, NOTHING))
        if known and known.items[-1].end > has.end:
            raise Misconfigured(
                f"{job}: {lane} ends at offset {has.end}, and was read up to {known.items[-1].end} before: its topic "
                "was created anew, or lost its newest messages",
                safe="Nothing was planned or sent.",
                hint="To upload the new topic from its start, give the job another name (`name:` in its file); ids "
                "that were sent under the old name are then not recognised.",
            )


def plan_lanes(
    request: Request, held: Mapping[str, Extent], *, start: int, coverage: Coverage, rows: int
) -> tuple[Cut, ...]:
    """The cuts of a request, of at most `rows` positions; first the first of each lane, then the second, …

    What lies before the first position of a lane is a cut of its own, of which nothing is read.
    """
    found: list[tuple[int, int, Cut]] = []
    for number, (lane, has) in enumerate(held.items()):
        begin = start if request.window is None else has.first
        todo = pending(request, start=begin, limit=has.end, coverage=coverage, lane=lane)
        pieces = [piece for one in todo for piece in _pieces(one, has.first, rows, leading=request.window is None)]
        found += [
            (at, number, Cut(id=0, kind=request.kind, range=piece, lane=lane, estimated=count))
            for at, (piece, count) in enumerate(pieces)
        ]
    return tuple(cut for _, _, cut in sorted(found, key=lambda one: one[:2]))


def _pieces(window: Range, first: int, rows: int, *, leading: bool) -> Iterator[tuple[Range, int]]:
    """(piece, rows that it may hold)"""
    if leading and window.start < first:
        yield Range(window.start, min(window.end, first)), 0
    for low in range(max(window.start, first), window.end, rows):
        high = min(low + rows, window.end)
        yield Range(low, high), high - low


def lane_marks(ledger: Ledger, stream: Stream, destinations: Sequence[str], start: int) -> dict[str, int]:
    """How far each lane has arrived at all of some destinations: the smallest of its high-water marks there."""
    scanned = ledger.plans.coverage(stream).scanned  # before the deliveries: what is published since is above it
    marks = {lane: frontier(start, scanned, lane) for lane in scanned}
    for name in destinations:
        for one in (*ledger.deliveries.open(stream, name), *ledger.deliveries.held(stream, name)):
            of = ledger.deliveries.contents(one)[0]
            if of.kind is ScanKind.INCREMENTAL and one.reopened is None and of.lane in marks:
                marks[of.lane] = min(marks[of.lane], of.range.start)
    return marks
