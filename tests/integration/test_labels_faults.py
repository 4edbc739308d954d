"""Labels over a network that does everything wrong: each arrives once, and no older one overwrites a newer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from tests.labels import (
    LANDED,
    label,
    labels,
    of_labels,
    rejected_labels,
    run_both,
    run_labels,
    shown,
    stream_of_labels,
    versions_sent,
)
from tests.simulated import SimulatedTime
from tests.world import NOW, START, Platform, World, after, rows, said

from tidepost.errors import Retryable
from tidepost.sandbox.process import SandboxProcess
from tidepost.sandbox.settings import Fault

ROWS = 40
FAULTS: tuple[tuple[Fault, ...], ...] = (
    (Fault("fail", kind="file", count=1), Fault("throttle", kind="file", retry_after=0, count=1)),
    (Fault("fail_after", kind="file", status=502, count=1), Fault("fail", kind="query", count=2)),
    (Fault("lose_reply", kind="file", count=1), Fault("drop", kind="file", rows=0.5, count=1)),
    (
        Fault("reset", kind="file", after_bytes=100, count=1),
        Fault("reset", kind="file", after_bytes=10_000_000, count=1),
    ),
    (Fault("delay", kind="file", seconds=1.2, count=1),),
    (
        Fault("drop", kind="file", rows=1.0, count=1),
        Fault("drop", kind="file", rows=0.5, count=1),
        Fault("lose_reply", kind="rows", count=1),
        Fault("fail", kind="rows", count=1),
    ),
)
"""What goes wrong in a round; a request that is delayed is given up before it is answered, and lands after that."""


@pytest.fixture
def labelled(world: World) -> World:
    """A world with forty inferences, which are uploaded, and whose labels go in two slices."""
    world.time = SimulatedTime(NOW, moment=0.05)
    world.define(destination={"retries": 0, "loading": "10s", "poll": "1s", "timeout": "1s"})
    of_labels(world, limits={"cut_rows": ROWS // 2})
    world.log("monday", rows(ROWS))
    world.run()
    return world


def round_of(world: World, number: int, of: Sequence[int]) -> dict[str, int]:
    """Let some inferences get another label, each as it became known; returns what is to be shown of them."""
    found = {n: 1000 * number + n for n in of}
    at = LANDED + timedelta(minutes=number)
    labels(world, f"{number:03d}", [label(n, late, known=at + timedelta(seconds=n)) for n, late in found.items()])
    return {f"r{n:06d}": late for n, late in found.items()}


def unsettled(world: World) -> int:
    with world.ledger() as ledger:
        stream = stream_of_labels(world)
        return len([*ledger.deliveries.open(stream, "arthur"), *ledger.deliveries.held(stream, "arthur")])


def until_closed(world: World, *, runs: int = 12) -> None:
    """Run again and again, as a schedule does, until nothing is open."""
    for _ in range(runs):
        outcome = run_labels(world)
        if not outcome.errors and not unsettled(world):
            return
    raise AssertionError(f"still {unsettled(world)} open after {runs} runs: {said(outcome)}")


def each_was_published_once(world: World, number: int) -> bool:
    sent = versions_sent(world)
    assert (len(sent), len(set(sent))) == (number, number)
    assert rejected_labels(world) == {}
    return True


def test_whatever_goes_wrong_with_labels_the_newest_stands_and_each_is_published_once(labelled: World) -> None:
    expected, published = dict[str, int](), 0
    for number, faults in enumerate(FAULTS):
        labelled.platform.process.configure(faults=[])
        for fault in faults:
            labelled.platform.process.fault(fault)
        expected |= round_of(labelled, 2 * number, range(ROWS))
        run_labels(labelled)
        newer = round_of(labelled, 2 * number + 1, range(0, ROWS, 3))
        expected |= newer
        published += ROWS + len(newer)
        until_closed(labelled)
        assert shown(labelled) == expected, faults
    assert each_was_published_once(labelled, published)


def test_everything_at_once_at_a_fifth_of_all_requests_with_labels(world: World) -> None:
    world.time = SimulatedTime(NOW, moment=0.05)
    world.define(destination={"retries": 1, "loading": "4s", "poll": "1s", "connections": 2})
    of_labels(world, limits={"cut_rows": 25})
    world.log("monday", rows(ROWS))
    world.run()
    world.platform.process.configure(
        seed=3,
        faults=[
            {"fault": "lose_reply", "kind": "file", "share": 0.2},
            {"fault": "fail_after", "kind": "file", "share": 0.2, "status": 500},
            {"fault": "fail", "kind": "file", "share": 0.2},
            {"fault": "reset", "kind": "file", "share": 0.2, "after_bytes": 500},
            {"fault": "throttle", "kind": "file", "share": 0.2, "retry_after": 0},
            {"fault": "drop", "kind": "file", "share": 0.2, "rows": 0.3},
            {"fault": "lose_reply", "kind": "rows", "share": 0.2},
            {"fault": "fail_after", "kind": "rows", "share": 0.2},
            {"fault": "fail", "kind": "query", "share": 0.05},
        ],
    )
    expected = dict[str, int]()
    for number in range(4):
        expected |= round_of(world, number, range(number, ROWS))
        run_labels(world)
    until_closed(world, runs=20)
    world.platform.process.configure(faults=[])
    assert shown(world) == expected
    assert each_was_published_once(world, sum(ROWS - number for number in range(4)))


def test_an_hour_without_the_platform_costs_labels_nothing_but_time(tmp_path: Path) -> None:
    """Labels come due, change and change back while it is down, and inferences whose labels wait are made."""
    time = SimulatedTime(START)
    with SandboxProcess(tmp_path / "platform") as process:
        world = World.make(tmp_path / "project", Platform(process))
        world.time = time
        world.define(destination={"retries": 1, "loading": "10m", "poll": "30s"}, cursor={"settle": "0s"})
        of_labels(world, cursor={"column": "known_at", "start": "2024-05-01T00:00:00Z", "settle": "0s"})
        expected = dict[str, int]()
        errors = list[type[BaseException]]()

        def tick(number: int) -> None:
            """Ten minutes, in which five inferences are made, and the newest and the first ones get labels."""
            at = after(seconds=time.now())
            world.log(f"{number:03d}", rows(5, first=5 * number, at=at, every=1))
            due = {**dict.fromkeys(range(2), number % 2), **dict.fromkeys(range(5 * number, 5 * number + 4), number)}
            known = [label(n, late, known=at + timedelta(seconds=n), landed_at=at) for n, late in due.items()]
            labels(world, f"{number:03d}", known)
            expected.update({f"r{n:06d}": late for n, late in due.items()})
            time.sleep(600)
            try:
                errors.extend(type(error) for one in run_both(world) if (error := one.worst()) is not None)
            except Retryable as error:
                errors.append(type(error))

        for number in range(2):
            tick(number)
        assert (errors, shown(world)) == ([], expected)
        process.kill()
        for number in range(2, 8):
            tick(number)
        assert (len(errors) >= 6, set(errors)) == (True, {Retryable})
        process.start()
        time.sleep(3600)
        assert [said(one) for one in run_both(world)] == ["", ""]
        assert shown(world) == expected
        assert (unsettled(world), rejected_labels(world)) == (0, {})
        sent = versions_sent(world)
        assert len(sent) == len(set(sent))
        stats = world.stats()
        assert (stats["rows"], stats["doubled"]) == (40, 0)
