"""A run to Arize, which cannot be asked, killed at its effects: nothing is lost, and what becomes of the file whose
answer nobody heard is what `on_unknown` says. Beside Arize, Arthur gets every row once all the same."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.crash.fuse import Point
from tests.crash.test_every_point import AT_ONCE, CUTS, ROWS, Trial
from tests.crash.whole import only_whole_files_are_visible
from tests.to_arize import decided, held, of_arize, of_both, release, states, there
from tests.world import Platform, World, after, rows

ALL = os.environ.get("TIDEPOST_TEST_EVERY_POINT") == "1"
SAMPLE = 1 if ALL else 60
"""Every so-many-th point, unless all are asked for, beside those of sending."""
CASES = {
    "held": (of_arize, "stop"),
    "again beside arthur": (of_both, "resend"),
    **({"again": (of_arize, "resend"), "held beside arthur": (of_both, "stop")} if ALL else {}),
}
SENDING: tuple[Point, ...] = (("before send", 1), ("before last bytes", 2), ("after send", 1), ("after send", 2))
EVERY_ID = {f"r{number:06d}" for number in range(CUTS * ROWS + ROWS)}


class Sending(Trial):
    """A trial whose rows go to Arize too, or there alone."""

    def __init__(self, *arguments: Any, to: Callable[..., World], on_unknown: str) -> None:
        super().__init__(*arguments)
        to(self.world, on_unknown=on_unknown)
        self.beside = to is of_both
        self.decides = self.came_again if on_unknown == "resend" else self.came_once_by_a_persons_word

    def survives(self, at: Point) -> tuple[bool, int]:
        """Kill a run at a point, let the source grow, run again. Whether the point was reached, and how many files
        nobody had heard of."""
        code, _ = self.run("first", at)
        assert code in (-9, 0)
        self.world.log("later", rows(ROWS, first=CUTS * ROWS, at=after(hours=CUTS)))
        assert self.run("second")[0] == 0
        unheard = self.decides()
        assert there(self.world).keys() == EVERY_ID
        assert states(self.world) == {"closed": CUTS + 1}
        if self.beside:
            assert self.world.everything_arrived_once(len(EVERY_ID))
            assert states(self.world, "arthur") == {"closed": CUTS + 1}
        only_whole_files_are_visible(self.world)
        summary = self.world.summary()
        assert (summary.rows, summary.open_cuts, summary.publishing) == (len(EVERY_ID), 0, None)
        return code == -9, unheard

    def came_once_by_a_persons_word(self) -> int:
        """Nothing is sent twice; what nobody heard of is held, and a person who looks there ends it."""
        once = there(self.world)
        waiting = held(self.world)
        for one in waiting:
            ids = {id_ for path in self.of(one.sequence) for id_ in pq.read_table(path)[0].to_pylist()}
            landed = ids & once.keys()
            assert landed in (ids, set()), "a file is there whole, or not at all"
            release(self.world, one.sequence, gone=not landed)
        assert decided(self.world) == ({"held": len(waiting)} if waiting else {})
        assert len(waiting) <= 1, "one connection has one file on its way"
        if waiting:
            assert self.run("third")[0] == 0
        assert set(there(self.world).values()) == {1}
        return len(waiting)

    def came_again(self) -> int:
        """What nobody heard of is sent again, once and with the same ids; nothing else is."""
        times = there(self.world)
        again = decided(self.world)["sent again"]
        assert decided(self.world) == ({"sent again": again} if again else {})
        assert again <= 1, "one connection has one file on its way"
        assert times.keys() == EVERY_ID
        assert Counter(times.values())[2] in (0, again * ROWS)
        assert set(times.values()) <= {1, 2}
        return again

    def of(self, sequence: int) -> list[Path]:
        """The files of a slice."""
        return [path for path in self.world.files() if path.name.startswith(f"{sequence:08d}-")]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("to", "on_unknown"), CASES.values(), ids=CASES)
def test_a_run_to_arize_killed_at_any_effect_loses_nothing_and_repeats_what_on_unknown_says(
    children: ForkServerContext, tmp_path: Path, platform: Platform, to: Callable[..., World], on_unknown: str
) -> None:
    def trial(name: str) -> Sending:
        return Sending(children, tmp_path / name, platform, to=to, on_unknown=on_unknown)

    code, points = trial("whole").run("first")
    assert code == 0
    assert {name for name, _ in SENDING} <= set(points)  # type: ignore[misc]
    chosen: list[Point] = [*SENDING, *range(SAMPLE, len(points) + 1, SAMPLE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {at: pool.submit(lambda at: trial(f"at-{at}").survives(at), at) for at in chosen}
    lost = {at: error for at, future in futures.items() if (error := future.exception()) is not None}
    assert not lost, "\n".join(f"{at}: {error!r}"[:600] for at, error in lost.items())
    found = [future.result() for future in futures.values()]
    assert sum(reached for reached, _ in found) >= len(chosen) * 0.8
    assert 0 < sum(unheard for _, unheard in found) < len(chosen)
