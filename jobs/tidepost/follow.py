"""Following lanes: micro-batch after micro-batch, each a run of its own that ends with everything delivered.

A batch begins when enough rows wait, or when the first of them has waited long enough. While anything of an earlier
batch is still to arrive, none begins: what is not taken waits at the source, whose marks move only with what arrived.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tidepost.errors import HeldElsewhere, Misconfigured, Outdated, Refused, Retryable, TidepostError, Unknown
from tidepost.events import Notice, Warned
from tidepost.model import Request, ScanKind, Stream
from tidepost.plan import pending
from tidepost.ports import OfLanes
from tidepost.prospect import start_of
from tidepost.run import Outcome, open_deliveries, registered, run, send_again
from tidepost.world import World

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts while something does not answer, the first and at most."""
PASSING: Final = (Retryable, Unknown, HeldElsewhere, Outdated, Refused)
"""What does not end the following: it passes, or waits for a person while the rest goes on."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When a batch begins: at so many rows, or so many seconds after the first of them was seen."""

    rows: int
    seconds: float

    @property
    def look(self) -> float:
        """Seconds between two looks at what waits."""
        return min(0.5, self.seconds / 4)


def follow(
    world: World, pace: Pace, *, notice: Notice, stop: threading.Event, told: Callable[[Outcome], None]
) -> None:
    """Upload the lanes that are ours until `stop`, which ends it in order. `told` hears of every batch, and of every
    attempt to bring one to its end. Raises Misconfigured, and what is no error of ours."""
    if not isinstance(world.source, OfLanes):
        raise Misconfigured(
            f"{world.job.name}: only a source of Kafka can be followed",
            hint=f"Upload what is new, as often as you like:  tidepost run {world.job.name}",
        )
    pause = FIRST_PAUSE
    while not stop.is_set():
        try:
            outcome = _next(world, world.source, pace, notice, stop)
        except PASSING as error:
            notice(Warned(error.message))
            passing = True
        else:
            if outcome is not None:
                told(outcome)
            passing = outcome is not None and _checked(outcome)
        if passing:
            world.wait(stop, pause)
        pause = min(LONGEST_PAUSE, pause * 2) if passing else FIRST_PAUSE


def _next(world: World, source: OfLanes, pace: Pace, notice: Notice, stop: threading.Event) -> Outcome | None:
    """Bring what is open to its end, or else take the next batch; None where `stop` came first."""
    stream = registered(world)
    left = open_deliveries(world, stream)
    if left:
        return send_again(world, stream, left, notice=notice, stop=stop)
    lanes = _gathered(world, source, stream, pace, stop)
    if not lanes:
        return None
    limits = world.job.limits.model_copy(update={"cut_rows": max(1, pace.rows // lanes)})
    batch = replace(world, job=world.job.model_copy(update={"limits": limits}))
    request = Request(f"stream/{uuid.uuid4()}", ScanKind.INCREMENTAL)
    return run(batch, request, notice=notice, stop=stop, most=lanes)


def _gathered(world: World, source: OfLanes, stream: Stream, pace: Pace, stop: threading.Event) -> int:
    """Wait until a batch is due; how many lanes have rows for it, 0 where `stop` came first."""
    start, since = start_of(world.job, world.source.cursor()), None
    anything = Request("", ScanKind.INCREMENTAL)
    while not stop.is_set():
        coverage, waiting = world.ledger.plans.coverage(stream), {}
        for lane, has in source.lanes().items():
            todo = pending(anything, start=max(start, 0), limit=has.end, coverage=coverage, lane=lane)
            waiting[lane] = sum(one.end - one.start for one in todo)
        lanes, rows = sum(count > 0 for count in waiting.values()), sum(waiting.values())
        left = {cut.lane for cut in world.ledger.plans.open_cuts(stream) if source.holds(cut.lane)}
        if left:
            return len(left) + lanes  # somebody began them and is gone
        if rows and since is None:
            since = world.now()
        if rows >= pace.rows or (since is not None and world.now() - since >= pace.seconds):
            return lanes
        world.wait(stop, pace.look)
    return 0


def _checked(outcome: Outcome) -> bool:
    """Whether what went wrong passes. Raises what does not."""
    for error in outcome.errors:
        if not isinstance(error, TidepostError) or isinstance(error, Misconfigured):
            raise error
    return bool(outcome.errors)
