"""A run, from beginning to end. Nothing else orders the stages.

agree    does the ledger know what the staging holds?
resume   finish what an earlier run began: a half-published slice, open cuts, open deliveries
plan     fix the bound; write down the cuts that are new
stage    each cut: read once, checked, looked up in the index, published
deliver  each slice: sent to its destinations while the next cut is staged
confirm  each delivery: closed when the destination shows its rows
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from uuid import UUID

from tidepost.batches import close_batches
from tidepost.confirm import Confirmer
from tidepost.cursor import EPOCH, CursorKind, to_nanoseconds
from tidepost.deliver import Courier
from tidepost.engine import Engine
from tidepost.errors import HeldElsewhere, Misconfigured, Outdated, Refused, Retryable, TidepostError, Unknown
from tidepost.events import CutStaged, Event, Notice, Planned, Settled, Warned
from tidepost.job import Job
from tidepost.leases import Keeper
from tidepost.lookback import CLOSE_TO_LOOKBACK, count, differing, late_warning, lateness
from tidepost.lookback import window as lookback_window
from tidepost.model import (
    Coverage,
    Cut,
    CutState,
    Delivery,
    DeliveryState,
    Request,
    ScanKind,
    Stream,
    StreamName,
    Tally,
)
from tidepost.outbound import Outbound, Patience
from tidepost.plan import Sizing, bound, overfull, pending, plan, refined
from tidepost.ports import Destination, Ledger, Records, Source, Staging, Survey
from tidepost.publish import Publisher
from tidepost.ranges import Range, Ranges
from tidepost.restage import Restage
from tidepost.stage import Stage, Staged

REFINEMENTS = 3


@dataclass(frozen=True, slots=True)
class World:
    """A job and the outside that it works on, wired by `wire.py`.

    owner: names this process in leases (see `ledger/owner.py`)
    clock: seconds since 1970, for the bound; `--now` sets it
    now:   seconds of a clock that does not jump, for what is waited for
    wait:  waits for an event, so many seconds at most; whether it was set
    """

    job: Job
    source: Source
    staging: Staging
    records: Records
    ledger: Ledger
    destinations: Sequence[Destination]
    engine: Engine
    owner: str
    clock: Callable[[], float] = time.time
    now: Callable[[], float] = time.monotonic
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait
    identity: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What a run did. `errors` are in the order in which they happened; the worst gives the exit code."""

    stream: Stream
    cuts: int = 0
    slices: int = 0
    size: int = 0
    tally: Tally = field(default_factory=Tally)
    arrived: int = 0
    held: int = 0
    stopped: bool = False
    errors: list[BaseException] = field(default_factory=list)

    def worst(self) -> BaseException | None:
        """The error that a caller should act on first, or None."""
        order = (Misconfigured, Refused, Unknown, Retryable, HeldElsewhere)
        unexpected = [error for error in self.errors if not isinstance(error, TidepostError)]
        known = [error for kind in order for error in self.errors if isinstance(error, kind)]
        return next(iter([*unexpected, *known, *self.errors]), None)


@dataclass(frozen=True, slots=True)
class Prospect:
    """What planning found: the cuts, and what they were made from. Nothing was written."""

    cuts: tuple[Cut, ...]
    coverage: Coverage
    kind: CursorKind
    bound: int | None
    survey: Survey


def start_of(job: Job, kind: CursorKind) -> int:
    """The position at which the job begins. Raises Misconfigured where `cursor.start` is of another type."""
    start = job.cursor.start_for(kind.type.value)
    if isinstance(start, datetime):
        return to_nanoseconds(start)
    if isinstance(start, date):
        return (start - EPOCH.date()).days
    return start.int if isinstance(start, UUID) else start


