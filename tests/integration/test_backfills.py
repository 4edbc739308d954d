"""Backfills beside live runs: whatever ranges overlap, meet, or were left half-done, only what is missing is sent.

The platform keeps both copies of a repeat, so a row that is sent twice shows."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from tests.world import START, World, after, between, eventually, rows

HARMLESS = {"HeldElsewhere", "LeaseLost"}
ROWS, EVERY = 120, 50.0
END = after(seconds=ROWS * EVERY)


def third(number: int) -> float:
    """Seconds from the start to the end of that third."""
    return ROWS * EVERY * number / 3


@pytest.fixture
def world(world: World) -> World:
    """Some rows have arrived; late ones have appeared since, all over the range."""
    world.define(limits={"cut_rows": 20})
    world.log("monday", rows(ROWS, every=EVERY)[::2])
    assert not world.run().errors
    world.log("monday", rows(ROWS, every=EVERY))
    world.log("tuesday", rows(20, first=1000, at=after(hours=3)))
    return world


def closed(world: World) -> bool:
    return not world.run().errors and set(world.states()) == {"closed"}


@pytest.mark.parametrize(
    "ranges",
    [
        [(0, third(2)), (third(1), third(3))],
        [(0, third(1)), (third(1), third(2)), (third(2), third(3))],
        [(0, third(3)), (0, third(3))],
    ],
    ids=["overlapping", "adjacent", "the same"],
)
def test_backfills_of_ranges_beside_a_live_run_send_only_what_is_missing(
    world: World, ranges: list[tuple[float, float]]
) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(world.spawned("live"))]
        for number, (start, end) in enumerate(ranges):
            window = between(after(seconds=start), after(seconds=end))
            processes.append(stack.enter_context(world.spawned(f"backfill {number}", window)))
        found = [process.told() for process in processes]
    assert {error[0] for one in found for error in one["errors"]} <= HARMLESS, found
    assert eventually(lambda: closed(world), seconds=60)
    assert sum(one["published"] for one in found) == ROWS // 2 + 20
    assert world.everything_arrived_once(ROWS + 20)


def test_a_backfill_that_was_killed_half_done_is_finished_by_others(world: World) -> None:
    with world.spawned("killed", between(START, END)) as process:
        before = len(world.files())
        eventually(lambda: len(world.files()) > before + 1)
        process.kill()
    with ExitStack() as stack:
        again = [
            stack.enter_context(world.spawned("live")),
            stack.enter_context(world.spawned("again", between(after(seconds=third(1)), END))),
        ]
        found = [process.told() for process in again]
    assert {error[0] for one in found for error in one["errors"]} <= HARMLESS, found
    assert eventually(lambda: closed(world), seconds=60)
    assert world.everything_arrived_once(ROWS + 20)
