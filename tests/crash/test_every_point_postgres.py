"""A run on PostgreSQL killed at a sample of its effects, and one whose server is killed: the next run ends as if
nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from sqlalchemy import Connection, make_url
from tests.crash import test_every_point as every_point
from tests.crash.test_every_point import AT_ONCE, CUTS, ROWS, Trial, survives
from tests.postgres import NewUrl, Server, server
from tests.world import Platform, after, rows

from tidepost.errors import Retryable
from tidepost.ledger.engine import Database

EVERY = 4
WRITES = (1, 7, 13, 19)
"""At which of a run's ledger transactions the server is killed, just before the commit."""

context = every_point.context


@pytest.fixture(scope="module")
def fragile() -> Iterator[Server]:
    """A server of this module's own, to be killed."""
    with server() as started:
        yield started


@pytest.fixture
def trials(
    context: ForkServerContext, tmp_path: Path, platform: Platform, new_ledger: NewUrl
) -> Callable[[str], Trial]:
    return lambda name: Trial(context, tmp_path / name, platform, ledger=new_ledger())


@pytest.mark.timeout(300)
def test_a_run_killed_at_any_effect_is_finished_by_the_next(trials: Callable[[str], Trial]) -> None:
    code, points = trials("whole").run("first")
    assert code == 0
    assert {"before commit", "after commit", "before last bytes", "after send"} <= set(points)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {
            at: pool.submit(lambda at: survives(trials(f"at-{at}"), at), at)
            for at in range(1, len(points) + 1, EVERY)
        }
    lost = {at: error for at, future in futures.items() if (error := future.exception()) is not None}
    assert not lost, "\n".join(f"{at} {points[at - 1]}: {error!r}"[:400] for at, error in lost.items())
    assert sum(future.result() for future in futures.values()) >= len(futures) * 0.9


@pytest.mark.parametrize("at", WRITES)
def test_a_run_whose_server_is_killed_ends_and_is_finished_by_the_next(
    *,
    context: ForkServerContext,
    tmp_path: Path,
    platform: Platform,
    fragile: Server,
    at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = fragile.url(fragile.new_ledger())
    trial = Trial(context, tmp_path / "project", platform, ledger=ledger)
    plain_write, passed = Database.write, []

    @contextmanager
    def write(self: Database) -> Iterator[Connection]:
        with plain_write(self) as connection:
            yield connection
            passed.append(connection)
            if len(passed) == at:
                fragile.kill()

    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", write)
        error = failed(trial)
    assert len(passed) >= at
    fragile.start()
    assert isinstance(error, Retryable)
    # This process lives, so what it could not release lapses only in a minute.
    fragile.execute(make_url(ledger).database or "", "UPDATE leases SET owner = NULL")
    trial.world.log("later", rows(ROWS, first=CUTS * ROWS, at=after(hours=CUTS)))
    assert trial.world.run().worst() is None
    trial.everything_arrived_once()


def failed(trial: Trial) -> BaseException | None:
    """What a run of this process failed with."""
    try:
        return trial.world.run().worst()
    except Retryable as error:
        return error
