"""Labels whose data files were purged, and that the platform lost: brought back from where they came, or refused."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

from tests.cli.conftest import NOW_TEXT, Shell
from tests.integration.test_labels_files import drop, line
from tests.labels import LANDED, label, labels, of_labels, run_both, run_labels, shown
from tests.s3 import S3Server
from tests.world import World, rows, said

from tidepost.s3.connection import Store

OF_LABELS = ("flights", "--stream", "ground_truth", "--now", NOW_TEXT)
FOUND = {"r000000": 7, "r000001": 1, "r000002": 0, "r000020": 6, "r000021": 4}


def test_purged_labels_come_back_from_query_held_labels_and_the_same_file_or_are_refused(
    world: World, tidepost: Shell
) -> None:
    (world.root / "drops").mkdir()
    of_labels(world, files="drops/*.csv")
    world.define(destination={"loading": "1s", "poll": "1s"}, staging={"keep": "0s"})
    world.log("monday", rows(10))
    labels(world, "first", [label(0, 5), label(0, 7, known=LANDED + timedelta(hours=1)), label(21, 4)])
    week = drop(world, "week.csv", line(1, 1), line(2, 0), line(20, 6))
    run_both(world)
    world.log("late", rows(2, first=20, at=LANDED))
    assert said(run_both(world)[1]) == ""
    assert shown(world) == FOUND

    def lose() -> None:
        assert world.platform.process.lose(world.model_id, list(FOUND), stream="ground_truth") == len(FOUND)
        assert tidepost.here("purge", "flights", "--json").document["purged"][1]["slices"] >= 1
        assert not list((world.staging.root / "flights" / "ground_truth" / "data").rglob("*.parquet"))

    lose()
    assert tidepost.here("reconcile", *OF_LABELS, "--json", code=7).document["total"]["at"]["arthur"]["lost"] == 5
    assert tidepost.here("resend", *OF_LABELS, "--yes", "--json").document["lost"] == 5
    assert shown(world) == FOUND

    lose()
    text, modified = week.read_text(), week.stat().st_mtime
    week.write_text(text.replace("r000001,1", "r000001,3"))
    ended = tidepost.here("resend", *OF_LABELS, "--yes", code=2)
    assert "week.csv is gone, or has changed since it was found" in ended.err
    assert "the files of slice" in ended.err
    assert shown(world) == {name: late for name, late in FOUND.items() if name not in ("r000001", "r000002")}
    week.write_text(text)
    os.utime(week, (modified, modified))
    tidepost.here("reconcile", *OF_LABELS, "--repair", "--yes")
    assert shown(world) == FOUND
    held = next((world.staging.root / "flights" / "ground_truth" / "_tidepost" / "held").glob("*.parquet"))
    lose()
    held.unlink()
    ended = tidepost.here("resend", *OF_LABELS, "--yes", code=2)
    assert "it holds labels that wait for their inference" in ended.err


def test_purged_labels_come_back_from_an_object_that_was_put_there_once_more(
    world: World, tidepost: Shell, s3: S3Server
) -> None:
    place = s3.new_place()
    store, week = Store.at(place), f"id,late,landed_at\n{line(1, 1)}\n".encode()
    of_labels(world, files=f"{place}/drops/*.csv")
    world.define(destination={"loading": "1s", "poll": "1s"}, staging={"keep": "0s"})
    world.log("monday", rows(3))
    labels(world, "first", [label(0, 7)])
    store.put("drops/week.csv", week)
    world.now = datetime.now(UTC) + timedelta(minutes=10)
    run_both(world)
    found = {"r000000": 7, "r000001": 1}
    assert shown(world) == found
    world.platform.process.lose(world.model_id, list(found), stream="ground_truth")
    assert tidepost.here("purge", "flights", "--json").document["purged"][1]["slices"] >= 1
    time.sleep(1.1)  # S3 knows when an object was modified by the second
    store.put("drops/week.csv", week)
    tidepost.here("resend", "flights", "--stream", "ground_truth", "--now", world.now.isoformat(), "--yes")
    assert shown(world) == found
    again = run_labels(world)
    assert (again.cuts, again.tally.published) == (1, 0)  # it is read again, and has nothing new
