"""Sends of unknown outcome: whatever the network does, every row arrives, and arrives once."""

from __future__ import annotations

import json

import pytest
from tests.world import START, Platform, Row, World, after, reasons, rows, said

from tidepost.events import PartSent, Waiting, Warned
from tidepost.sandbox.settings import Fault

QUICK = {"loading": "2s", "retries": 3}


@pytest.fixture
def world(world: World) -> World:
    """Three slices of 200 rows."""
    world.define(limits={"cut_rows": 200}, destination=QUICK)
    world.log("monday", rows(600, every=30))
    return world


def until_closed(world: World, *, runs: int = 8) -> None:
    """Run again and again, as a schedule does, until nothing is open."""
    for _ in range(runs):
        outcome = world.run()
        if not outcome.errors and set(world.states()) <= {"closed"}:
            return
    raise AssertionError(f"still open after {runs} runs: {world.states()} {said(outcome)}")


def test_a_reply_that_was_lost_is_asked_about_and_not_sent_again(world: World) -> None:
    world.platform.process.fault(Fault("lose_reply", kind="file", count=2))
    outcome = world.run()
    assert world.everything_arrived_once(600)
    assert not said(outcome)
    assert outcome.arrived == 600


def test_a_server_error_after_the_file_was_taken_is_asked_about(world: World) -> None:
    world.platform.process.fault(Fault("fail_after", kind="file", status=502, count=2))
    assert not said(world.run())
    assert world.everything_arrived_once(600)


def test_a_file_that_was_cut_off_is_sent_again(world: World) -> None:
    world.platform.process.fault(Fault("reset", kind="file", after_bytes=100, count=1))
    assert not said(world.run())
    assert world.everything_arrived_once(600)


def test_a_connection_reset_after_the_whole_body_is_sent_again_only_when_the_rows_do_not_show(world: World) -> None:
    world.platform.process.fault(Fault("reset", kind="file", after_bytes=10_000_000, count=1))
    assert not said(world.run())
    assert world.everything_arrived_once(600)


def test_rows_that_load_slowly_are_waited_for(world: World) -> None:
    world.define(destination={"loading": "10s"})
    world.platform.process.configure(loading_delay=2.0)
    outcome = world.run()
    assert any(isinstance(event, Waiting) for event in world.events)
    assert not said(outcome)
    assert world.everything_arrived_once(600)


def test_a_lost_reply_to_a_file_that_loads_slowly_is_not_taken_for_a_file_that_did_not_land(world: World) -> None:
    world.define(destination={"loading": "6s"})
    world.platform.process.configure(loading_delay=1.5)
    world.platform.process.fault(Fault("lose_reply", kind="file", count=3))
    assert not said(world.run())
    assert world.everything_arrived_once(600)


def test_rows_that_were_dropped_after_the_yes_are_sent_row_by_row(world: World) -> None:
    world.platform.process.fault(Fault("drop", kind="file", rows=0.2, count=2))
    outcome = world.run()
    assert not said(outcome)
    assert world.stats()["dropped_rows"] > 0
    assert world.everything_arrived_once(600)


def test_a_file_that_was_dropped_whole_after_the_yes_is_sent_row_by_row(world: World) -> None:
    world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=1))
    assert not said(world.run())
    assert world.everything_arrived_once(600)


def test_rows_that_arrive_by_json_have_the_values_of_the_file(world: World) -> None:
    world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=3))
    world.run()
    logged = rows(600, every=30)
    for name in ("distance", "carrier", "score", "note"):
        assert world.values(name) == {one["id"]: one[name] for one in logged}


def test_a_lost_reply_to_missing_rows_is_asked_about_too(world: World) -> None:
    world.platform.process.fault(Fault("drop", kind="file", rows=0.2, count=2))
    world.platform.process.fault(Fault("lose_reply", kind="rows", count=1))
    until_closed(world)
    assert world.everything_arrived_once(600)


def test_too_many_requests_are_repeated_when_the_platform_asks_for_it(world: World) -> None:
    world.platform.process.fault(Fault("throttle", kind="file", retry_after=1, count=2))
    assert not said(world.run())
    assert world.everything_arrived_once(600)
    assert sum(isinstance(event, PartSent) for event in world.events) == 3


def test_questions_that_fail_leave_the_delivery_open_for_the_next_run(world: World) -> None:
    world.define(destination={"retries": 0})
    world.platform.process.fault(Fault("fail", kind="query", status=503, count=1))
    outcome = world.run()
    assert "503" in said(outcome)
    until_closed(world)
    assert world.everything_arrived_once(600)


def test_rows_that_somebody_else_has_sent_are_counted_as_arrived(world: World) -> None:
    world.platform.process.configure(on_repeat="refuse")
    somebody_sends(world, rows(50, every=30))
    assert not said(world.run())
    assert world.everything_arrived_once(600)


