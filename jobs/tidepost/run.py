"""A run, from beginning to end. Nothing else orders the stages; `steps.py` takes the same pieces one at a time.

agree    does the ledger know what the staging holds?
resume   finish what an earlier run began: a half-published slice, open cuts, open deliveries
plan     fix the bound; write down the cuts that are new, and those that hold other rows by now
stage    each cut: read once, checked, looked up in the index, published
deliver  each slice: sent to its destinations while the next cut is staged
confirm  each delivery: closed when the destination shows its rows
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from tidepost.delivery.batches import close_batches
from tidepost.delivery.outbound import Outbound
from tidepost.errors import HeldElsewhere, LeaseLost, Misconfigured, Refused, Retryable, TidepostError, Unknown
from tidepost.events import CutStaged, Event, Notice, Planned, Settled, Warned
from tidepost.labels.turns import in_turn
from tidepost.memory import give_back
from tidepost.model import (
    Cut,
    CutState,
    Delivery,
    DeliveryState,
    Request,
    Stream,
    StreamName,
    Tally,
)
from tidepost.planning.lanes import lane_marks
from tidepost.planning.lookback import late_warning
from tidepost.planning.prospect import plan_request, start_of
from tidepost.ports import OfLanes
from tidepost.ranges import Range
from tidepost.tools import Tools, equipped, sending
from tidepost.world import World


@dataclass(slots=True)
class Outcome:
    """What a run did. `errors` are in the order in which they happened; the worst gives the exit code. `failed` are
    the destinations that are the cause of some, of which the others know nothing."""

    stream: Stream
    cuts: int = 0
    slices: int = 0
    size: int = 0
    tally: Tally = field(default_factory=Tally)
    arrived: int = 0
    held: int = 0
    stopped: bool = False
    errors: list[BaseException] = field(default_factory=list)
    failed: dict[str, list[BaseException]] = field(default_factory=dict)

    def fail(self, destination: str, error: BaseException) -> None:
        """Remember an error of one destination."""
        self.errors.append(error)
        self.failed.setdefault(destination, []).append(error)

    @property
    def general(self) -> bool:
        """Whether anything went wrong that is not one destination's."""
        return len(self.errors) > sum(map(len, self.failed.values()))

    def counting(self, notice: Notice) -> Notice:
        """The same notice, which also counts what is settled."""

        def told(event: Event) -> None:
            if isinstance(event, Settled):
                self.arrived += event.delivery.arrived
                self.held += event.delivery.state is DeliveryState.HELD
            notice(event)

        return told

    def worst(self) -> BaseException | None:
        """The error that a caller should act on first, or None."""
        order = (Misconfigured, Refused, Unknown, Retryable, HeldElsewhere)
        unexpected = [error for error in self.errors if not isinstance(error, TidepostError)]
        known = [error for kind in order for error in self.errors if isinstance(error, kind)]
        return next(iter([*unexpected, *known, *self.errors]), None)


def warn(world: World, notice: Notice) -> None:
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


def registered(world: World) -> Stream:
    """The job's stream, registered at first sight. Raises Misconfigured where what may not change has changed."""
    cursor = f"{world.job.cursor.column} ({world.source.cursor().type})"
    # Labels that come by files alone may get a source later, which then says what its cursor is.
    identity = world.identity if world.job.source.nowhere else {**world.identity, "cursor": cursor}
    return world.ledger.plans.stream(world.job.name, world.job.stream, identity)


def streams(world: World) -> tuple[World, ...]:
    """A job's streams in the order in which a bulk run takes them: labels go after the inferences that they join."""
    return (world,) if world.labels is None else (world, world.labels)


def run(world: World, request: Request, *, notice: Notice, stop: threading.Event, most: int | None = None) -> Outcome:
    """Do what a request asks, after finishing what earlier runs began.

    `stop` ends it early and in order: what is on its way is finished or recorded, the rest is left for the next
    run. `most`: cuts. Raises Misconfigured or Retryable where nothing could be begun; what happened after that is in
    the outcome.
    """
    outcome = Outcome(registered(world))
    warn(world, notice)
    with (
        equipped(world, outcome.stream, outcome.counting(notice)) as tools,
        sending(world, tools, stop, outcome.fail) as outbound,
    ):
        agenda = begun(world, tools, outcome, request, left=world.ledger.plans.open_cuts, most=most)
        purged = [one for one in agenda.deliveries if tools.restage.needed(one)]
        _resume(tools, outbound, outcome, [one for one in agenda.deliveries if one not in purged], stop)
        for cut in agenda.cuts:
            if stop.is_set():
                break
            try:
                fresh = take(world, tools, outcome, cut)
            except HeldElsewhere as error:
                outcome.errors.append(error)
                continue
            except TidepostError as error:
                outcome.errors.append(error)
                break
            theirs = [one for one in fresh if one.destination in outbound]
            for delivery in in_turn(world.ledger, world.records, outcome.stream, theirs):
                outbound[delivery.destination].add(delivery)
        _resume(tools, outbound, outcome, purged, stop)  # last: the source is read for them, and new rows come first
    _in_their_turn(world, outcome, notice, stop)
    end(world, outcome, stop)
    return outcome


