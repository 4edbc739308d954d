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
from collections.abc import Mapping, Sequence

from tidepost.agenda import begun, check, open_deliveries, ours, registered, warn
from tidepost.delivery.batches import close_batches
from tidepost.delivery.outbound import Outbound
from tidepost.errors import HeldElsewhere, LeaseLost, TidepostError
from tidepost.events import CutStaged, Notice, Warned
from tidepost.labels.turns import in_turn
from tidepost.memory import give_back
from tidepost.model import Cut, CutState, Delivery, Request, Stream, StreamName
from tidepost.outcome import Outcome, remembered
from tidepost.planning.lanes import lane_marks
from tidepost.planning.lookback import late_warning
from tidepost.planning.prospect import start_of
from tidepost.ports import OfLanes
from tidepost.tools import Tools, equipped, sending
from tidepost.world import World


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
        if not ours(world, cut.lane):
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