def test_rows_of_somebody_else_are_told_of(world: World) -> None:
    world.run()
    world.log("tuesday", rows(10, first=600, at=after(hours=5)))
    somebody_sends(world, rows(5, first=900, at=after(hours=5)))
    assert not said(world.run())
    (warned,) = (event for event in world.events if isinstance(event, Warned))
    assert "holds 5 rows more than were sent to it" in warned.text
    assert "destination.shared: true" in warned.text


def test_where_somebody_else_writes_too_arrival_is_confirmed_by_ids(world: World) -> None:
    world.define(destination={"shared": True})
    somebody_sends(world, rows(120, first=900, every=30))
    world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=1))
    assert not said(world.run())
    assert world.everything_arrived_once(720)
    assert not [event for event in world.events if isinstance(event, Warned)]


def somebody_sends(world: World, of: list[Row]) -> None:
    """Another writer of the same model."""
    body = [
        {
            "partner_inference_id": one["id"],
            "inference_timestamp": one["at"].isoformat(),
            "inference_data": {name: one[name] for name in ("distance", "carrier", "score", "note")},
        }
        for one in of
    ]
    answer = world.platform.call("POST", f"/models/{world.model_id}/inferences", body)
    assert answer.status_code == 207, answer.text


def test_rows_that_the_platform_refuses_are_kept_with_its_words_and_the_rest_arrives(world: World) -> None:
    strict = World.make(world.root / "strict", world.platform, attributes=STRICT)
    strict.define(limits={"cut_rows": 200, "rejects": "50%"}, destination=QUICK)
    strict.log("monday", rows(100, every=30))
    outcome = strict.run()
    refused = [one["id"] for one in rows(100, every=30) if one["note"] is None]
    assert not said(outcome)
    assert strict.platform_rows() == 100 - len(refused)
    assert set(strict.states()) == {"closed"}
    assert sorted(reasons(strict.rejects())) == sorted(refused)
    assert all("refused by arthur" in one["reason"] for one in strict.rejects())
    assert json.loads(strict.rejects()[0]["row"])["partner_inference_id"] in refused


def test_a_slice_that_was_released_is_not_held_again_for_what_was_refused(world: World) -> None:
    strict = World.make(world.root / "strict", world.platform, attributes=STRICT)
    strict.define(limits={"rejects": 0}, destination=QUICK)
    strict.log("monday", rows(20))
    strict.run()
    assert set(strict.states()) == {"held"}
    stream = strict.stream()
    with strict.ledger() as ledger:
        ledger.deliveries.release(stream, 1, who="a test", why="these may be missing")
    strict.run()
    assert set(strict.states()) == {"closed"}
    assert strict.platform_rows() == 17


STRICT = (
    ("distance", "INTEGER", "PIPELINE_INPUT"),
    ("carrier", "STRING", "PIPELINE_INPUT"),
    ("score", "FLOAT", "PREDICTED_VALUE"),
    ("note", "STRING", "PREDICTED_VALUE"),
    ("late", "INTEGER", "GROUND_TRUTH"),
)


def test_a_refused_row_can_be_sent_again_once_it_is_corrected(world: World) -> None:
    strict = World.make(world.root / "strict", world.platform, attributes=STRICT)
    strict.define(limits={"rejects": "90%"}, destination=QUICK)
    strict.log("monday", rows(20))
    strict.run()
    assert strict.platform_rows() == 17
    strict.log("corrected", [one | {"note": "mended"} for one in rows(20, logged_at=after(hours=3))])
    outcome = strict.run()
    assert outcome.tally.published == 3
    assert outcome.tally.rejected == {"changed_after_sent": 17}
    assert strict.platform_rows() == 20


@pytest.mark.parametrize("seed", [1, 2])
def test_everything_at_once_at_a_fifth_of_all_requests(world: World, platform: Platform, seed: int) -> None:
    world.define(limits={"cut_rows": 60}, destination={"loading": "2s", "retries": 2, "connections": 2})
    platform.process.configure(
        seed=seed,
        faults=[
            {"fault": "lose_reply", "kind": "file", "share": 0.2},
            {"fault": "fail_after", "kind": "file", "share": 0.2, "status": 500},
            {"fault": "reset", "kind": "file", "share": 0.2, "after_bytes": 500},
            {"fault": "throttle", "kind": "file", "share": 0.2, "retry_after": 0},
            {"fault": "drop", "kind": "file", "share": 0.2, "rows": 0.3},
            {"fault": "lose_reply", "kind": "rows", "share": 0.2},
            {"fault": "fail", "kind": "query", "share": 0.05},
        ],
    )
    until_closed(world)
    assert world.everything_arrived_once(600)
    assert world.mark() > START.isoformat()