def _in_their_turn(world: World, outcome: Outcome, notice: Notice, stop: threading.Event) -> None:
    """See deliveries of labels through that waited for others of this run, round by round, where nothing failed."""
    tried: set[int] = set()
    while world.job.stream is StreamName.GROUND_TRUTH and not outcome.general and not stop.is_set():
        found = open_deliveries(world, outcome.stream)
        todo = [one for one in found if one.id not in tried and one.destination not in outcome.failed]
        if not todo:
            return
        tried.update(one.id for one in todo)
        with (
            equipped(world, outcome.stream, outcome.counting(notice)) as tools,
            sending(world, tools, stop, outcome.fail) as outbound,
        ):
            _resume(tools, outbound, outcome, todo, stop)


def send_again(
    world: World, stream: Stream, deliveries: Sequence[Delivery], *, notice: Notice, stop: threading.Event
) -> Outcome:
    """See deliveries through and do nothing else: nothing is scanned. Stops and raises as `run` does."""
    outcome = Outcome(stream)
    with (
        equipped(world, stream, outcome.counting(notice)) as tools,
        sending(world, tools, stop, outcome.fail) as outbound,
    ):
        tools.publisher.agree(stream)
        check(world, tools, stream)
        _resume(tools, outbound, outcome, deliveries, stop)
    end(world, outcome, stop)
    return outcome


def bring_back(world: World, stream: Stream, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], Outcome]:
    """Stage again what deliveries need and was purged. Returns those whose files are all there, and what stopped the
    others."""
    outcome, ready = Outcome(stream), []
    with equipped(world, stream, lambda _: None) as tools:
        tools.publisher.agree(stream)
        for delivery in deliveries:
            with remembered(outcome):
                tools.restage.bring_back(stream, delivery)
                ready.append(delivery)
    return ready, outcome


@dataclass(frozen=True, slots=True)
class Agenda:
    """What a request comes to, written down and checked; nothing of it is done yet.

    cuts:       to do, oldest first: the request's own that are not done, and others that were left open
    done:       the request's own cuts that are done already, by their ids
    deliveries: open from before
    more:       whether cuts are left that were too many
    rest:       of a range that was asked for, what is left of it; None where it was planned whole
    closed:     the request was planned before, and all of its cuts are done
    """

    cuts: tuple[Cut, ...]
    done: tuple[int, ...]
    deliveries: tuple[Delivery, ...]
    more: bool = False
    rest: Range | None = None
    closed: bool = False
    edge: str | None = None


def begun(
    world: World,
    tools: Tools,
    outcome: Outcome,
    request: Request,
    *,
    left: Callable[[Stream], Sequence[Cut]],
    most: int | None = None,
) -> Agenda:
    """Agree, recover, plan and enrol, and check what is to be done against source and destinations.

    left: the open cuts of others that are to be done too
    most: cuts
    """
    stream = outcome.stream
    tools.publisher.agree(stream)
    recover(world, tools, stream)
    resumed = left(stream)
    cuts, found = plan_request(world, stream, request, most=most)
    own = [cut for cut in cuts if cut.state is not CutState.DONE]
    others = [cut for cut in resumed if cut not in own and _ours(world, cut.lane)]
    room = len(others) if most is None else max(0, most - len(own))
    todo = sorted((*own, *others[:room]), key=lambda cut: cut.id)
    deliveries = open_deliveries(world, stream)
    if found is not None:
        outcome.tally = Tally(null_cursors=found.survey.null_cursors)
    edge = None if found is None or found.bound is None else found.kind.format(found.bound)
    tools.notice(Planned(tuple(todo), len(resumed) + len(deliveries), outcome.tally.null_cursors, edge))
    if todo or deliveries:
        drifted(world, tools, outcome, todo)
    cropped = len(cuts) == most if found is None else found.more
    rest = None
    if request.window is not None and cropped:  # of lanes, the others may be at the beginning of the last one's cut
        last = cuts[-1]
        rest = Range(last.range.start if last.lane else last.range.end, request.window.end)
    more = cropped or len(others) > room
    done = tuple(cut.id for cut in cuts if cut not in own)
    return Agenda(tuple(todo), done, tuple(deliveries), more, rest, found is None and not own, edge)


def _ours(world: World, lane: str) -> bool:
    """Whether a lane is this process's to work on."""
    return not isinstance(world.source, OfLanes) or world.source.holds(lane)


def check(world: World, tools: Tools, stream: Stream) -> None:
    """Ask every destination whether it takes what is staged. Where one of several does not, it is left alone, and
    the others go on. Raises Misconfigured, Retryable where none takes it."""
    columns = tools.stage.shape(stream).staged
    errors = tools.checks.ask(
        {
            one.name: partial(one.check, stream.name, columns)
            for one in world.destinations
            if one.name in tools.confirmers
        }
    )
    worst = Outcome(stream, errors=errors).worst()
    if worst is not None:
        for error in errors:
            if error is not worst:
                tools.notice(Warned(str(error)))
        raise worst


