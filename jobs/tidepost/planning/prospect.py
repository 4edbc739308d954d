"""Planning with the outside: what the source shows and the ledger knows, made into cuts that are written down.

`plan.py` and `lookback.py` decide; what they need to know is asked for here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from uuid import UUID

from tidepost.cursor import EPOCH, CursorKind, to_nanoseconds
from tidepost.definition.job import Job
from tidepost.errors import Outdated
from tidepost.labels import dropping, holding
from tidepost.model import Coverage, Cut, Request, ScanKind, Stream
from tidepost.planning.lanes import CUT_ROWS, check_ends, gone, plan_lanes
from tidepost.planning.lookback import count, differing
from tidepost.planning.lookback import window as lookback_window
from tidepost.planning.plan import Sizing, bound, overfull, pending, plan, refined
from tidepost.ports import Drop, OfLanes, Source, Survey
from tidepost.ranges import Range, Ranges
from tidepost.world import World

REFINEMENTS = 3


@dataclass(frozen=True, slots=True)
class Prospect:
    """What planning found: the cuts, and what they were made from. Nothing was written.

    more:  whether there were too many cuts, and those at the end were left out
    drops: the files of labels among them
    """

    cuts: tuple[Cut, ...]
    coverage: Coverage
    kind: CursorKind
    bound: int | None
    survey: Survey
    more: bool = False
    drops: tuple[Drop, ...] = ()

    def at_most(self, most: int | None) -> Prospect:
        """The same with so many cuts, those at the beginning."""
        cuts = self.cuts[:most]
        return replace(self, cuts=cuts, more=len(cuts) < len(self.cuts))


def start_of(job: Job, kind: CursorKind) -> int:
    """The position at which the job begins. Raises Misconfigured where `cursor.start` is of another type."""
    start = job.cursor.start_for(kind.type.value)
    if isinstance(start, datetime):
        return to_nanoseconds(start)
    if isinstance(start, date):
        return (start - EPOCH.date()).days
    return start.int if isinstance(start, UUID) else start


def prospect(world: World, stream: Stream | None, request: Request) -> Prospect:
    """Fix the bound and decide the cuts of a request. Writes nothing but losses that were accepted."""
    if isinstance(world.source, OfLanes):
        return _of_lanes(world, world.source, stream, request)
    job, kind = world.job, world.source.cursor()
    start = start_of(job, kind)
    coverage = world.ledger.plans.coverage(stream) if stream is not None else Coverage(0)
    limit = _limit(world, stream, kind, start)
    todo = pending(request, start=start, limit=limit, coverage=coverage)
    late: tuple[Cut, ...] = ()
    drops: tuple[Drop, ...] = ()
    if stream is not None and request.kind is ScanKind.INCREMENTAL:
        late = _look_back(world, stream, coverage, kind, start)
        drops, beside = _beside(world, stream)
        late = (*beside, *late)
    if not todo:
        return Prospect(late, coverage, kind, None, Survey(None, ()), drops=drops)
    survey = _surveyed(world, todo, kind)
    end = bound(limit, survey.highest, kind.tick)
    cuts = plan(request.kind, todo=todo, bound=end, survey=survey, sizing=_sizing(world, kind))
    return Prospect((*late, *cuts), coverage, kind, end, survey, drops=drops)


def _beside(world: World, stream: Stream) -> tuple[tuple[Drop, ...], tuple[Cut, ...]]:
    """The files of labels that are new, and the cuts that take up these and what is held."""
    if world.drops is None or world.job.ground_truth is None:
        return (), ()
    with world.engine.connect() as connection:
        held = holding.due(connection, world.staging, world.records, world.ledger, stream)
    files = world.job.ground_truth.files
    quiet = 0.0 if files is None else files.quiet.total_seconds()
    found = dropping.due(world.drops, world.records, world.ledger, stream, now=world.clock(), quiet=quiet)
    return tuple(drop for drop, _ in found), (*held, *(cut for _, cut in found))


def _of_lanes(world: World, source: OfLanes, stream: Stream | None, request: Request) -> Prospect:
    """As `prospect`, lane by lane: what can be read of each now ends it."""
    job, kind = world.job, world.source.cursor()
    start = start_of(job, kind)
    coverage = world.ledger.plans.coverage(stream) if stream is not None else Coverage(0)
    held = source.lanes()
    check_ends(job.name, held, coverage)
    for one in gone(held, start=start, coverage=coverage) if request.window is None else ():
        source.missing(one.lane, one.range)
    rows = job.limits.cut_rows if "cut_rows" in job.limits.model_fields_set else CUT_ROWS
    cuts = plan_lanes(request, held, start=start, coverage=coverage, rows=rows)
    end = max((cut.range.end for cut in cuts), default=None)
    return Prospect(cuts, coverage, kind, end, Survey(None, ()))


def _look_back(world: World, stream: Stream, coverage: Coverage, kind: CursorKind, start: int) -> tuple[Cut, ...]:
    """The cuts over what is scanned already and holds other rows by now."""
    scanned, planned = (ranges.get("", Ranges()) for ranges in (coverage.scanned, coverage.planned))
    lookback, reports = world.job.cursor.lookback, world.ledger.reports
    window = lookback_window(scanned, lookback, kind, start=start, stream=stream, reports=reports)
    if window is None:
        return ()
    buckets = world.ledger.plans.buckets(stream, window)
    found = count(world.job, world.source, world.engine, buckets)
    todo = differing(window, scanned=scanned, planned=planned, buckets=buckets, found=found)
    if not todo:
        return ()
    survey, end = _surveyed(world, todo, kind), todo.items[-1].end
    return plan(ScanKind.LOOKBACK, todo=todo, bound=end, survey=survey, sizing=_sizing(world, kind))


def _sizing(world: World, kind: CursorKind) -> Sizing:
    return Sizing.of(kind, world.job.limits.cut_rows)


def _surveyed(world: World, todo: Ranges, kind: CursorKind) -> Survey:
    """What the source holds from the beginning to the end of some ranges."""
    hull = Range(todo.items[0].start, todo.items[-1].end)
    return _refined(world.source, world.source.survey(hull), _sizing(world, kind))


def _now(world: World) -> float:
    """The smaller of the source's clock and this process's."""
    return min(world.clock(), world.source.clock() or float("inf"))


def _limit(world: World, stream: Stream | None, kind: CursorKind, start: int) -> int:
    """Clock − settle as a position. A growing id has no time of its own: what was its highest value that long ago
    is looked up in the ledger's log, to which every run adds."""
    settled = _now(world) - world.job.cursor.settle.total_seconds()
    if kind.timed:
        return kind.floor(int(settled * 1_000_000) * 1_000)
    if not world.job.cursor.settle:
        return kind.last
    seen = world.ledger.reports.highest_seen(stream, settled) if stream is not None else None
    return start if seen is None else seen + 1


