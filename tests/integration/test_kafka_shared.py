"""Partitions that move between processes while one of them works on a cut: only the new owner publishes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.kafka import Kafka, Reading, message
from tests.world import World, eventually, rows, said

from tidepost import run as engine
from tidepost.errors import LeaseLost
from tidepost.model import Cut
from tidepost.outcome import Outcome
from tidepost.ports import OfLanes, Source
from tidepost.publishing.stage import Stage
from tidepost.sources.kafka.group import Named
from tidepost.world import World as Wired

ROWS = 10
"""In each partition."""


def feed(kafka: Kafka, topic: str) -> None:
    """Messages for two partitions."""
    for partition in (0, 1):
        kafka.send(topic, [message(one) for one in rows(ROWS, first=ROWS * partition, every=1)], partition=partition)


def once_staged(monkeypatch: pytest.MonkeyPatch, act: Callable[[Cut], object]) -> None:
    """Do something between the staging of a cut and what comes after it."""
    plain = Stage.stage

    def stage(self: Stage, lease: Any, stream: Any, cut: Cut, **more: Any) -> Any:
        staged = plain(self, lease, stream, cut, **more)
        act(cut)
        return staged

    monkeypatch.setattr(Stage, "stage", stage)


def run(world: World, wired: Wired, source: Source) -> Outcome:
    """A run with the lanes of a source."""
    return engine.run(replace(wired, source=source), world.ask(), notice=lambda _: None, stop=threading.Event())


def lanes(world: World) -> dict[str, list[tuple[int, int]]]:
    """lane → what counts as scanned"""
    return {lane: [(one.start, one.end) for one in ranges] for lane, ranges in world.summary().scanned.items()}


def test_who_loses_a_partition_while_it_stages_a_cut_of_it_neither_publishes_nor_commits_it(
    world: World, kafka: Kafka, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = reading(partitions=2)
    feed(kafka, topic)
    mine = {0, 1}
    monkeypatch.setattr(Named, "partitions", lambda _: frozenset(mine))
    with monkeypatch.context() as patched, world.wired() as wired:
        once_staged(patched, lambda cut: mine.discard(1) if cut.lane == f"{topic}/1" else None)
        assert isinstance(wired.source, OfLanes)
        with wired.source.share([0, 1]) as source:
            outcome = run(world, wired, source)
            assert isinstance(outcome.worst(), LeaseLost)
            assert f"{topic}/1 went to another process while cut 2 was staged" in said(outcome)
            assert outcome.tally.published == ROWS
            assert run(world, wired, source).cuts == 0  # it leaves what was planned to the new owner
    assert lanes(world) == {f"{topic}/0": [(0, ROWS)]}
    assert (kafka.committed(topic), kafka.committed(topic, 1) < 0) == (ROWS, True)
    assert world.everything_arrived_once(ROWS)
    mine.add(1)
    with world.wired() as wired:
        assert isinstance(wired.source, OfLanes)
        with wired.source.share([0, 1]) as source:
            assert run(world, wired, source).tally.published == ROWS
    assert kafka.committed(topic, 1) == ROWS
    assert world.everything_arrived_once(2 * ROWS)


def test_a_partition_that_the_group_moves_in_mid_batch_is_published_by_its_new_owner_alone(
    world: World, groups: Kafka, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"}
    topic = reading(partitions=2, on=groups, options=quick)
    feed(groups, topic)
    names = [f"{topic}/0", f"{topic}/1"]

    def held(source: object) -> list[str]:
        assert isinstance(source, OfLanes)
        return [name for name in names if source.holds(name)]

    with ExitStack() as stack:
        wired, one = stack.enter_context(member(world))
        eventually(lambda: held(one) == names, seconds=60)
        joined: list[tuple[Wired, Source]] = []

        def join(_: Cut) -> None:
            """A second member comes, while the first one stages."""
            if not joined:
                joined.append(stack.enter_context(member(world)))
                eventually(lambda: len(held(one)) == len(held(joined[0][1])) == 1, seconds=60)

        once_staged(monkeypatch, join)
        outcome = run(world, wired, one)
        wired_other, other = joined[0]
        (moved,), (kept,) = held(other), held(one)
        assert f"{moved} went to another process" in said(outcome)
        assert outcome.tally.published == ROWS
        assert lanes(world) == {kept: [(0, ROWS)]}
        eventually(lambda: committed(groups, kept) == ROWS)
        assert committed(groups, moved) < 0
        assert run(world, wired_other, other).tally.published == ROWS
        eventually(lambda: committed(groups, moved) == ROWS)
    assert world.everything_arrived_once(2 * ROWS)


@contextmanager
def member(world: World) -> Iterator[tuple[Wired, Source]]:
    """A world of the engine whose source is a member of the group."""
    with world.wired() as wired:
        assert isinstance(wired.source, OfLanes)
        with wired.source.share(None) as source:
            yield wired, source


def committed(kafka: Kafka, lane: str) -> int:
    topic, _, partition = lane.rpartition("/")
    return kafka.committed(topic, int(partition))
