"""Files of labels that somebody drops: each is taken up once, and a bad one is in nobody's way."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.labels import LANDED, SCHEMA, label, labels, of_labels, run_both, run_labels, shown, stream_of_labels
from tests.s3 import S3Server
from tests.world import NOW, World, rows, said

from tidepost.labels.dropping import aside
from tidepost.s3.connection import Store

MORNING = NOW - timedelta(hours=6)


@pytest.fixture
def dropped(world: World) -> World:
    """A world with ten inferences, of which a query finds the label of the first, and whose labels are dropped."""
    (world.root / "drops").mkdir()
    of_labels(world, files="drops/*.csv")
    world.log("monday", rows(10))
    labels(world, "first", [label(0, 7)])
    return world


def drop(world: World, name: str, *lines: str, at: datetime = MORNING) -> Path:
    """A CSV file of labels, last modified at some time."""
    path = world.root / "drops" / name
    path.write_text("\n".join(["id,late,landed_at", *lines]) + "\n")
    os.utime(path, (at.timestamp(), at.timestamp()))
    return path


def line(number: int, late: int) -> str:
    return f"r{number:06d},{late},2024-05-01T15:00:00Z"


def test_one_run_uploads_the_labels_of_the_query_and_of_the_files(dropped: World) -> None:
    drop(dropped, "week.csv", line(1, 1), line(2, 0))
    _, outcome = run_both(dropped)
    assert (said(outcome), outcome.tally.published) == ("", 3)
    assert shown(dropped) == {"r000000": 7, "r000001": 1, "r000002": 0}
    assert run_labels(dropped).cuts == 0


def test_of_a_changed_file_only_changed_rows_go(dropped: World) -> None:
    drop(dropped, "week.csv", line(1, 1), line(2, 0))
    run_both(dropped)
    drop(dropped, "week.csv", line(1, 1), line(2, 5), line(3, 9), at=MORNING + timedelta(hours=1))
    _, outcome = run_both(dropped)
    assert (outcome.tally.published, outcome.tally.duplicates) == (2, 1)
    assert shown(dropped) == {"r000000": 7, "r000001": 1, "r000002": 5, "r000003": 9}
    drop(dropped, "week.csv", line(1, 1), line(2, 0), at=MORNING + timedelta(hours=2))  # as it was before
    run_both(dropped)
    assert shown(dropped)["r000002"] == 0


def test_a_file_that_may_still_be_written_waits_for_a_quiet_time(dropped: World) -> None:
    drop(dropped, "week.csv", line(1, 1), at=NOW - timedelta(minutes=1))
    run_both(dropped)
    assert shown(dropped) == {"r000000": 7}
    dropped.now += timedelta(minutes=5)
    run_both(dropped)
    assert shown(dropped) == {"r000000": 7, "r000001": 1}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"id,landed_at\nr000001,2024-05-01T15:00:00Z\n", "no column 'late'"),
        (b"id,late,landed_at\nr000001,soon,2024-05-01T15:00:00Z\n", "'late' is VARCHAR now"),
        (b"PAR1 is what it begins with", "column"),
        (b"", ""),
    ],
    ids=["a column short", "another type", "no CSV", "empty"],
)
def test_a_broken_file_is_set_aside_and_holds_up_nobody(dropped: World, content: bytes, told: str) -> None:
    bad = drop(dropped, "bad.csv")
    bad.write_bytes(content)
    os.utime(bad, (MORNING.timestamp(), MORNING.timestamp()))
    drop(dropped, "good.csv", line(1, 1))
    _, outcome = run_both(dropped)
    assert said(outcome) == ""
    assert shown(dropped) == {"r000000": 7, "r000001": 1}
    (found,) = aside(dropped.area, stream_of_labels(dropped))
    assert found.path == str(bad)
    assert told in found.error
    assert run_labels(dropped).cuts == 0
    drop(dropped, "bad.csv", line(2, 3))
    run_labels(dropped)
    assert shown(dropped) == {"r000000": 7, "r000001": 1, "r000002": 3}
    assert list(aside(dropped.area, stream_of_labels(dropped))) == [], "it was mended"


def test_the_newest_label_wins_across_query_and_files(dropped: World) -> None:
    run_both(dropped)
    drop(dropped, "newer.csv", line(0, 2), line(1, 4))
    run_both(dropped)
    assert shown(dropped) == {"r000000": 2, "r000001": 4}
    labels(
        dropped, "later", [label(1, 6, known=MORNING + timedelta(hours=1)), label(0, 1, known=LANDED + timedelta(1))]
    )
    dropped.now += timedelta(days=2)
    run_both(dropped)
    assert shown(dropped) == {"r000000": 1, "r000001": 6}
    drop(dropped, "older.csv", line(0, 9), line(1, 9))
    _, outcome = run_both(dropped)
    assert (outcome.tally.published, outcome.tally.superseded) == (0, 2)
    assert shown(dropped) == {"r000000": 1, "r000001": 6}


def test_a_file_may_say_itself_when_its_labels_became_known(world: World) -> None:
    (world.root / "drops").mkdir()
    of_labels(world, files={"paths": "drops/*.parquet", "known_at": "known_at"})
    world.log("monday", rows(3))
    labels(world, "first", [label(0, 1, known=LANDED + timedelta(hours=1))])
    path = world.root / "drops" / "all.parquet"
    late = [label(0, 5), label(1, 5, known=None)]  # type: ignore[arg-type]
    pq.write_table(pa.Table.from_pylist(late, schema=SCHEMA), path)
    os.utime(path, (MORNING.timestamp(), MORNING.timestamp()))
    run_both(world)
    assert shown(world) == {"r000000": 1, "r000001": 5}


def test_labels_of_a_file_wait_for_their_inference_too(dropped: World) -> None:
    path = drop(dropped, "early.csv", line(20, 2))
    _, outcome = run_both(dropped)
    assert outcome.tally.waiting == 1
    path.unlink()
    dropped.log("later", rows(1, first=20, at=LANDED))
    run_both(dropped)
    assert shown(dropped) == {"r000000": 7, "r000020": 2}


def test_files_are_found_in_s3(world: World, s3: S3Server) -> None:
    place = s3.new_place()
    store = Store.at(place)
    of_labels(world, files=f"{place}/drops/*.csv")
    world.log("monday", rows(3))
    labels(world, "first", [label(0, 7)])
    store.put("drops/week.csv", f"id,late,landed_at\n{line(1, 1)}\n".encode())
    world.now = datetime.now(UTC) + timedelta(minutes=10)
    run_both(world)
    assert shown(world) == {"r000000": 7, "r000001": 1}
    store.put("drops/week.csv", f"id,late,landed_at\n{line(1, 1)}\n{line(2, 3)}\n".encode())
    run_both(world)
    assert shown(world) == {"r000000": 7, "r000001": 1, "r000002": 3}
    store.put("drops/week.csv", f"id,late,landed_at\n{line(1, 4)}\n{line(2, 3)}\n".encode())
    run_both(world)
    assert shown(world)["r000001"] == 4
    time.sleep(1.1)  # S3 knows when an object was modified by the second
    store.put("drops/week.csv", f"id,late,landed_at\n{line(1, 1)}\n{line(2, 3)}\n".encode())  # as it was before
    run_both(world)
    assert shown(world) == {"r000000": 7, "r000001": 1, "r000002": 3}
    assert run_labels(world).cuts == 0
