"""Disks that are full or fail, and a ledger that another process keeps: one clear error, and nothing is lost."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.crash.orders import Site, start
from tests.world import after, eventually, rows

CUT = 12
RETRYABLE = 4


@pytest.fixture
def site(site: Site) -> Site:
    """Two cuts to upload."""
    site.world.define(limits={"cut_rows": CUT})
    for cut in range(2):
        site.world.log(f"hour-{cut}", rows(CUT, first=cut * CUT, at=after(hours=cut)))
    return site


def it_says_what_to_do_and_the_next_run_uploads_everything(site: Site, count: int, **trouble: int) -> None:
    failed = site.run(codes=[RETRYABLE], **trouble)
    error = failed.error()
    assert error["kind"] in ("Retryable", "Vanished"), error
    assert error["safe"] or error["hint"], error
    assert "Traceback" not in failed.said()
    site.until_closed()
    assert site.world.everything_arrived_once(count)
    assert not list(site.world.staging.root.rglob("scratch/*"))
    assert not list(site.world.staging.root.rglob(".*.json.*"))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_an_fsync_that_fails_is_tried_again_by_the_next_run(site: Site, number: int) -> None:
    it_says_what_to_do_and_the_next_run_uploads_everything(site, 2 * CUT, fsync=number)


@pytest.mark.parametrize("number", [9, 14])
def test_an_fsync_that_fails_while_slices_are_sent_is_mended_by_asking_or_told_of(site: Site, number: int) -> None:
    # Files are sent beside the staging, so which fsync it is depends on chance: that of a receipt is made up for.
    child = site.run(codes=[0, RETRYABLE], fsync=number)
    if child.code() == 0:
        assert site.world.everything_arrived_once(2 * CUT)
    site.until_closed()
    assert site.world.everything_arrived_once(2 * CUT)


def test_a_disk_that_is_full_while_a_slice_is_staged_is_tried_again_by_the_next_run(site: Site) -> None:
    site.run()  # the ledger has its size by now
    chance = random.Random(1)  # what is written must not compress well
    noisy = [one | {"note": chance.randbytes(80).hex()} for one in rows(9000, first=100, every=1.0)]
    site.world.define(limits={"cut_rows": 10_000})
    site.world.log("tuesday", [one | {"logged_at": after(hours=3)} for one in noisy])
    limit = 400_000
    assert max(path.stat().st_size for path in site.world.root.rglob("ledger.db*")) < limit
    it_says_what_to_do_and_the_next_run_uploads_everything(site, 2 * CUT + 9000, file_size=limit)


def test_a_disk_that_is_full_for_the_ledger_is_tried_again_by_the_next_run(site: Site) -> None:
    site.run()
    site.world.log("tuesday", rows(CUT, first=100, at=after(hours=5)))
    smallest = min(path.stat().st_size for path in site.world.root.rglob("ledger.db") if path.is_file())
    it_says_what_to_do_and_the_next_run_uploads_everything(site, 3 * CUT, file_size=smallest // 2)


def test_a_disk_that_is_full_for_what_a_run_prints_is_not_called_a_bug(site: Site) -> None:
    child = start(site.context, replace(site.orders(), out=Path("/dev/full")))
    try:
        code = child.code()
        said = child.orders.err.read_text()
    finally:
        child.end()
    assert code in (0, RETRYABLE), said
    assert "a bug in tidepost" not in said
    assert site.world.everything_arrived_once(2 * CUT)


def ledger_file(site: Site) -> Path:
    (found,) = site.world.root.rglob("ledger.db")
    return found


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """The ledger in the hands of another process, as far as it can tell."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


def test_a_ledger_that_is_kept_longer_than_one_waits_is_told_of_and_tried_again(site: Site) -> None:
    site.run()
    site.world.log("tuesday", rows(CUT, first=100, at=after(hours=5)))
    path = ledger_file(site)
    site.world.define(destination={"loading": "1m"})
    site.world.platform.process.configure(loading_delay=600)
    env = {"TIDEPOST_LEDGER": f"sqlite:///{path}?timeout=1"}
    child = site.start(environment=env)
    eventually(lambda: "sent" in site.world.states() or "sending" in site.world.states())
    with locked(path):
        site.world.platform.process.configure(loading_delay=0)
        code = child.code()
    assert code == RETRYABLE, child.said()
    assert "is locked: another process kept it for 1 seconds" in child.error()["message"]
    site.until_closed()
    assert site.world.everything_arrived_once(3 * CUT)


def test_a_ledger_that_is_kept_for_a_moment_is_waited_for(site: Site) -> None:
    site.run()
    site.world.log("tuesday", rows(CUT, first=100, at=after(hours=5)))
    path = ledger_file(site)
    with locked(path):
        child = site.start()
        child.process.join(1.0)
        assert child.process.is_alive()
    assert child.code() == 0, child.said()
    assert site.world.everything_arrived_once(3 * CUT)