def _log_highest(world: World, stream: Stream) -> None:
    """Remember how far a growing id is by now, for the runs after `settle` and within `lookback`."""
    kind = world.source.cursor()
    if kind.timed or isinstance(world.source, OfLanes):
        return
    now = _now(world)
    start = start_of(world.job, kind)
    seen = world.ledger.reports.highest_seen(stream, now)
    low = start if seen is None else max(start, seen)
    if low < kind.last:
        highest = world.source.survey(Range(low, kind.last)).highest
        if highest is not None:
            world.ledger.reports.seen(stream, now, highest)


def _refined(source: Source, survey: Survey, sizing: Sizing) -> Survey:
    """Count the buckets that hold far more rows than a cut should more finely."""
    for _ in range(REFINEMENTS):
        finer = {window.start: source.survey(window) for window in overfull(survey, sizing)}
        finer = {start: found for start, found in finer.items() if len(found.buckets) > 1}
        if not finer:
            break
        survey = refined(survey, finer)
    return survey


def plan_request(
    world: World, stream: Stream, request: Request, *, most: int | None = None
) -> tuple[tuple[Cut, ...], Prospect | None]:
    """The cuts of a request, `most` of them, written down; the same ones where it was planned before."""
    while True:
        asked = world.ledger.plans.asked(stream, request.key)
        if asked is not None:
            return asked, None
        _log_highest(world, stream)
        found = prospect(world, stream, request).at_most(most)
        for drop in found.drops:
            dropping.register(world.records, stream, drop)
        try:
            return world.ledger.plans.write(stream, request, found.cuts, found.coverage.version), found
        except Outdated:
            continue
