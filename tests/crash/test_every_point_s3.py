"""A run whose staging is on S3, killed at a sample of its effects: the next run ends as if nothing had happened, and
at no moment is anything but whole files visible. With TIDEPOST_TEST_EVERY_POINT=1, every effect."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from tests.crash.test_every_point import AT_ONCE, Trial, survives
from tests.crash.whole import only_whole_files_are_visible
from tests.s3 import S3Server
from tests.world import Platform, rows

EVERY = 1 if os.environ.get("TIDEPOST_TEST_EVERY_POINT") == "1" else 16


@pytest.fixture
def trials(children: ForkServerContext, tmp_path: Path, platform: Platform, s3: S3Server) -> Callable[[str], Trial]:
    return lambda name: Trial(children, tmp_path / name, platform, env=s3.env, staging=s3.new_place())


@pytest.mark.timeout(900)
def test_a_run_killed_at_any_effect_is_finished_by_the_next(trials: Callable[[str], Trial]) -> None:
    code, points = trials("whole").run("first")
    assert code == 0
    assert {"before CopyObject", "after CopyObject", "before PutObject", "before last bytes"} <= set(points)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {
            at: pool.submit(lambda at: survives(trials(f"at-{at}"), at), at)
            for at in range(1, len(points) + 1, EVERY)
        }
    lost = {at: error for at, future in futures.items() if (error := future.exception()) is not None}
    assert not lost, "\n".join(f"{at} {points[at - 1]}: {error!r}"[:400] for at, error in lost.items())
    assert sum(future.result() for future in futures.values()) >= len(futures) * 0.9


@pytest.mark.timeout(300)
def test_only_whole_files_are_visible_after_any_write_to_s3(trials: Callable[[str], Trial]) -> None:
    _, points = trials("whole").run("first")
    writes = [at for at, name in enumerate(points, 1) if name.endswith(("PutObject", "CopyObject"))]
    for at in writes[:: EVERY * 2]:
        trial = trials(f"at-{at}")
        assert trial.run("first", at)[0] in (-9, 0)
        only_whole_files_are_visible(trial.world)


@pytest.mark.timeout(300)
def test_a_run_killed_while_a_file_goes_up_in_pieces_leaves_none_of_them(
    trials: Callable[[str], Trial],
) -> None:
    incompressible = [one | {"note": secrets.token_urlsafe(900)} for one in rows(20_000, every=1)]

    def large(name: str) -> Trial:
        trial = trials(name)
        trial.world.define(limits={"cut_rows": 100_000})
        trial.world.log("hour-0", incompressible)
        (trial.world.root / "log" / "hour-1.parquet").unlink()
        return trial

    code, points = large("whole").run("first")
    assert code == 0
    assert points.count("before UploadPart") == 2
    trial = large("killed")
    assert trial.run("first", points.index("after UploadPart") + 1)[0] == -9
    store = trial.world.area.store  # type: ignore[attr-defined]
    assert len(list(store.unfinished(""))) == 1
    assert list(trial.world.area.list("flights/inferences/data")) == []
    assert trial.run("second")[0] == 0
    assert trial.world.everything_arrived_once(20_000)
    only_whole_files_are_visible(trial.world)
    assert list(store.unfinished("")) == []
    assert not list(trial.world.area.leftovers(trial.world.stream()))