def prospect(world: World, stream: Stream | None, request: Request) -> Prospect:
    """Fix the bound and decide the cuts of a request. Writes nothing."""
    job, kind = world.job, world.source.cursor()
    start = start_of(job, kind)
    coverage = world.ledger.plans.coverage(stream) if stream is not None else Coverage(0)
    limit = _limit(world, stream, kind, start)
    todo = pending(request, start=start, limit=limit, coverage=coverage)
    late: tuple[Cut, ...] = ()
    if stream is not None and request.kind is ScanKind.INCREMENTAL:
        late = _look_back(world, stream, coverage, kind, start)
    if not todo:
        return Prospect(late, coverage, kind, None, Survey(None, ()))
    survey = _surveyed(world, todo, kind)
    end = bound(limit, survey.highest, kind.tick)
    cuts = plan(request.kind, todo=todo, bound=end, survey=survey, sizing=_sizing(world, kind))
    return Prospect((*late, *cuts), coverage, kind, end, survey)


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


def _warn(world: World, notice: Notice) -> None:
    """Tell what the source warns of, and clocks so far from each other that settle proves less than it should."""
    for text in world.source.warnings():
        notice(Warned(text))
    before, theirs, after = time.time(), world.source.clock(), time.time()
    skew = 0.0 if theirs is None else max(before - theirs, theirs - after)
    if theirs is not None and skew > max(world.job.cursor.settle.total_seconds() / 2, 1):
        side = "behind" if theirs < before else "ahead of"
        notice(
            Warned(
                f"the source's clock is {skew:.0f} s {side} this host's, more than half of cursor.settle; the "
                f"earlier one is used, but rows may carry times of either: set the clocks right, or a longer settle"
            )
        )


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
    if kind.timed:
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


def plan_request(world: World, stream: Stream, request: Request) -> tuple[tuple[Cut, ...], Prospect | None]:
    """The cuts of a request, written down; the same ones where it was planned before."""
    while True:
        asked = world.ledger.plans.asked(stream, request.key)
        if asked is not None:
            return asked, None
        _log_highest(world, stream)
        found = prospect(world, stream, request)
        try:
            return world.ledger.plans.write(stream, request, found.cuts, found.coverage.version), found
        except Outdated:
            continue


def registered(world: World) -> Stream:
    """The job's stream, registered at first sight. Raises Misconfigured where what may not change has changed."""
    cursor = f"{world.job.cursor.column} ({world.source.cursor().type})"
    identity = {**world.identity, "cursor": cursor}
    return world.ledger.plans.stream(world.job.name, StreamName.INFERENCES, identity)


def run(world: World, request: Request, *, notice: Notice, stop: threading.Event) -> Outcome:
    """Do what a request asks, after finishing what earlier runs began.

    `stop` ends it early and in order: what is on its way is finished or recorded, the rest is left for the next
    run. Raises Misconfigured or Retryable where nothing could be begun; what happened after that is in the outcome.
    """
    plans = world.ledger.plans
    stream = registered(world)
    outcome = Outcome(stream)
    _warn(world, notice)
    with _tools(world, stream, outcome, notice, stop) as tools:
        tools.publisher.agree(stream)
        _recover(world, tools, stream)
        resumed = plans.open_cuts(stream)
        cuts, found = plan_request(world, stream, request)
        todo = [*resumed, *(cut for cut in cuts if cut.state is not CutState.DONE and cut not in resumed)]
        deliveries = _open_deliveries(world, stream)
        if found is not None:
            outcome.tally = Tally(null_cursors=found.survey.null_cursors)
            edge = None if found.bound is None else found.kind.format(found.bound)
            notice(Planned(tuple(todo), len(resumed) + len(deliveries), found.survey.null_cursors, edge))
        else:
            notice(Planned(tuple(todo), len(resumed) + len(deliveries), 0, None))
        if todo or deliveries:
            changes = tools.stage.drifted(stream, todo)
            columns = tools.stage.shape(stream).staged
            for destination in world.destinations:
                destination.check(stream.name, columns)
            _know_columns(world, stream, changes, notice)
        _resume(tools, outcome, deliveries, stop)
        for cut in todo:
            if stop.is_set():
                break
            try:
                fresh = _cut(world, tools, outcome, cut, notice)
            except HeldElsewhere as error:
                outcome.errors.append(error)
                continue
            except TidepostError as error:
                outcome.errors.append(error)
                break
            for delivery in fresh:
                tools.outbound[delivery.destination].add(delivery)
    _end(world, outcome, stop)
    return outcome


