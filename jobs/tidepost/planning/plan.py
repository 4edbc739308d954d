"""Planning: which ranges of the cursor are still to be scanned, cut into pieces of work.

Takes values and returns a value: no clock, no client, no log. What `run` executes is what `plan` prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidepost.cursor import DAY, CursorKind, CursorType
from tidepost.model import Coverage, Cut, Request, ScanKind
from tidepost.ports import Survey
from tidepost.ranges import Range, Ranges

NOTHING: Ranges = Ranges()


@dataclass(frozen=True, slots=True)
class Sizing:
    """How large a cut should be.

    rows:  aimed at; a cut holds more only where one bucket of the survey does
    align: positions between two preferred boundaries (a day, for times), so that slices fill whole partitions
    """

    rows: int
    align: int | None = None

    @classmethod
    def of(cls, kind: CursorKind, rows: int) -> Sizing:
        return cls(rows, DAY if kind.type is CursorType.TIMESTAMP else None)


def pending(request: Request, *, start: int, limit: int, coverage: Coverage, lane: str = "") -> Ranges:
    """The ranges that a request still has to look at below `limit`, before the source is asked what is there.

    An incremental request takes what is neither scanned nor promised to an open cut. A window that was asked for
    is looked at again whatever was scanned there: the index, not the plan, keeps rows from being sent twice.
    """
    if request.window is not None:
        window = Range(request.window.start, min(request.window.end, limit)) if request.window.start < limit else None
        return Ranges((window,)) if window is not None else NOTHING
    if limit <= start:
        return NOTHING
    whole = Ranges((Range(start, limit),))
    return whole.minus(coverage.scanned.get(lane, NOTHING)).minus(coverage.planned.get(lane, NOTHING))


def bound(limit: int, highest: int | None, tick: int) -> int | None:
    """The end of what a run may read: the smaller of `limit` (clock − settle) and just past the greatest cursor
    that is visible below it. None where nothing is visible: then nothing is scanned, for a loader may be down."""
    return None if highest is None else min(limit, highest + tick)


def plan(
    kind: ScanKind, *, todo: Ranges, bound: int | None, survey: Survey, sizing: Sizing, lane: str = ""
) -> tuple[Cut, ...]:
    """The cuts of a scan that cover every pending position below `bound`, oldest first; empty when nothing is new.

    Together they cover `todo` below the bound without a gap or an overlap; empty stretches between rows belong to
    a cut, so that they count as scanned. One cursor value is never split.
    """
    if bound is None:
        return ()
    return tuple(
        Cut(id=0, kind=kind, range=piece, lane=lane, estimated=rows)
        for one in todo
        if one.start < bound
        for piece, rows in _pieces(Range(one.start, min(one.end, bound)), survey, sizing)
    )


def _pieces(window: Range, survey: Survey, sizing: Sizing) -> Iterator[tuple[Range, int]]:
    """Cut one window at the starts of buckets: before the bucket that would make the piece too large, or at a
    preferred boundary once the piece is half full."""
    start, rows = window.start, 0
    for position, count in survey.buckets:
        if not window.start < position < window.end:
            rows += count if position == window.start else 0
            continue
        full = rows > 0 and rows + count > sizing.rows
        aligned = sizing.align is not None and _crosses(start, position, sizing.align) and rows * 2 >= sizing.rows
        if full or aligned:
            yield Range(start, position), rows
            start, rows = position, 0
        rows += count
    yield Range(start, window.end), rows


def _crosses(start: int, position: int, align: int) -> bool:
    return start // align != position // align


def frontier(start: int, scanned: Mapping[str, Ranges], lane: str = "") -> int:
    """The end of the unbroken scanned range from the job's start."""
    return scanned.get(lane, NOTHING).unbroken_from(start)


def high_water_mark(frontier: int, oldest_open: int | None) -> int:
    """The frontier, capped by the start of the oldest open or held slice of an incremental scan."""
    return frontier if oldest_open is None else min(frontier, oldest_open)


def overfull(survey: Survey, sizing: Sizing) -> tuple[Range, ...]:
    """The buckets that hold more than two cuts' rows and should be counted more finely before planning."""
    edges = [position for position, _ in survey.buckets[1:]]
    ends = [*edges, (survey.highest or 0) + 1]
    return tuple(
        Range(position, end)
        for (position, rows), end in zip(survey.buckets, ends, strict=False)
        if rows > 2 * sizing.rows and end - position > 1
    )


def refined(survey: Survey, finer: Mapping[int, Survey]) -> Survey:
    """A survey with some buckets, named by their first position, replaced by finer counts of the same range."""
    buckets = [
        piece
        for position, rows in survey.buckets
        for piece in (finer[position].buckets if position in finer else ((position, rows),))
    ]
    return Survey(survey.highest, tuple(buckets), survey.null_cursors)
