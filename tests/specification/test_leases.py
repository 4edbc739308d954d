"""A process acts only on what it holds, and notices when it slept through it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.world import eventually

from tidepost.errors import HeldElsewhere, LeaseLost
from tidepost.leases import Keeper
from tidepost.ledger import open_ledger
from tidepost.ledger.sql import SqlLedger
from tidepost.model import Lease


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield ledger
    ledger.close()


def keeper(ledger: SqlLedger, owner: str = "one", seconds: float = 60.0) -> Keeper:
    return Keeper(ledger, owner, seconds=seconds)


def test_what_is_taken_may_be_acted_on(ledger: SqlLedger) -> None:
    with keeper(ledger) as mine:
        mine.guard(mine.take("cut", 1))


def test_what_one_holds_another_cannot_take(ledger: SqlLedger) -> None:
    with keeper(ledger) as mine, keeper(ledger, "two") as other:
        mine.take("cut", 1)
        with pytest.raises(HeldElsewhere, match="cut 1 is held by one"):
            other.take("cut", 1)
        other.take("cut", 2)
        other.take("delivery", 1)


def test_two_threads_of_one_process_cannot_hold_the_same(ledger: SqlLedger) -> None:
    with keeper(ledger) as mine, mine.holding("cut", 1), pytest.raises(HeldElsewhere):
        mine.take("cut", 1)


def test_what_is_released_is_free(ledger: SqlLedger) -> None:
    with keeper(ledger) as mine, keeper(ledger, "two") as other:
        mine.release(mine.take("cut", 1))
        other.take("cut", 1)


def test_a_block_releases_what_it_held_also_when_it_fails(ledger: SqlLedger) -> None:
    with keeper(ledger) as mine, keeper(ledger, "two") as other:
        with pytest.raises(RuntimeError), mine.holding("cut", 1):
            raise RuntimeError
        other.take("cut", 1)


def test_everything_is_released_at_the_end(ledger: SqlLedger) -> None:
    with keeper(ledger) as mine:
        mine.take("cut", 1)
        mine.take("delivery", 5)
    with keeper(ledger, "two") as other:
        other.take("cut", 1)
        other.take("delivery", 5)


def test_what_was_released_may_not_be_acted_on(ledger: SqlLedger) -> None:
    with keeper(ledger) as mine:
        lease = mine.take("cut", 1)
        mine.release(lease)
        with pytest.raises(LeaseLost):
            mine.guard(lease)


def test_an_older_lease_of_the_same_thing_may_not_be_acted_on(ledger: SqlLedger) -> None:
    with keeper(ledger) as mine:
        old = mine.take("cut", 1)
        mine.release(old)
        new = mine.take("cut", 1)
        mine.guard(new)
        with pytest.raises(LeaseLost):
            mine.guard(old)


def test_leases_are_renewed_while_work_goes_on(ledger: SqlLedger) -> None:
    with keeper(ledger, seconds=0.6) as mine, keeper(ledger, "two") as other:
        lease = mine.take("cut", 1)
        waited = threading.Event()
        waited.wait(1.5)  # more than twice the lease's length: only renewals keep it
        mine.guard(lease)
        with pytest.raises(HeldElsewhere):
            other.take("cut", 1)


def test_a_process_that_slept_learns_that_its_lease_was_taken(ledger: SqlLedger) -> None:
    slept = keeper(ledger, seconds=0.2)  # never entered: nobody renews, as in a process that is stopped
    lease = slept.take("cut", 1)
    with keeper(ledger, "two") as other:
        taken = eventually(lambda: _taken(other))
        assert taken is not None
        assert taken.fence > lease.fence
        with pytest.raises(LeaseLost, match="held by two"):
            slept.guard(lease)
        with pytest.raises(LeaseLost):
            slept.guard(lease)


def test_a_process_that_slept_goes_on_where_nobody_took_over(ledger: SqlLedger) -> None:
    slept = keeper(ledger, seconds=0.05)
    lease = slept.take("cut", 1)
    threading.Event().wait(0.2)
    slept.guard(lease)
    slept.release(lease)


def test_a_lease_is_trusted_from_before_it_was_asked_for(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    clock = iter([100.0, 170.0, 170.0])
    mine = keeper(ledger)
    monkeypatch.setattr("tidepost.leases.time.monotonic", lambda: next(clock))
    lease = mine.take("cut", 1)  # a ledger that took 70 s to answer

    def renew(one: Lease, seconds: float) -> Lease:
        asked.append(seconds)
        return one

    monkeypatch.setattr(ledger.leases, "renew", renew)
    clock = iter([170.0, 170.0, 170.0])
    mine.guard(lease)
    assert asked == [60.0]


def _taken(other: Keeper) -> Lease | None:
    try:
        return other.take("cut", 1)
    except HeldElsewhere:
        return None