def send_again(
    world: World, stream: Stream, deliveries: Sequence[Delivery], *, notice: Notice, stop: threading.Event
) -> Outcome:
    """See deliveries through and do nothing else: nothing is scanned. Stops and raises as `run` does."""
    outcome = Outcome(stream)
    with _tools(world, stream, outcome, notice, stop) as tools:
        tools.publisher.agree(stream)
        columns = tools.stage.shape(stream).staged
        for destination in world.destinations:
            destination.check(stream.name, columns)
        _resume(tools, outcome, deliveries, stop)
    _end(world, outcome, stop)
    return outcome


def bring_back(world: World, stream: Stream, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], Outcome]:
    """Stage again what deliveries need and was purged. Returns those whose files are all there, and what stopped the
    others."""
    outcome, ready = Outcome(stream), []
    with _tools(world, stream, outcome, lambda _: None, threading.Event()) as tools:
        tools.publisher.agree(stream)
        for delivery in deliveries:
            with _remembered(outcome):
                tools.restage.bring_back(stream, delivery)
                ready.append(delivery)
    return ready, outcome


def _resume(tools: Tools, outcome: Outcome, deliveries: Sequence[Delivery], stop: threading.Event) -> None:
    """Go on with deliveries; what of them was purged is staged again, or the delivery stays as it is."""
    for delivery in deliveries:
        if stop.is_set():
            break
        with _remembered(outcome):
            tools.restage.bring_back(outcome.stream, delivery)
            tools.outbound[delivery.destination].add(delivery)


def _end(world: World, outcome: Outcome, stop: threading.Event) -> None:
    """What closes a run, once nothing is on its way."""
    stream = outcome.stream
    outcome.stopped = stop.is_set()
    if world.job.mapping.batch_id is not None and not outcome.stopped:
        for destination in world.destinations:
            with _remembered(outcome):
                close_batches(stream, destination, world.ledger, world.records)
    with _remembered(outcome):
        world.ledger.reports.ran(stream)
        outcome.stream = world.ledger.plans.find(stream.job, stream.name) or stream


def _know_columns(world: World, stream: Stream, changes: Sequence[str], notice: Notice) -> None:
    """Tell what changed of the source's columns, and remember them, so that it is told once."""
    for text in changes:
        notice(Warned(text))
    columns = world.source.columns()
    if columns != stream.columns:
        world.ledger.plans.know(stream, columns)


def _cut(world: World, tools: Tools, outcome: Outcome, cut: Cut, notice: Notice) -> tuple[Delivery, ...]:
    """Stage and publish one cut; returns the deliveries that it created."""
    began, stream = time.monotonic(), outcome.stream
    if world.ledger.plans.cut(stream, cut.id).state is CutState.PUBLISHING:
        finished = tools.publisher.recover(stream)  # its publisher may have died since we began
        if finished:
            return finished
    with tools.keeper.holding("cut", cut.id) as lease:
        if world.ledger.plans.cut(stream, cut.id).state is not CutState.PLANNED:
            return ()  # another run has published it since we listed it; its deliveries are open in the ledger
        fresh = world.ledger.plans.find(stream.job, stream.name) or stream
        staged = tools.stage.stage(lease, fresh, cut, null_cursors=outcome.tally.null_cursors)
        if staged.earliest is not None:
            staged = _timed(world, fresh, staged, staged.earliest)
        done = tools.publisher.publish(tools.stage, lease, fresh, cut, staged)
    if staged.tally.late > CLOSE_TO_LOOKBACK * world.job.cursor.lookback.total_seconds():
        notice(Warned(late_warning(staged.tally.late, world.job.cursor.lookback)))
    outcome.cuts += 1
    outcome.tally = outcome.tally.plus(done.tally)
    if done.slice is not None:
        outcome.slices += 1
        outcome.size += done.slice.size
    notice(CutStaged(cut, done.tally, done.slice, time.monotonic() - began))
    return done.deliveries


