"""Runs of a job whose inferences go to Arize, which cannot be asked: receipts close its deliveries, and repeats merge
by their ids."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.s3 import NewPlace
from tests.to_arize import SPACE, arrived, held, of_arize, release
from tests.world import World, eventually, rows, said

from tidepost.errors import Misconfigured
from tidepost.sandbox.settings import Fault

ROWS = 200


@pytest.fixture
def world(world: World) -> World:
    """Three slices of a file each, to a classifier of its own."""
    of_arize(world)
    world.define(limits={"cut_rows": ROWS})
    world.log("monday", rows(3 * ROWS, every=30))
    return world


def fault(world: World, name: Any, **about: Any) -> None:
    world.platform.process.fault(Fault(name, kind="file", count=1, **about))


def reason(world: World) -> str:
    (one,) = held(world)
    return one.reason


def test_every_row_arrives_once_with_what_the_job_maps(world: World) -> None:
    outcome = world.run()
    assert (said(outcome), outcome.arrived) == ("", 3 * ROWS)
    assert arrived(world) == (3 * ROWS, 3 * ROWS)
    assert world.states() == {"closed": 3}
    assert world.mark() > "2024"
    receipts = world.staging.root / "flights" / "inferences" / "_tidepost" / "receipts"
    texts = [path.read_text() for path in receipts.glob("*.json")]
    assert ['"accepted": 200' in text and '"failed": 0' in text for text in texts] == [True] * 3
    record = world.platform.process.arize_records(SPACE, world.model, ["r000008"])["r000008"]
    assert record["features"] == {"distance": 108, "carrier": "DL"}
    assert (record["tags"], record["prediction_score"], record["version"]) == ({"note": "note 8"}, 0.08, "3")
    world.run()
    assert arrived(world) == (3 * ROWS, 3 * ROWS)


def test_files_have_no_more_rows_than_a_request(world: World) -> None:
    world.define(destination={"request_rows": 90})
    world.run()
    assert [pq.read_metadata(file).num_rows for file in world.files()] == [90, 90, 20] * 3
    assert arrived(world) == (3 * ROWS, 3 * ROWS)


def test_a_lost_reply_is_held_for_a_person_and_goes_again_once_it_is_released(world: World) -> None:
    fault(world, "lose_reply")
    outcome = world.run()
    assert (outcome.held, outcome.arrived) == (1, 2 * ROWS)
    assert "arize cannot be asked, so look there" in reason(world)
    world.run()
    assert arrived(world) == (3 * ROWS, 3 * ROWS)
    release(world)
    assert not said(world.run())
    assert arrived(world) == (3 * ROWS, 4 * ROWS)
    assert world.states() == {"closed": 3}


def test_a_lost_reply_that_was_looked_up_is_not_sent_again(world: World) -> None:
    fault(world, "lose_reply")
    world.run()
    release(world, gone=False)
    assert not said(world.run())
    assert arrived(world) == (3 * ROWS, 3 * ROWS)


@pytest.mark.parametrize("lost", ["lose_reply", "reset"])
def test_where_the_job_says_so_a_lost_reply_goes_again_and_its_ids_merge(
    world: World, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidepost.delivery.confirm.FIRST_REPEAT", 0.01)
    world.define(destination={"on_unknown": "resend"})
    fault(world, lost, **({"after_bytes": 10_000_000} if lost == "reset" else {}))
    outcome = world.run()
    assert (said(outcome), outcome.arrived) == ("", 3 * ROWS)
    assert arrived(world) == (3 * ROWS, (4 if lost == "lose_reply" else 3) * ROWS)


def test_a_sender_that_is_killed_leaves_what_nobody_can_tell_of(world: World) -> None:
    fault(world, "delay", seconds=30)
    intents = world.staging.root / "flights" / "inferences" / "_tidepost" / "intents"
    with world.spawned("killed") as process:
        eventually(lambda: list(intents.glob("*.json")))
        process.kill()
    world.platform.process.configure(faults=[])
    outcome = world.run()
    assert outcome.held == 1
    assert "sent without an answer" in reason(world)
    release(world)
    assert not said(world.run())
    assert arrived(world)[0] == 3 * ROWS


def test_rows_that_break_a_rule_of_arizes_hold_their_slice_with_the_rule(world: World) -> None:
    world.log("tuesday", rows(10, first=3 * ROWS, every=1, note="x" * 20_001))
    outcome = world.run()
    assert outcome.held >= 1
    assert all("rows and does not say which" in one.reason for one in held(world))
    receipts = world.staging.root / "flights" / "inferences" / "_tidepost" / "receipts"
    assert any("note has more than 20000 characters" in path.read_text() for path in receipts.glob("*.json"))
    assert arrived(world)[0] == 3 * ROWS


def test_too_many_requests_are_waited_for_and_a_platform_that_is_down_costs_nothing(world: World) -> None:
    world.platform.process.fault(Fault("throttle", kind="file", retry_after=0.0, count=3))
    outcome = world.run()
    assert "too many requests" in said(outcome)
    assert arrived(world)[0] < 3 * ROWS
    assert not said(world.run())
    assert arrived(world) == (3 * ROWS, 3 * ROWS)


def test_another_model_or_space_is_not_gone_on_with(world: World) -> None:
    world.run()
    world.variables["ARIZE_SPACE_ID"] = "another"
    with pytest.raises(Misconfigured, match="destination arize"):
        world.run()
    world.variables["ARIZE_SPACE_ID"] = SPACE
    world.define(destination={"version": "4"})
    assert not said(world.run())


def test_validate_connects_and_sends_nothing(world: World) -> None:
    def validated(**changes: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "tidepost.cli", "validate", "flights", "--connect"],
            cwd=world.root,
            env={**os.environ, **world.env, **changes},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    code, told = validated()
    assert (code, "which arize takes" in told) == (0, True), told
    world.define(mapping={"inputs": ["at", "carrier"]})
    code, told = validated()
    assert (code, "at is TIMESTAMP WITH TIME ZONE, which is no feature of Arize's" in told) == (2, True), told
    assert arrived(world) == (0, 0)


def test_files_that_are_staged_on_s3_go_from_there(world: World, new_place: NewPlace) -> None:
    (world.root / "tidepost.yaml").write_text(f"version: 1\nstaging: {new_place()}\n")
    outcome = world.run()
    assert (said(outcome), outcome.arrived) == ("", 3 * ROWS)
    assert arrived(world) == (3 * ROWS, 3 * ROWS)
