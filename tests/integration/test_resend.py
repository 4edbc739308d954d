"""What a platform loses after it had arrived is found, and sent again: only that, and once."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from tests.world import Row, World, after, rows, said

from tidepost.comparing.numbers import Reconciled
from tidepost.comparing.reconcile import Reconciling, Scope
from tidepost.comparing.resend import fill, resend
from tidepost.errors import Misconfigured
from tidepost.events import PartSent
from tidepost.ledger.owner import this_process
from tidepost.ledger.purging import SqlPurging
from tidepost.model import SendForm
from tidepost.outcome import Outcome
from tidepost.publishing.purge import Purge
from tidepost.run import bring_back
from tidepost.sandbox.settings import Fault
from tidepost.staging.local import LocalStaging


@pytest.fixture
def world(world: World) -> World:
    """Three slices of 20 rows, all arrived, at a platform that keeps both copies of repeats."""
    world.define(limits={"cut_rows": 20})
    world.log("monday", logged())
    assert not said(world.run())
    assert world.everything_arrived_once(60)
    return world


def logged() -> list[Row]:
    return rows(60, every=300)


def lose(world: World, numbers: Sequence[int]) -> None:
    world.platform.process.wait_until_loaded()
    assert world.platform.process.lose(world.model_id, [f"r{n:06d}" for n in numbers]) == len(numbers)


def compared(world: World, scope: Scope | None = None) -> Reconciled:
    with world.wired() as wired, world.ledger() as ledger, wired.engine.connect() as connection:
        it = Reconciling(wired, ledger, world.stream(), connection)
        return it.reconcile(scope or Scope(), wired.destinations)


def sent_again(world: World) -> Outcome:
    """Find what is lost and send it, as the command does."""
    world.events = []
    with world.wired() as wired, world.ledger() as ledger, wired.engine.connect() as connection:
        it = Reconciling(wired, ledger, world.stream(), connection)
        lost = {name: of for name, of in it.reconcile(Scope(), wired.destinations, source=False).lost.items() if of}
        return resend(
            wired,
            ledger,
            world.stream(),
            lost,
            who="a test",
            why="the platform had an accident",
            notice=world.events.append,
            stop=threading.Event(),
        )


def purge(world: World) -> None:
    with world.wired() as wired, world.ledger() as ledger:
        done = Purge(world.stream(), ledger, wired.staging, wired.records, ("arthur",), 0.0)
        assert done.purge(wired.engine, this_process()).slices == 3
    assert world.files() == []


def test_some_rows_that_are_gone_are_sent_again_one_by_one(world: World) -> None:
    lose(world, [3, 5, 25])
    assert compared(world).lost == {"arthur": {1: 2, 2: 1}}
    assert not said(sent_again(world))
    assert world.everything_arrived_once(60)
    assert not [event for event in world.events if isinstance(event, PartSent)]
    assert compared(world).agrees


def test_a_slice_that_is_gone_whole_is_sent_again_as_its_file(world: World) -> None:
    lose(world, range(20, 40))
    assert not said(sent_again(world))
    assert world.everything_arrived_once(60)
    assert [event.sequence for event in world.events if isinstance(event, PartSent)] == [2]


def test_rows_that_are_lost_a_second_and_a_third_time_are_sent_again(world: World) -> None:
    for _ in range(3):
        lose(world, [*range(20), 30])
        assert not said(sent_again(world))
        assert world.everything_arrived_once(60)


def test_rows_of_others_that_make_up_the_numbers_hide_nothing(world: World) -> None:
    lose(world, [7])
    body = [
        {
            "partner_inference_id": "somebody's",
            "inference_timestamp": after(minutes=3).isoformat(),
            "inference_data": {"distance": 1, "carrier": "UA", "score": 0.5, "note": None},
        }
    ]
    answer = world.platform.call("POST", f"/models/{world.model_id}/inferences", body)
    assert answer.status_code == 207, answer.text
    found = compared(world).total.there["arthur"]
    assert (found.lost, found.others, found.arrived) == (1, 1, 59)
    sent_again(world)
    assert world.ids() == sorted(["somebody's", *(one["id"] for one in logged())])


def test_where_nothing_is_gone_nothing_is_sent(world: World) -> None:
    with world.ledger() as ledger:
        stream = world.stream()
        (again,) = ledger.deliveries.reopen(stream, "arthur", {2: 5}, who="a test", why="a mistake")
        assert (again.state, again.arrived) == ("sent", 15)
    assert not said(world.run())
    assert world.everything_arrived_once(60)
    assert world.summary().destinations[0].arrived == 60


def test_the_mark_does_not_move_back_while_rows_are_sent_again(world: World) -> None:
    before = world.mark()
    with world.ledger() as ledger:
        ledger.deliveries.reopen(world.stream(), "arthur", {1: 1}, who="a test", why="the platform had an accident")
    assert world.mark() == before
    assert [one.sequence for one in world.summary().destinations[0].others] == [1]


def test_who_sent_again_and_why_is_in_the_history(world: World) -> None:
    lose(world, [3])
    sent_again(world)
    with world.ledger() as ledger:
        (entry,) = ledger.reports.audit("flights")
    assert (entry.who, entry.why) == ("a test", "the platform had an accident")
    assert entry.what == "reopened slice 1 of inferences at arthur"
    assert entry.new == "1 rows are sent again"


def test_a_resend_that_dies_is_finished_by_the_next_run(world: World) -> None:
    lose(world, [*range(20), 25])
    with world.ledger() as ledger:  # and here it died
        ledger.deliveries.reopen(world.stream(), "arthur", {1: 20, 2: 1}, who="a test", why="an accident")
    assert not said(world.run())
    assert world.everything_arrived_once(60)


def test_a_reply_that_is_lost_while_sending_again_doubles_nothing(world: World) -> None:
    lose(world, [*range(20), 25, 26])
    world.platform.process.fault(Fault("lose_reply", kind="file", count=1))
    world.platform.process.fault(Fault("lose_reply", kind="rows", count=1))
    sent_again(world)
    for _ in range(3):
        world.run()
    assert world.everything_arrived_once(60)


def test_a_purged_slice_is_staged_again_with_the_same_rows_and_sent(world: World) -> None:
    purge(world)
    lose(world, [*range(20), 25])
    assert not said(sent_again(world))
    assert world.everything_arrived_once(60)
    assert len(world.files()) == 2
    with world.wired() as wired:
        parts = wired.ledger.slices.published(world.stream(), None).parts
        assert [one.part.purged for one in parts] == [False, False, True]
        for one in parts[:2]:
            assert (wired.staging.root / "flights/inferences" / one.part.path).stat().st_size == one.part.size  # type: ignore[attr-defined]
    for name in ("distance", "carrier", "score", "note"):
        assert world.values(name) == {one["id"]: one[name] for one in logged()}


def test_a_purged_slice_whose_source_has_changed_is_not_sent(world: World) -> None:
    purge(world)
    lose(world, [1, 25])
    world.log("monday", [one | {"score": 0.9999} if one["id"] == "r000010" else one for one in logged()[5:]])
    outcome = sent_again(world)
    assert "of 20 rows 5 are gone and 1 have changed" in said(outcome)
    assert world.platform_rows() == 59
    assert compared(world).lost == {"arthur": {1: 1}}
    assert set(world.states()) == {"closed"}


class Killed(BaseException):
    """As if the process died there."""


@pytest.mark.parametrize("at", ["prepare", "put", "reveal", "clear"])
def test_staging_again_can_die_anywhere_and_is_done_again(
    world: World, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    purge(world)
    lose(world, range(20))

    def dies(*args: object, **options: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, world.wired() as wired:
        patched.setattr(LocalStaging, at, dies)
        with world.ledger() as ledger:
            closed = ledger.deliveries.reopen(world.stream(), "arthur", {1: 20}, who="a test", why="an accident")
        with pytest.raises(Killed):
            bring_back(wired, world.stream(), closed)
    assert not said(world.run())
    assert world.everything_arrived_once(60)


def test_rows_that_are_missing_here_are_found_by_scanning_their_ranges_again(world: World) -> None:
    world.log("late", rows(20, first=900, at=after(minutes=10), every=60))
    found = compared(world)
    assert found.total.here.missing == 20
    with world.wired() as wired:
        fill(wired, found.missing, notice=world.events.append, stop=threading.Event())
    assert world.everything_arrived_once(80)
    assert compared(world).agrees


def test_rows_that_were_sent_again_are_sends_like_others(world: World) -> None:
    lose(world, [3])
    sent_again(world)
    with world.ledger() as ledger:
        stream = world.stream()
        (delivery,) = ledger.deliveries.reopen(stream, "arthur", {1: 0}, who="a test", why="to look")
        _, sends = ledger.deliveries.contents(delivery)
    assert [(one.form, one.rows) for one in sends] == [(SendForm.FILE, 20), (SendForm.ROWS, 1)]


def test_a_destination_that_joins_after_a_purge_gets_everything(world: World) -> None:
    purge(world)
    name, number = world.platform.register()
    world.define(destination={"name": "second", "model": name})
    outcome = world.run()
    assert not said(outcome)
    assert outcome.arrived == 60
    world.platform.process.wait_until_loaded()
    assert world.platform.process.model_stats(number)["rows"] == 60
    assert world.platform_rows() == 60


def test_what_another_run_stages_again_is_not_cleaned_up(world: World) -> None:
    purge(world)
    with world.ledger() as ledger:
        (_, cut) = min(SqlPurging(ledger).purged(world.stream()).values())
    with world.wired() as wired:
        lease = wired.ledger.leases.take("cut", cut, wired.owner, 60)
        folder = wired.staging.scratch(world.stream(), cut, lease.fence)
        assert not said(world.run())
        assert folder.exists()
        wired.ledger.leases.release(lease)
    world.run()
    assert not folder.exists()


def test_what_was_lost_is_not_sent_to_another_model(world: World) -> None:
    name, number = world.platform.register()
    world.define(destination={"model": name})
    with pytest.raises(Misconfigured, match="destination arthur"):
        sent_again(world)
    assert set(world.states()) == {"closed"}
    assert world.platform.process.model_stats(number)["rows"] == 0