def _timed(world: World, stream: Stream, staged: Staged, earliest: int) -> Staged:
    """What a lookback found, with how late it was."""
    scanned = world.ledger.plans.coverage(stream).scanned.get("", Ranges())
    kind, reports = world.source.cursor(), world.ledger.reports
    late = lateness(earliest, scanned, kind, stream=stream, reports=reports)
    return replace(staged, tally=replace(staged.tally, late=late))


@contextmanager
def _remembered(outcome: Outcome) -> Iterator[None]:
    """Let an error of a closing step be one of the run's, for nothing depends on it."""
    try:
        yield
    except TidepostError as error:
        outcome.errors.append(error)


def _recover(world: World, tools: Tools, stream: Stream) -> None:
    """Finish the slice whose publisher died, and clean up behind cuts that are done; what lives is left alone."""
    with suppress(HeldElsewhere):
        tools.publisher.recover(stream)
    for cut in world.staging.leftovers(stream):
        if world.ledger.plans.cut(stream, cut).state is CutState.DONE:
            with suppress(HeldElsewhere), tools.keeper.holding("cut", cut):  # it may be staged again just now
                world.staging.clear(stream, cut)


def _open_deliveries(world: World, stream: Stream) -> list[Delivery]:
    """Everything that is still to arrive somewhere, a destination that joined later included."""
    found: list[Delivery] = []
    for destination in world.destinations:
        world.ledger.deliveries.enroll(stream, destination.name)
        found += world.ledger.deliveries.open(stream, destination.name)
    return found


@dataclass(frozen=True, slots=True)
class Tools:
    """The engine's parts for one run, which share one set of leases."""

    keeper: Keeper
    stage: Stage
    publisher: Publisher
    restage: Restage
    outbound: Mapping[str, Outbound]


@contextmanager
def _tools(world: World, stream: Stream, outcome: Outcome, notice: Notice, stop: threading.Event) -> Iterator[Tools]:
    """Set a run's parts up; at the end every delivery on its way is seen through or left open in order."""
    job, ledger = world.job, world.ledger

    def told(event: Event) -> None:
        if isinstance(event, Settled):
            outcome.arrived += event.delivery.arrived
            outcome.held += event.delivery.state is DeliveryState.HELD
        notice(event)

    with ExitStack() as stack:
        keeper = stack.enter_context(Keeper(ledger, world.owner))
        connection = stack.enter_context(world.engine.connect())
        stage = Stage(job, world.source, world.staging, world.records, ledger, connection)
        names = [destination.name for destination in world.destinations]
        publisher = Publisher(job, world.staging, world.records, ledger, keeper, names)
        outbound: dict[str, Outbound] = {}
        for destination in world.destinations:
            pool = ThreadPoolExecutor(job.destination.connections, thread_name_prefix="tidepost-send")
            stack.callback(pool.shutdown)
            courier = Courier(
                stream, destination, ledger, world.staging, world.records, keeper, pool, told, world.now
            )
            confirmer = Confirmer(courier, job, world.engine, destination.loading, job.destination.shared, world.now)
            patience = Patience(job.destination.poll.total_seconds(), stop, world.wait)
            at_once = job.destination.connections
            outbound[destination.name] = Outbound(courier, confirmer, patience, told, at_once=at_once)
        try:
            yield Tools(keeper, stage, publisher, Restage(stage, keeper), outbound)
        finally:
            for one in outbound.values():
                one.finish()
                outcome.errors += one.errors
