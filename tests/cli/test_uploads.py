"""Uploading by command: what is told on which stream, and with which exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from tests.cli.conftest import NOW_TEXT, Ended, Shell
from tests.world import World, after, row, rows

from tidepost.ledger.owner import this_process
from tidepost.model import StreamName
from tidepost.sandbox.settings import Fault

Upload = Callable[..., Ended]


def test_a_run_uploads_and_the_next_one_says_that_nothing_is_new(
    world: World, tidepost: Shell, upload: Upload
) -> None:
    world.log("monday", rows(1500, every=30))
    first = tidepost("run", "flights", "--now", NOW_TEXT)
    assert "1,500 rows published in 2 slices" in first.out
    assert "1,500 arrived" in first.out
    assert "mark at arthur: 2024-05-02" in first.out
    assert world.everything_arrived_once(1500)
    again = upload()
    assert again.out.startswith("flights: nothing new\n")
    assert world.everything_arrived_once(1500)


def test_each_cut_is_one_line_of_the_log_without_values_or_colours(world: World, upload: Upload) -> None:
    world.log("monday", [*rows(1500, every=30), row(1500, after(hours=2), score=None), row(10, after(minutes=5))])
    done = upload()
    lines = done.err.splitlines()
    line = re.compile(r"cut \d/\d 2024-05-0\dT\S+Z → 2024-05-0\dT\S+Z \d+ rows( \(.*\))? published as slice \d")
    assert len(lines) > 1
    assert all(line.fullmatch(one) for one in lines)
    assert "(1 duplicate, 1 rejected) published as slice 1" in lines[0]
    assert "\x1b" not in done.out + done.err
    assert "r001500" not in done.out + done.err


def test_json_is_the_only_thing_on_standard_output(world: World, tidepost: Shell) -> None:
    world.log("monday", rows(60))
    done = tidepost("run", "flights", "--now", NOW_TEXT, "--json", "--log-format", "json", "--verbose")
    document = done.document
    assert (document["published"], document["arrived"], document["left"], document["held"]) == (60, 60, 0, 0)
    assert document["marks"] == {"arthur": "2024-05-01T12:59:00.000001Z"}
    events = [json.loads(line).get("event") for line in done.err.splitlines()]
    assert {"cut", "sent", "arrived"} <= set(events)


def test_a_backfill_sends_what_was_not_sent_and_says_where_it_ended(
    world: World, tidepost: Shell, upload: Upload
) -> None:
    world.log("monday", rows(60))
    upload()
    world.log("late", [row(60, after(minutes=30))])
    done = tidepost.here("backfill", "flights", "--from", "2024-05-01", "--to", "2024-06-01", "--now", NOW_TEXT)
    assert "1 row published in 1 slice" in done.out
    assert "60 rows known from earlier scans" in done.out
    assert "looked at up to 2024-05-01T12:59Z: it holds no settled row beyond" in done.out
    assert world.everything_arrived_once(61)


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("2024-05-01T12:00", "2024-05-02", "it has no time zone"),
        ("2024-05-02", "2024-05-01", "is empty"),
        ("soon", "2024-05-01", "'soon' is not a timestamp position"),
    ],
)
def test_a_range_that_is_none_is_refused(world: World, tidepost: Shell, start: str, end: str, said: str) -> None:
    world.log("monday", rows(1))
    assert said in tidepost.here("backfill", "flights", "--from", start, "--to", end, code=2).err


def test_a_platform_that_does_not_answer_is_tried_later(world: World, upload: Upload) -> None:
    world.log("monday", rows(10))
    world.define(destination={"retries": 0})
    done = upload("--json", code=4, SANDBOX_URL="http://127.0.0.1:9")
    assert done.document["error"]["kind"] == "Retryable"
    upload()
    assert world.everything_arrived_once(10)


def test_an_outcome_that_nobody_knows_has_its_own_code_and_is_asked_about(world: World, upload: Upload) -> None:
    world.log("monday", rows(10))
    world.define(destination={"retries": 0})
    world.platform.process.fault(Fault("lose_reply", kind="file", count=1))
    world.platform.process.fault(Fault("fail", kind="query"))
    unknown = upload(code=5)
    assert "Nothing is sent again before the destination was asked." in unknown.err
    world.platform.reset()
    with world.ledger() as ledger:
        stream = ledger.plans.find("flights", StreamName.INFERENCES)
        assert stream is not None
        (delivery,) = ledger.deliveries.open(stream, "arthur")
        lease = ledger.leases.take("delivery", delivery.id, this_process(), 60)
        elsewhere = upload(code=6)
        assert "held by" in elsewhere.err
        ledger.leases.release(lease)
    upload()
    assert world.everything_arrived_once(10)


def test_too_many_rejects_hold_the_slice_until_a_person_lets_it_go(
    world: World, tidepost: Shell, upload: Upload
) -> None:
    world.log("monday", [row(n, after(minutes=n), score=None if n % 2 else 0.5, note="private") for n in range(10)])
    done = tidepost("run", "flights", "--now", NOW_TEXT, code=3)
    assert "5 of 10 rows rejected" in done.err
    assert "tidepost release flights 1" in done.err
    status = tidepost.here("status", "flights").out
    assert "held" in status
    assert "over the limit of 1%" in status

    shown = tidepost.here("rejects", "flights")
    assert "null_prediction:score" in shown.out
    assert "_tidepost/rejects/00000001.parquet" in shown.out
    assert "private" not in done.out + done.err + status + shown.out
    assert "private" in tidepost.here("rejects", "flights", "--show-rows").out

    assert "--yes" in tidepost.here("release", "flights", "1", "--why", "tests", code=2).err
    assert world.states() == {"held": 1}
    assert "may go to arthur" in tidepost.here("release", "flights", "1", "--why", "tests", "--yes").out
    with world.ledger() as ledger:
        assert {entry.why for entry in ledger.reports.audit("flights")} == {"tests"}
    act = world.staging.root / "flights" / "inferences" / "_tidepost" / "acts" / "00000001.json"
    assert json.loads(act.read_text())["release"] == {"sequence": 1, "sent": {"arthur": {}}, "arrived": False}
    upload()
    assert world.everything_arrived_once(5)


def test_a_slice_that_is_not_held_cannot_be_released(world: World, tidepost: Shell, upload: Upload) -> None:
    world.log("monday", rows(5))
    upload()
    assert (
        "slice 1 of flights is not held"
        in tidepost.here("release", "flights", "1", "--why", "x", "--yes", code=2).err
    )


def test_status_before_and_after_the_first_run(world: World, tidepost: Shell, upload: Upload) -> None:
    world.log("monday", rows(25))
    assert "never ran" in tidepost.here("status").out
    assert tidepost.here("status", "flights", "--json").document == {
        "ran": False,
        "job": "flights",
        "streams": [],
        "coverage": None,
    }
    assert not (world.root / ".tidepost").exists()
    upload()
    document = tidepost.here("status", "--json", "--now", NOW_TEXT).document
    (stream,) = document["jobs"][0]["streams"]
    (destination,) = stream["destinations"]
    assert (stream["rows"], destination["arrived"], destination["open"]) == (25, 25, 0)
    assert destination["lag"] == pytest.approx(23.6 * 3600, abs=1)
    assert "25 rows" in tidepost.here("status", "flights").out
