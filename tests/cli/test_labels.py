"""What the commands say of labels."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from tests.cli.conftest import NOW_TEXT, Ended, Shell
from tests.labels import LANDED, label, labels, of_labels, shown
from tests.world import NOW, START, World, rows

from tidepost.cli.covered import coverage_text
from tidepost.destinations.arize.destination import JOINS_WITHIN
from tidepost.labels.coverage import Coverage, Day


def test_one_run_uploads_inferences_and_then_their_labels(
    world: World, tidepost: Shell, upload: Callable[..., Ended]
) -> None:
    of_labels(world)
    world.log("monday", rows(4))
    labels(world, "monday", [*(label(n, 1) for n in range(3)), label(8, 1), label(9, 1)])
    told = upload("--json").document
    assert (told["published"], told["ground_truth"]["published"], told["ground_truth"]["waiting"]) == (4, 3, 2)
    labels(world, "more", [label(1, 5, known=LANDED + timedelta(hours=2)), label(2, 0, known=LANDED - timedelta(1))])
    text = upload().out
    assert "flights, ground truth: 1 label published in 1 slice" in text
    assert shown(world) == {"r000000": 1, "r000001": 5, "r000002": 1}


def test_status_shows_how_many_inferences_have_a_label_and_which_labels_are_orphans(
    world: World, tidepost: Shell, upload: Callable[..., Ended]
) -> None:
    of_labels(world, orphan_after="2d")
    world.log("monday", rows(4))
    labels(world, "monday", [*(label(n, 1) for n in range(3)), label(9, 1)])
    upload()
    (inferences, truth), told = _streams(tidepost), _coverage(tidepost, NOW_TEXT)
    assert (inferences["name"], truth["name"], truth["rows"], truth["waiting"]) == (
        "inferences",
        "ground_truth",
        3,
        1,
    )
    (day,) = told["days"]
    assert (day["day"], day["inferences"], day["labelled"]) == (START.date().isoformat(), 4, 3)
    assert day["median"] == timedelta(hours=3, minutes=-1).total_seconds()
    assert (told["held"], told["orphans"], told["named"]) == (1, 0, [])
    later = (NOW + timedelta(days=3)).isoformat()
    told = _coverage(tidepost, later)
    assert (told["held"], told["orphans"], told["named"]) == (1, 1, ["r000009"])
    text = tidepost.here("status", "flights", "--now", later).out
    assert "75%" in text
    assert "waiting for their inference: 1, of which 1 are orphans" in text
    assert "orphans: r000009" in text


def test_status_and_reconcile_name_the_days_whose_labels_come_too_late_for_the_platform(
    world: World, tidepost: Shell, upload: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_labels(world)
    world.log("monday", rows(1))
    labels(world, "monday", [label(0, 1)])
    upload()
    later = ("--now", (datetime.now(UTC) + timedelta(days=15)).isoformat())
    assert "too late" not in tidepost.here("status", "flights", *later).out
    monkeypatch.setattr("tidepost.wire.join_windows_of", lambda job: {"arthur": JOINS_WITHIN})
    assert "too late" not in tidepost.here("status", "flights", "--now", datetime.now(UTC).isoformat()).out
    told = f"further labels come too late at arthur for: {START:%Y-%m-%d}"
    assert told in tidepost.here("status", "flights", *later).out
    assert told in tidepost.here("reconcile", "flights", "--stream", "ground_truth", *later).out


def test_labels_that_cannot_be_found_do_not_hide_what_was_done(world: World, upload: Callable[..., Ended]) -> None:
    of_labels(world)
    world.log("monday", rows(4))
    told = upload("--json", code=2).document
    assert told["published"] == 4
    assert "nothing matches" in told["error"]["message"]


def test_a_run_may_be_of_one_stream_alone(world: World, upload: Callable[..., Ended]) -> None:
    of_labels(world)
    world.log("monday", rows(2))
    labels(world, "monday", [label(0, 1)])
    assert "ground_truth" not in upload("--stream", "inferences", "--json").document
    assert shown(world) == {}
    world.log("tuesday", rows(1, first=2))
    told = upload("--stream", "ground_truth", "--json").document
    assert (told["stream"], told["published"]) == ("ground_truth", 1)
    assert shown(world) == {"r000000": 1}
    assert world.platform_rows() == 2


def test_held_labels_are_released_by_the_command_that_status_shows(
    world: World, tidepost: Shell, upload: Callable[..., Ended]
) -> None:
    of_labels(world)
    world.log("monday", rows(2))
    labels(world, "monday", [label(0, 1), label(1, 1, landed_at=None)])
    upload(code=3)
    shows = tidepost.here("status", "flights").out
    assert "tidepost release flights --stream ground_truth 1" in " ".join(shows.split())
    tidepost.here("release", "flights", "--stream", "ground_truth", "1", "--why", "fine", "--yes")
    upload()
    assert shown(world) == {"r000000": 1}


def test_held_labels_are_planned_set_aside_ones_listed_and_a_held_slice_skipped_by_their_stream(
    world: World, tidepost: Shell, upload: Callable[..., Ended]
) -> None:
    of_labels(world)
    world.log("monday", rows(2))
    labels(world, "monday", [label(0, 1), label(1, 1, landed_at=None), label(7, 3)])
    upload(code=3)
    of = ("flights", "--stream", "ground_truth")
    world.log("late", rows(1, first=7, at=LANDED))
    assert tidepost.here("plan", *of, "--now", NOW_TEXT, "--json").document["cuts"] == []
    world.run()
    (cut,) = tidepost.here("plan", *of, "--now", NOW_TEXT, "--json").document["cuts"]
    assert (cut["lane"], cut["start"], cut["estimated"]) == ("held", None, 1)
    assert "held labels" in tidepost.here("plan", *of, "--now", NOW_TEXT).out
    told = [
        tidepost.here("rejects", *each, "--json").document for each in (("flights", "--stream", "inferences"), of)
    ]
    assert [each["reasons"] for each in told] == [{}, {"null_timestamp": 1}]
    assert "slice 1" in tidepost.here("skip", *of, "1", "--why", "wrong", "--yes").out
    upload()
    assert shown(world) == {"r000007": 3}


def test_a_range_of_labels_is_looked_at_again_by_hand(
    world: World, tidepost: Shell, upload: Callable[..., Ended]
) -> None:
    of_labels(world, cursor={"column": "known_at", "start": "2024-05-01T00:00:00Z", "lookback": "0s"})
    world.log("monday", rows(2))
    labels(world, "monday", [label(0, 1)])
    upload()
    labels(world, "late", [label(1, 2, known=LANDED - timedelta(hours=1))])
    upload()
    assert shown(world) == {"r000000": 1}
    options = ("--from", "2024-05-01", "--to", "2024-05-02", "--now", NOW_TEXT, "--json")
    told = tidepost.here("backfill", "flights", "--stream", "ground_truth", *options).document
    assert (told["stream"], told["published"], told["known"]) == ("ground_truth", 1, 1)
    assert shown(world) == {"r000000": 1, "r000001": 2}


def test_validate_checks_the_labels_against_source_and_model_too(world: World, tidepost: Shell) -> None:
    of_labels(world)
    world.log("monday", rows(1))
    labels(world, "monday", [label(0, 1)])
    told = tidepost.here("validate", "flights", "--connect").out
    assert "ground truth: valid; cursor known_at (timestamp), 3 columns to send, which arthur takes" in " ".join(
        told.split()
    )
    world.define(ground_truth={"attributes": {"lateness": "late"}})
    told = tidepost.here("validate", "flights", "--connect", code=2).err
    assert "lateness is not an attribute of the model" in told


def test_files_of_labels_are_uploaded_by_hand_once(
    world: World, tidepost: Shell, upload: Callable[..., Ended]
) -> None:
    of_labels(world)
    world.log("monday", rows(3))
    labels(world, "monday", [label(0, 1)])
    upload()
    (world.root / "extra.csv").write_text("id,late,landed_at\nr000001,4,2024-05-01T15:00:00Z\n")
    (world.root / "odd.csv").write_text("id,landed_at\nr000002,2024-05-01T15:00:00Z\n")
    now = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    by_hand = ("ground-truth", "flights", "extra.csv", "odd.csv", "--now", now, "--json")
    assert tidepost.here(*by_hand).document["published"] == 1
    assert shown(world) == {"r000000": 1, "r000001": 4}
    assert tidepost.here(*by_hand).document["cuts"] == 0
    assert "set aside: " in tidepost.here("status", "flights").out
    absent = tidepost.here("ground-truth", "flights", "none.csv", code=2)
    assert "none.csv is not there" in absent.err


def _coverage(tidepost: Shell, now: str) -> dict[str, Any]:
    found: dict[str, Any] = tidepost.here("status", "flights", "--json", "--now", now).document["coverage"]
    return found


def _streams(tidepost: Shell) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tidepost.here("status", "flights", "--json").document["streams"]
    return found


def test_a_share_is_whole_only_where_no_label_is_missing() -> None:
    days = (Day("2024-05-02", 1000, 999, 60.0, 90.0), Day("2024-05-01", 1000, 1000, 60.0, 90.0))
    told = StringIO()
    for one in coverage_text(Coverage(0, 0, (), days)):
        Console(file=told, width=120).print(one)
    assert [line.split()[3] for line in told.getvalue().splitlines() if line.startswith("2024")] == ["99%", "100%"]
