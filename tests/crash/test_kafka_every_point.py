"""A run over a topic killed at its effects: the next run ends as if nothing had happened."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from tests.crash.test_every_point import Trial
from tests.kafka import Kafka, message, read_topic
from tests.world import Platform, World, rows

from tidepost.model import StreamName
from tidepost.planning.lanes import lane_marks

AT_ONCE = 3
SAMPLE = 1 if os.environ.get("TIDEPOST_TEST_EVERY_POINT") == "1" else 28
"""Every so-many-th point, unless all are asked for."""
ROWS = 10
"""In a cut."""
FED = (15, 5)
"""Messages in each partition before the first run: three cuts."""
LATER = 5
"""Messages that come before the second run, in the second partition."""


class Topic(Trial):
    """A world whose job reads a topic of two partitions."""

    def __init__(self, context: ForkServerContext, root: Path, platform: Platform, kafka: Kafka) -> None:
        self.context, self.env, self.kafka = context, {}, kafka
        self.world = World.make(root, platform)
        self.topic = read_topic(self.world, kafka, partitions=2)
        self.world.define(limits={"cut_rows": ROWS}, destination={"loading": "1s", "poll": "1s"})
        self.feed(0, FED[0], first=0)
        self.feed(1, FED[1], first=FED[0])

    def feed(self, partition: int, count: int, *, first: int) -> None:
        of = [message(one) for one in rows(count, first=first, every=1)]
        self.kafka.send(self.topic, of, partition=partition)

    def offsets(self) -> tuple[int, ...]:
        """What the group has of each partition, 0 for nothing."""
        return tuple(max(0, self.kafka.committed(self.topic, partition)) for partition in (0, 1))

    def marks(self) -> tuple[int, ...]:
        """How far each partition has arrived."""
        with self.world.ledger() as ledger:
            stream = ledger.plans.find("flights", StreamName.INFERENCES)
            found = {} if stream is None else lane_marks(ledger, stream, ["arthur"], 0)
        return tuple(found.get(f"{self.topic}/{partition}", 0) for partition in (0, 1))

    def survives(self, at: int) -> bool:
        """Kill a run at a point, let the topic grow, run again. True where the point was reached."""
        code, _ = self.run("first", at)
        assert code in (-9, 0)
        ahead = [offset - mark for offset, mark in zip(self.offsets(), self.marks(), strict=True)]
        assert max(ahead) <= 0, ahead
        self.feed(1, LATER, first=sum(FED))
        assert self.run("second")[0] == 0
        self.everything_arrived_once(sum(FED) + LATER)
        assert self.offsets() == self.marks() == (FED[0], FED[1] + LATER)
        return code == -9


@pytest.fixture
def trials(children: ForkServerContext, tmp_path: Path, platform: Platform, kafka: Kafka) -> Callable[[str], Topic]:
    return lambda name: Topic(children, tmp_path / name, platform, kafka)


@pytest.mark.timeout(900)
def test_a_run_over_a_topic_killed_at_any_effect_is_finished_by_the_next(trials: Callable[[str], Topic]) -> None:
    code, points = trials("whole").run("first")
    assert code == 0
    assert points.count("before offsets") == 1
    chosen = sorted({*range(SAMPLE, len(points) + 1, SAMPLE), points.index("before offsets") + 1})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {at: pool.submit(lambda at: trials(f"at-{at}").survives(at), at) for at in chosen}
    lost = {at: error for at, future in futures.items() if (error := future.exception()) is not None}
    assert not lost, "\n".join(f"{at} {points[at - 1]}: {error!r}"[:400] for at, error in lost.items())
    assert sum(future.result() for future in futures.values()) >= len(chosen) * 0.8
