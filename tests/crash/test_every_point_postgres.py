"""Runs on PostgreSQL that are killed, whose server is killed, or both: the next run ends as if nothing had happened.

Of what dies, at which kind of effect, how the source grows meanwhile, and where the run after it is killed too, every
pair is tried whenever the tests run; with TIDEPOST_TEST_EVERY_POINT=1, every single effect too.
"""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from tests.crash.fuse import Point
from tests.crash.pairwise import Combination, covering, pairs, pairs_of
from tests.crash.test_every_point import AT_ONCE, CUTS, ROWS, Trial, survives
from tests.postgres import NewUrl, Server, server
from tests.world import Platform, after, rows

SERVERS = 2
KINDS = (
    "before commit",
    "after commit",
    "before fsync",
    "before mkdir",
    "before replace",
    "before link",
    "before unlink",
    "before rename",
    "before rmdir",
    "before file",
    "before end of file",
    "before send",
    "before last bytes",
    "after send",
    "before counts",
    "after counts",
)
DIMENSIONS = {
    "kind": KINDS,
    "dies": ("the run", "the server", "both"),
    "source": ("stays", "grows", "repeats rows"),
    "then": ("nothing", "before commit", "before last bytes"),
}
"""`then`: at what kind of effect the run after the first one is killed, if at all."""


@pytest.fixture(scope="module")
def servers() -> Iterator[queue.SimpleQueue[Server]]:
    """Servers of this module's own, to be killed by one test at a time."""
    with ExitStack() as stack:
        found: queue.SimpleQueue[Server] = queue.SimpleQueue()
        for _ in range(SERVERS):
            found.put(stack.enter_context(server()))
        yield found


@pytest.fixture
def trials(
    children: ForkServerContext, tmp_path: Path, platform: Platform, new_ledger: NewUrl
) -> Callable[[str], Trial]:
    return lambda name: Trial(children, tmp_path / name, platform, ledger=new_ledger())


def test_the_combinations_hold_every_pair() -> None:
    found = covering(DIMENSIONS)
    assert set().union(*map(pairs_of, found)) == pairs(DIMENSIONS)
    assert len(found) < len(KINDS) * 4


def ends_well(trial: Trial, on: Server, case: Combination, at: Point) -> bool:
    """Let what the combination says happen, then run again. True where its point was reached."""
    kills, lives = case["dies"] != "the run", case["dies"] == "the server"
    code, _ = trial.run("first", at, server=on.pid if kills else None, lives=lives)
    reached = code != 0
    if kills and reached:
        on.revive()
    grows = case["source"] == "grows"
    if grows:
        trial.world.log("later", rows(ROWS, first=CUTS * ROWS, at=after(hours=CUTS)))
    elif case["source"] == "repeats rows":
        trial.world.log("again", rows(ROWS, logged_at=after(hours=CUTS)))
    if case["then"] != "nothing":
        assert trial.run("second", (case["then"], 1))[0] in (-9, 0)
    assert trial.run("third")[0] == 0
    trial.everything_arrived_once(CUTS * ROWS + (ROWS if grows else 0))
    return reached


@pytest.mark.timeout(600)
def test_every_pair_of_what_can_happen_is_survived(
    children: ForkServerContext, tmp_path: Path, platform: Platform, servers: queue.SimpleQueue[Server]
) -> None:
    def tried(number: int, case: Combination, times: int) -> bool:
        on = servers.get()
        try:
            database = on.new_ledger()
            trial = Trial(children, tmp_path / f"case-{number}", platform, ledger=on.url(database))
            reached = ends_well(trial, on, case, (case["kind"], 1 + number % times))
            on.drop(database)
            return reached
        finally:
            servers.put(on)

    on = servers.get()
    code, points = Trial(children, tmp_path / "whole", platform, ledger=on.url(on.new_ledger())).run("first")
    servers.put(on)
    assert code == 0
    passed = Counter(points)
    assert set(KINDS) == set(passed)
    cases = covering(DIMENSIONS)
    with ThreadPoolExecutor(SERVERS) as pool:
        futures = [pool.submit(tried, number, case, passed[case["kind"]]) for number, case in enumerate(cases)]
    lost = {str(cases[n]): error for n, future in enumerate(futures) if (error := future.exception()) is not None}
    assert not lost, "\n".join(f"{case}: {error!r}"[:400] for case, error in lost.items())
    assert sum(future.result() for future in futures) >= len(cases) * 0.9


@pytest.mark.every_point
@pytest.mark.timeout(900)
def test_a_run_killed_at_any_effect_is_finished_by_the_next(trials: Callable[[str], Trial]) -> None:
    code, points = trials("whole").run("first")
    assert code == 0
    assert set(KINDS) <= set(points)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {
            at: pool.submit(lambda at: survives(trials(f"at-{at}"), at), at) for at in range(1, len(points) + 1)
        }
    lost = {at: error for at, future in futures.items() if (error := future.exception()) is not None}
    assert not lost, "\n".join(f"{at} {points[at - 1]}: {error!r}"[:400] for at, error in lost.items())
    assert sum(future.result() for future in futures.values()) >= len(futures) * 0.9


def test_a_run_whose_server_is_killed_says_so_and_ends(
    *, children: ForkServerContext, tmp_path: Path, platform: Platform, servers: queue.SimpleQueue[Server]
) -> None:
    on = servers.get()
    try:
        trial = Trial(children, tmp_path / "project", platform, ledger=on.url(on.new_ledger()))
        code, _ = trial.run("first", ("before commit", 7), server=on.pid, lives=True)
        on.revive()
        assert code == 1, "an error of its own, not a signal"
        assert trial.run("second")[0] == 0
        trial.everything_arrived_once(CUTS * ROWS)
    finally:
        servers.put(on)
