"""A bulk run with labels killed at its effects: the next run ends as if nothing had happened."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from tests.crash.test_every_point import Trial
from tests.integration.test_labels_files import drop, line
from tests.labels import LANDED, label, labels, of_labels, run_both, shown, stream_of_labels, versions_sent
from tests.world import Platform, World, rows

AT_ONCE = 3
SAMPLE = 1 if os.environ.get("TIDEPOST_TEST_EVERY_POINT") == "1" else 50
"""Every so-many-th point, unless all are asked for."""
EXPECTED = {"r000000": 3, "r000001": 2, "r000002": 7, "r000003": 4}


class Labels(Trial):
    """A world in which the next run uploads an inference whose label is held, a label that replaces another, and one
    of a file that was dropped."""

    def __init__(self, context: ForkServerContext, root: Path, platform: Platform) -> None:
        self.context, self.env = context, {}
        self.world = of_labels(World.make(root, platform), files="drops/*.csv")
        (root / "drops").mkdir()
        self.world.define(destination={"loading": "1s", "poll": "1s"})
        self.world.log("first", rows(3))
        labels(self.world, "first", [*(label(n, 1) for n in range(3)), label(3, 4)])
        run_both(self.world)
        self.world.log("second", rows(1, first=3, at=LANDED))
        labels(self.world, "second", [label(n, 2, known=LANDED + timedelta(hours=1)) for n in range(2)])
        drop(self.world, "week.csv", line(2, 7))

    def survives(self, at: int) -> bool:
        """Kill a run at a point, let a label change once more, run again. True where the point was reached."""
        code, _ = self.run("first", at)
        assert code in (-9, 0)
        labels(self.world, "third", [label(0, 3, known=LANDED + timedelta(hours=2))])
        assert self.run("second")[0] == 0
        assert shown(self.world) == EXPECTED
        sent = versions_sent(self.world)
        assert len(sent) == len(set(sent)), sent
        with self.world.ledger() as ledger:
            stream = stream_of_labels(self.world)
            assert not ledger.deliveries.open(stream, "arthur")
            assert not ledger.deliveries.held(stream, "arthur")
            assert not ledger.plans.open_cuts(stream)
        return code == -9


@pytest.fixture
def trials(children: ForkServerContext, tmp_path: Path, platform: Platform) -> Callable[[str], Labels]:
    return lambda name: Labels(children, tmp_path / name, platform)


@pytest.mark.timeout(900)
def test_a_run_with_labels_killed_at_any_effect_is_finished_by_the_next(trials: Callable[[str], Labels]) -> None:
    code, points = trials("whole").run("first")
    assert code == 0
    chosen = range(SAMPLE, len(points) + 1, SAMPLE)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {at: pool.submit(lambda at: trials(f"at-{at}").survives(at), at) for at in chosen}
    lost = {at: error for at, future in futures.items() if (error := future.exception()) is not None}
    assert not lost, "\n".join(f"{at} {points[at - 1]}: {error!r}"[:400] for at, error in lost.items())
    assert sum(future.result() for future in futures.values()) >= len(chosen) * 0.8
