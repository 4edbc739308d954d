"""Labels that come by dropped files alone: no source, no cursor, and the same guarantees."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from tests.cli.conftest import NOW_TEXT, Shell
from tests.integration.test_labels_files import MORNING, drop, line
from tests.integration.test_rebuild import lose, rebuilt
from tests.labels import (
    LANDED,
    label,
    labels,
    of_labels,
    run_both,
    run_labels,
    shown,
    stream_of_labels,
    versions_sent,
)
from tests.world import NOW, World, rows, said

from tidepost.labels.dropping import aside


@pytest.fixture
def dropped(world: World) -> World:
    """A world with ten inferences, whose labels are dropped and come from nowhere else."""
    (world.root / "drops").mkdir()
    of_labels(world, source=None, cursor=None, files="drops/*")
    world.log("monday", rows(10))
    return world


def test_labels_come_by_files_alone(dropped: World, tidepost: Shell) -> None:
    first, second = run_both(dropped)
    assert (said(first), said(second), second.cuts) == ("", "", 0)

    bad = drop(dropped, "a.csv")
    bad.write_text("something else\n1\n")
    os.utime(bad, ((MORNING - timedelta(hours=1)).timestamp(),) * 2)
    drop(dropped, "week.csv", line(1, 1), line(2, 0), line(20, 6))
    drop(dropped, "now.csv", line(3, 3), at=NOW - timedelta(minutes=1))
    _, outcome = run_both(dropped)
    assert (said(outcome), outcome.tally.published, outcome.tally.waiting) == ("", 2, 1)
    assert shown(dropped) == {"r000001": 1, "r000002": 0}
    assert [one.path for one in aside(dropped.area, stream_of_labels(dropped))] == [str(bad)]

    dropped.now += timedelta(minutes=10)
    assert (run_labels(dropped).tally.published, run_labels(dropped).cuts) == (1, 0)
    drop(dropped, "week.csv", line(1, 9), line(2, 0), line(20, 6), at=MORNING + timedelta(hours=1))
    outcome = run_labels(dropped)
    assert (outcome.tally.published, outcome.tally.duplicates) == (1, 1)
    for path in (dropped.root / "drops").iterdir():
        path.unlink()  # nothing needs them any more
    lose(dropped.root)
    rebuilt(dropped.root)
    dropped.log("late", rows(1, first=20, at=LANDED))
    _, outcome = run_both(dropped)
    assert (said(outcome), outcome.tally.published) == ("", 1)
    assert shown(dropped) == {"r000001": 9, "r000002": 0, "r000003": 3, "r000020": 6}
    sent = versions_sent(dropped)
    assert len(sent) == len(set(sent)) == 5

    told = tidepost.here("status", "flights", "--now", NOW_TEXT, "--json").document
    truth = told["streams"][1]
    assert (truth["rows"], truth["frontier"], truth["destinations"][0]["mark"]) == (5, None, None)
    assert (told["coverage"]["days"][0]["labelled"], told["coverage"]["held"]) == (4, 0)
    text = tidepost.here("status", "flights", "--now", NOW_TEXT).out
    assert "a.csv" in text
    of = ("flights", "--stream", "ground_truth")
    told = tidepost.here("reconcile", *of, "--json").document
    assert (told["agrees"], told["total"]["gone"], told["total"]["published"]) == (True, 5, 5)
    assert (told["total"]["at"]["arthur"]["arrived"], told["total"]["at"]["arthur"]["replaced"]) == (4, 1)
    assert "what was published, by day of the labels' time" in tidepost.here("reconcile", *of).out
    assert "by files alone" in tidepost.here("validate", "flights").out
    assert tidepost.here("plan", *of, "--now", NOW_TEXT, "--json").document["cuts"] == []

    dropped.define(
        ground_truth={
            "source": "labels/*.parquet",
            "cursor": {"column": "known_at", "start": "2024-05-01T00:00:00Z"},
        }
    )
    labels(dropped, "all", [label(4, 4), label(1, 0)])
    outcome = run_labels(dropped)
    assert (said(outcome), outcome.tally.published, outcome.tally.superseded) == ("", 1, 1), "a source may come later"
    dropped.define(ground_truth={"source": None, "cursor": None})
    elsewhere = dropped.root / "elsewhere.csv"
    elsewhere.write_text(f"id,late,landed_at\n{line(5, 5)}\n")
    tidepost.here("ground-truth", "flights", str(elsewhere), "--now", NOW_TEXT)
    assert (shown(dropped)["r000004"], shown(dropped)["r000005"]) == (4, 5)
