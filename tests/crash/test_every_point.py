"""A run killed at every effect: the next run ends as if nothing had happened. A sample whenever the tests run; with
TIDEPOST_TEST_EVERY_POINT=1, every effect."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from tests.crash.child import Job, work
from tests.crash.fuse import Point
from tests.crash.whole import only_whole_files_are_visible
from tests.world import Platform, World, after, rows

EVERY = 1 if os.environ.get("TIDEPOST_TEST_EVERY_POINT") == "1" else 4
CUTS = 2
ROWS = 12
SECONDS = 60.0
AT_ONCE = 3


class Trial:
    """A world with three cuts to upload, and runs of it in child processes.

    project: what its `tidepost.yaml` says beside the version, such as where its ledger is
    env:     what its runs find in their environment beside what every world's do
    """

    def __init__(
        self,
        context: ForkServerContext,
        root: Path,
        platform: Platform,
        *,
        env: Mapping[str, str] | None = None,
        **project: str,
    ) -> None:
        self.context = context
        self.env = dict(env or {})
        self.world = World.make(root, platform)
        (root / "tidepost.yaml").write_text(json.dumps({"version": 1, **project}))
        self.world.define(limits={"cut_rows": ROWS}, destination={"loading": "1s", "poll": "1s"})
        for cut in range(CUTS):
            at = after(hours=cut)
            self.world.log(f"hour-{cut}", rows(ROWS, first=cut * ROWS, at=at))

    def run(
        self, key: str, at: Point | None = None, *, server: int | None = None, lives: bool = False
    ) -> tuple[int | None, list[str]]:
        """A run's exit code (−9: killed) and the points that it passed; `at` and what follows are as in `Job`."""
        told = self.context.Queue()
        now = self.world.now.timestamp()
        job = Job(self.world.root, {**self.world.env, **self.env}, now, key, at, server, lives)
        child = self.context.Process(target=work, args=(job, told))
        child.start()
        passed: list[str] = told.get(timeout=SECONDS) if at is None else []
        child.join(SECONDS)
        code = child.exitcode
        child.close()
        told.close()
        return code, passed

    def everything_arrived_once(self, count: int) -> None:
        only_whole_files_are_visible(self.world)
        assert self.world.everything_arrived_once(count)
        summary = self.world.summary()
        assert (summary.rows, summary.open_cuts, summary.publishing) == (count, 0, None)
        assert not list(self.world.area.leftovers(self.world.stream()))


@pytest.fixture
def trials(children: ForkServerContext, tmp_path: Path, platform: Platform) -> Callable[[str], Trial]:
    return lambda name: Trial(children, tmp_path / name, platform)


def survives(trial: Trial, at: int) -> bool:
    """Kill a run at a point, let the source grow, run again. True where the point was reached."""
    code, _ = trial.run("first", at)
    assert code in (-9, 0)
    trial.world.log("later", rows(ROWS, first=CUTS * ROWS, at=after(hours=CUTS)))
    assert trial.run("second")[0] == 0
    trial.everything_arrived_once(CUTS * ROWS + ROWS)
    return code == -9


@pytest.mark.timeout(900)
def test_a_run_killed_at_any_effect_is_finished_by_the_next(trials: Callable[[str], Trial]) -> None:
    code, points = trials("whole").run("first")
    assert code == 0
    assert {"before commit", "before fsync", "before rename", "before last bytes", "after send"} <= set(points)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {
            at: pool.submit(lambda at: survives(trials(f"at-{at}"), at), at)
            for at in range(1, len(points) + 1, EVERY)
        }
    lost = {at: error for at, future in futures.items() if (error := future.exception()) is not None}
    assert not lost, "\n".join(f"{at} {points[at - 1]}: {error!r}"[:400] for at, error in lost.items())
    assert sum(future.result() for future in futures.values()) >= len(futures) * 0.9
