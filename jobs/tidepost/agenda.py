"""What a request comes to: agreed with the staging, recovered, planned and checked; nothing of it is done yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from tidepost.errors import HeldElsewhere
from tidepost.events import Notice, Planned, Warned
from tidepost.labels.turns import in_turn
from tidepost.model import Cut, CutState, Delivery, Request, Stream, Tally
from tidepost.outcome import Outcome
from tidepost.planning.prospect import plan_request
from tidepost.ports import OfLanes
from tidepost.ranges import Range
from tidepost.tools import Tools
from tidepost.world import World


def registered(world: World) -> Stream:
    """The job's stream, registered at first sight. Raises Misconfigured where what may not change has changed."""
    cursor = f"{world.job.cursor.column} ({world.source.cursor().type})"
    # Labels that come by files alone may get a source later, which then says what its cursor is.
    identity = world.identity if world.job.source.nowhere else {**world.identity, "cursor": cursor}
    return world.ledger.plans.stream(world.job.name, world.job.stream, identity)


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


@dataclass(frozen=True, slots=True)
class Agenda:
    """What a request comes to, written down and checked; nothing of it is done yet.

    cuts:       to do, oldest first: the request's own that are not done, and others that were left open
    done:       the request's own cuts that are done already, by their ids
    deliveries: open from before
    more:       whether cuts are left that were too many
    rest:       of a range that was asked for, what is left of it; None where it was planned whole
    closed:     the request was planned before, and all of its cuts are done
    edge:       the end of what may be read now, as text; None where nothing is visible, or it was planned before
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
    others = [cut for cut in resumed if cut not in own and ours(world, cut.lane)]
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


def ours(world: World, lane: str) -> bool:
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
        found = [one for one in found if ours(world, world.ledger.deliveries.contents(one)[0].lane)]
    return in_turn(world.ledger, world.records, stream, found)
