"""Following lanes: micro-batch after micro-batch, each a run of its own that ends with everything delivered.

A batch begins when enough rows wait, or when the first of them has waited long enough, and once one of the
destinations that are sent to has everything of earlier batches: what none of them has room for waits at the source.
A destination that fails rests for a while, longer each time, and the others go on without it. What it missed is
collected in the staging, and made up for in small portions between the others' batches.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final

from tidepost.agenda import open_deliveries, registered
from tidepost.errors import HeldElsewhere, Misconfigured, Outdated, Refused, Retryable, TidepostError, Unknown
from tidepost.events import Following, Notice, Warned
from tidepost.model import Delivery, Request, ScanKind, Stream
from tidepost.outcome import Outcome
from tidepost.planning.plan import pending
from tidepost.planning.prospect import start_of
from tidepost.ports import OfLanes
from tidepost.rests import FIRST_PAUSE, LONGEST_PAUSE, Rests
from tidepost.run import run, send_again
from tidepost.world import World

PORTION: Final = 64
"""Deliveries that are made up for at one destination before the others may have a batch again."""
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
    attempt to bring one to its end. Raises Misconfigured, and what is no error of ours; of one destination, only
    where no other one is sent to."""
    if not isinstance(world.source, OfLanes):
        raise Misconfigured(
            f"{world.job.name}: only a source of Kafka can be followed",
            hint=f"Upload what is new, as often as you like:  tidepost run {world.job.name}",
        )
    follower = Follower(world, world.source, pace, notice, stop, told)
    pause = FIRST_PAUSE
    while not stop.is_set():
        try:
            passing = follower.step()
        except PASSING as error:
            notice(Warned(error.message))
            passing = True
        if passing:
            world.wait(stop, pause)
        pause = min(LONGEST_PAUSE, pause * 2) if passing else FIRST_PAUSE


@dataclass(slots=True)
class Follower:
    """What is remembered from one step to the next.

    since:   when the first of the rows that wait for a batch was seen
    made_up: whether the last step was one that made up for something
    tried:   deliveries that were made up for, so that one that cannot go does not keep the others
    lanes:   those that were ours at the last look; None before it
    """

    world: World
    source: OfLanes
    pace: Pace
    notice: Notice
    stop: threading.Event
    told: Callable[[Outcome], None]
    rests: Rests = field(default_factory=Rests)
    since: float | None = None
    made_up: bool = False
    tried: set[int] = field(default_factory=set)
    lanes: tuple[str, ...] | None = None

    def step(self) -> bool:
        """Make up for what is open, or take the next batch. Whether something went wrong that is not one
        destination's, and passes. Raises what does not pass."""
        now = self.world.now()
        world = replace(self.world, resting=self.rests.resting(now))
        awake = {one.name for one in world.destinations} - world.silent
        if not awake and world.resting:
            world.wait(self.stop, self.rests.until(now) - now)
            return False
        stream = registered(world)
        left = open_deliveries(world, stream)
        behind = {one.destination for one in left}
        if not left:
            self.tried.clear()
        self.made_up = bool(left) and (behind == awake or not self.made_up)
        if self.made_up:
            some = self._portion(left)
            outcome = send_again(world, stream, some, notice=self.notice, stop=self.stop)
            return self._judged(outcome, {one.destination for one in some})
        lanes = self._gathered(stream, at_once=bool(left))
        if not lanes:
            return False
        self.since = None
        limits = world.job.limits.model_copy(update={"cut_rows": max(1, self.pace.rows // lanes)})
        job = world.job.model_copy(update={"limits": limits})
        batch = replace(world, job=job, resting=world.resting | behind)
        request = Request(f"stream/{uuid.uuid4()}", ScanKind.INCREMENTAL)
        outcome = run(batch, request, notice=self.notice, stop=self.stop, most=lanes)
        return self._judged(outcome, awake - behind)

    def _portion(self, left: Sequence[Delivery]) -> list[Delivery]:
        """Some of what is open at each destination; all of it in turn."""
        fresh = [one for one in left if one.id not in self.tried]
        if not fresh:
            self.tried.clear()
        by_destination = groupby(sorted(fresh or left, key=lambda one: one.destination), lambda one: one.destination)
        some = [one for _, theirs in by_destination for one in list(theirs)[:PORTION]]
        self.tried.update(one.id for one in some)
        return some

    def _gathered(self, stream: Stream, *, at_once: bool) -> int:
        """Wait until a batch is due; how many lanes have rows for it, 0 where `stop` came first, or the end of a
        destination's rest. `at_once`: whatever waits now is due."""
        world = self.world
        start, until = start_of(world.job, world.source.cursor()), self.rests.until(world.now())
        anything = Request("", ScanKind.INCREMENTAL)
        while not self.stop.is_set():
            coverage, waiting, ours = world.ledger.plans.coverage(stream), {}, self.source.lanes()
            if tuple(ours) != self.lanes:
                self.lanes = tuple(ours)
                self.notice(Following(self.lanes))
            for lane, has in ours.items():
                todo = pending(anything, start=max(start, 0), limit=has.end, coverage=coverage, lane=lane)
                waiting[lane] = sum(one.end - one.start for one in todo)
            lanes, rows = sum(count > 0 for count in waiting.values()), sum(waiting.values())
            left = {cut.lane for cut in world.ledger.plans.open_cuts(stream) if self.source.holds(cut.lane)}
            if left:
                return len(left) + lanes  # somebody began them and is gone
            now = world.now()
            if not rows or self.since is None:  # they may have gone to another process
                self.since = now if rows else None
            waited = 0.0 if self.since is None else now - self.since
            if at_once or rows >= self.pace.rows or waited >= self.pace.seconds:
                return lanes
            if now >= until:
                return 0
            world.wait(self.stop, min(self.pace.look, max(0.0, until - now)))
        return 0

    def _judged(self, outcome: Outcome, tried: Set[str]) -> bool:
        """As `step`, of what became of it; who failed of those that were tried rests."""
        self.told(outcome)
        world, failed = self.world, outcome.failed.keys()
        sent_to = {one.name for one in world.destinations} - world.silent
        theirs = [error for name in failed for error in outcome.failed[name]] if sent_to - failed else []
        for error in outcome.errors:
            if not isinstance(error, TidepostError) or (isinstance(error, Misconfigured) and error not in theirs):
                raise error
        self.rests.learn(tried, failed, world.now())
        return outcome.general