def _resume(
    tools: Tools,
    outbound: Mapping[str, Outbound],
    outcome: Outcome,
    deliveries: Sequence[Delivery],
    stop: threading.Event,
) -> None:
    """Go on with deliveries; what of them was purged is staged again, or the delivery stays as it is."""
    for delivery in deliveries:
        if stop.is_set():
            break
        if delivery.destination not in outbound:
            continue
        try:
            tools.restage.bring_back(outcome.stream, delivery)
        except TidepostError as error:
            outcome.fail(delivery.destination, tools.named(delivery.destination, error))
        else:
            outbound[delivery.destination].add(delivery)


def end(world: World, outcome: Outcome, stop: threading.Event) -> None:
    """What closes a run, once nothing is on its way."""
    stream = outcome.stream
    outcome.stopped = stop.is_set()
    if world.job.mapping.batch_id is not None and not outcome.stopped:
        silent = world.silent
        for destination in world.destinations:
            if destination.name in silent or destination.name in outcome.failed:
                continue
            with remembered(outcome):
                close_batches(stream, destination, world.ledger, world.records)
    with remembered(outcome):
        _mirror(world, stream)
    with remembered(outcome):
        world.ledger.reports.ran(stream)
        outcome.stream = world.ledger.plans.find(stream.job, stream.name) or stream


def _mirror(world: World, stream: Stream) -> None:
    """Tell a source of lanes how far each has arrived wherever the job sends to. Who is paused is not waited for;
    while all are, nothing arrives, and nothing is told."""
    if not isinstance(world.source, OfLanes):
        return
    paused = world.ledger.deliveries.paused(stream.job)
    names = [destination.name for destination in world.destinations if destination.name not in paused]
    if names:
        start = start_of(world.job, world.source.cursor())
        world.source.mirror(lane_marks(world.ledger, stream, names, start))


def drifted(world: World, tools: Tools, outcome: Outcome, cuts: Sequence[Cut]) -> None:
    """Check what cuts read and what destinations take; tell what changed of the source's columns, and remember them,
    so that it is told once. Raises Misconfigured, Retryable."""
    stream = outcome.stream
    changes = tools.stage.drifted(stream, cuts)
    check(world, tools, stream)
    for text in changes:
        tools.notice(Warned(text))
    columns = world.source.columns()
    if columns != stream.columns:
        world.ledger.plans.know(stream, columns)


def take(world: World, tools: Tools, outcome: Outcome, cut: Cut) -> tuple[Delivery, ...]:
    """Stage and publish one cut; returns the deliveries that it created. Raises HeldElsewhere where another process
    works on it, and what staging raises."""
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
        if not _ours(world, cut.lane):
            raise LeaseLost(f"{cut.lane} went to another process while cut {cut.id} was staged")
        done = tools.publisher.publish(tools.stage, lease, fresh, cut, staged)
    give_back()
    late = late_warning(done.tally.late, world.job.cursor.lookback)
    if late is not None:
        tools.notice(Warned(late))
    outcome.cuts += 1
    outcome.tally = outcome.tally.plus(done.tally)
    if done.slice is not None:
        outcome.slices += 1
        outcome.size += done.slice.size
    tools.notice(CutStaged(cut, done.tally, done.slice, time.monotonic() - began))
    return done.deliveries


@contextmanager
def remembered(outcome: Outcome) -> Iterator[None]:
    """Let an error of a closing step be one of the run's, for nothing depends on it."""
    try:
        yield
    except TidepostError as error:
        outcome.errors.append(error)


def recover(world: World, tools: Tools, stream: Stream) -> None:
    """Finish the slice whose publisher died, and clean up behind cuts that are done; what lives is left alone."""
    with suppress(HeldElsewhere):
        tools.publisher.recover(stream)
    for cut in world.staging.leftovers(stream):
        if world.ledger.plans.cut(stream, cut).state is CutState.DONE:
            with suppress(HeldElsewhere), tools.keeper.holding("cut", cut):  # it may be staged again just now
                world.staging.clear(stream, cut)


def open_deliveries(world: World, stream: Stream) -> list[Delivery]:
    """Everything that is still to arrive somewhere and may go, a destination that joined later included; nothing of
    a silent one."""
    found: list[Delivery] = []
    silent = world.silent
    for destination in world.destinations:
        world.ledger.deliveries.enroll(stream, destination.name)
        if destination.name not in silent:
            found += world.ledger.deliveries.open(stream, destination.name)
    if isinstance(world.source, OfLanes):
        found = [one for one in found if _ours(world, world.ledger.deliveries.contents(one)[0].lane)]
    return in_turn(world.ledger, world.records, stream, found)
