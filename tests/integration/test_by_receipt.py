"""Destinations that cannot show single rows, or nothing at all: what cannot be found out is held, or sent again where
the job says so."""

from __future__ import annotations

import pytest
from tests.showing import Showing
from tests.world import World, after, rows, said

from tidepost.delivery.deliver import MOST_FILE_SENDS
from tidepost.model import Proof, Receipt, Send, SendState, StreamName
from tidepost.ports import Upload
from tidepost.recovery import acts
from tidepost.sandbox.settings import Fault

ROWS = 200


@pytest.fixture
def world(world: World) -> World:
    """A destination that can be asked nothing, and three slices of a file each for it."""
    world.shows = Proof.RECEIPT
    world.define(limits={"cut_rows": ROWS}, destination={"loading": "60s", "retries": 1, "connections": 1})
    world.log("monday", rows(3 * ROWS, every=30))
    return world


@pytest.fixture
def counted(world: World) -> World:
    """One that shows counts, which are to be trusted soon."""
    world.shows = Proof.COUNTS
    world.define(destination={"loading": "1s"})
    return world


def lose(world: World, *, count: int = 1) -> None:
    """The next files arrive, and nothing is answered."""
    world.platform.process.fault(Fault("lose_reply", kind="file", count=count))


def drop(world: World) -> None:
    """The next file does not arrive, and nothing is answered."""
    world.platform.process.fault(Fault("reset", kind="file", after_bytes=10_000_000, count=1))


def release(world: World, sequence: int = 1, *, arrived: bool = False) -> None:
    with world.ledger() as ledger:
        acts.release(
            ledger, world.staging, world.stream(), sequence, acts.Word("a test", 0.0, "it looked"), arrived=arrived
        )


def reason(world: World) -> str:
    with world.ledger() as ledger:
        (held,) = ledger.deliveries.held(world.stream(), "arthur")
    return held.reason


def sends(world: World, sequence: int = 1) -> list[Send]:
    stream = world.stream()
    with world.ledger() as ledger:
        (one,) = (each for each in ledger.deliveries.held(stream, "arthur") if each.sequence == sequence)
        return list(ledger.deliveries.contents(one)[1])


# ------------------------------------------------------------------------------------------------- by receipts


def test_a_delivery_closes_by_receipts_where_there_is_nothing_to_ask(world: World) -> None:
    outcome = world.run()
    assert (said(outcome), outcome.arrived) == ("", 3 * ROWS)
    assert world.everything_arrived_once(3 * ROWS)


def test_a_send_that_nobody_can_tell_of_is_held_with_what_is_known_and_what_to_type(world: World) -> None:
    lose(world)
    outcome = world.run()
    assert (outcome.held, outcome.arrived) == (1, 2 * ROWS)
    assert world.platform_rows() == 3 * ROWS
    told = reason(world)
    assert "00000001-00000.parquet (200 rows) at 20" in told
    assert "did not answer" in told
    assert 'If it arrived:  tidepost release flights 1 --arrived --why "…"' in told
    assert 'To send it again:  tidepost release flights 1 --why "…"' in told
    assert [send.state for send in sends(world)] == [SendState.UNKNOWN]
    world.run()
    assert world.platform_rows() == 3 * ROWS


def test_a_send_that_is_said_to_have_arrived_is_not_sent_again(world: World) -> None:
    lose(world)
    world.run()
    release(world, arrived=True)
    outcome = world.run()
    assert (said(outcome), outcome.arrived) == ("", ROWS)
    assert world.everything_arrived_once(3 * ROWS)


def test_a_send_that_is_released_goes_again(world: World) -> None:
    drop(world)
    world.run()
    assert world.platform_rows() == 2 * ROWS
    release(world)
    assert not said(world.run())
    assert world.everything_arrived_once(3 * ROWS)


def test_what_is_unknown_after_a_release_is_held_again(world: World) -> None:
    drop(world)
    world.run()
    release(world)
    lose(world)
    world.run()
    assert world.states() == {"closed": 2, "held": 1}
    world.run()
    assert world.platform_rows() == 3 * ROWS


def test_a_sender_that_died_leaves_what_nobody_can_tell_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        plain = Showing.send

        def dying(self: Showing, stream: StreamName, upload: Upload) -> Receipt:
            plain(self, stream, upload)
            raise KeyboardInterrupt

        patch.setattr(Showing, "send", dying)
        world.run()
    assert world.run().held
    assert world.platform_rows() == 3 * ROWS


def test_resend_sends_again_without_asking_and_says_so(world: World) -> None:
    world.define(destination={"on_unknown": "resend"})
    lose(world)
    outcome = world.run()
    assert (said(outcome), outcome.arrived) == ("", 3 * ROWS)
    assert world.platform_rows() == 4 * ROWS
    folder = world.staging.root / "flights" / "inferences" / "_tidepost" / "receipts"
    assert '"sent again, as on_unknown says"' in (folder / "00000001-00000.arthur.1.json").read_text()


def test_resend_ends_when_nothing_is_ever_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidepost.delivery.confirm.FIRST_REPEAT", 0.01)
    world.define(limits={"cut_rows": 1000}, destination={"on_unknown": "resend"})
    lose(world, count=100)
    world.run()
    assert world.states() == {"held": 1}
    assert len(sends(world)) == MOST_FILE_SENDS


def test_rows_that_were_refused_without_a_name_hold_their_slice_until_a_person_lets_it_go(world: World) -> None:
    strict = World.make(world.root / "strict", world.platform, attributes=STRICT)
    strict.shows = Proof.RECEIPT
    strict.define(limits={"rejects": "90%"})
    strict.log("monday", rows(20))
    strict.run()
    assert reason(strict) == "arthur refused 3 of 20 rows and does not say which"
    release(strict)
    assert not said(strict.run())
    assert strict.states() == {"closed": 1}
    assert (strict.platform_rows(), strict.summary().destinations[0].arrived) == (17, 17)


def test_a_file_that_was_refused_goes_again_once_it_is_released(world: World) -> None:
    world.platform.process.fault(Fault("fail", kind="file", status=400, count=1))
    world.run()
    assert world.states() == {"closed": 2, "held": 1}
    release(world)
    assert not said(world.run())
    assert world.everything_arrived_once(3 * ROWS)


STRICT = (
    ("distance", "INTEGER", "PIPELINE_INPUT"),
    ("carrier", "STRING", "PIPELINE_INPUT"),
    ("score", "FLOAT", "PREDICTED_VALUE"),
    ("note", "STRING", "PREDICTED_VALUE"),
    ("late", "INTEGER", "GROUND_TRUTH"),
)


# --------------------------------------------------------------------------------------------------- by counts


def test_counts_alone_close_a_delivery_and_tell_of_a_lost_reply(counted: World) -> None:
    lose(counted)
    outcome = counted.run()
    assert (said(outcome), outcome.arrived) == ("", 3 * ROWS)
    assert counted.everything_arrived_once(3 * ROWS)


def test_counts_alone_tell_of_a_file_that_did_not_land(counted: World) -> None:
    drop(counted)
    assert not said(counted.run())
    assert counted.everything_arrived_once(3 * ROWS)


def test_rows_that_counts_miss_hold_their_slice(counted: World) -> None:
    counted.define(limits={"cut_rows": 1000})
    counted.platform.process.fault(Fault("drop", kind="file", rows=0.2, count=1))
    counted.run()
    assert "rows do not show at arthur, which does not say which" in reason(counted)
    release(counted)
    assert not said(counted.run())
    there = counted.platform_rows()
    assert 0 < there < 3 * ROWS
    assert counted.summary().destinations[0].arrived == there
    counted.log("tuesday", rows(ROWS, first=3 * ROWS, at=after(minutes=301), every=1))
    assert not said(counted.run())
    assert counted.platform_rows() == there + ROWS


def test_where_others_write_too_counts_are_not_asked_for(counted: World) -> None:
    counted.define(destination={"shared": True})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.showing.Showing.counts", None)
        assert not said(counted.run())
    assert counted.everything_arrived_once(3 * ROWS)
