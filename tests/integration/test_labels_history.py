"""What a run opens of the past to know what becomes of a label: the days of its inferences, and no more."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
from tests.labels import LANDED, label, labels, of_labels, run_both, run_labels, shown
from tests.world import NOW, START, World, ns, rows, said

LONG = timedelta(days=40)
"""Between two inferences; labels come right after each."""


def aged(world: World) -> tuple[Path, Path]:
    """Two labelled inferences far apart, each in slices of its own. Returns the file of versions and the staged file
    of the older one."""
    of_labels(world)
    world.log("old", rows(1))
    labels(world, "old", [label(0, 1)])
    run_both(world)
    world.now = NOW + LONG
    world.log("new", rows(1, first=1, at=START + LONG))
    labels(world, "new", [label(1, 1, known=LANDED + LONG, landed_at=LANDED + LONG)])
    assert said(run_both(world)[1]) == ""
    flights = world.staging.root / "flights"
    return (
        sorted((flights / "ground_truth" / "_tidepost" / "versions").glob("*.parquet"))[0],
        next((flights / "inferences" / "data" / f"event_day={START:%Y-%m-%d}").glob("*.parquet")),
    )


def test_only_the_versions_of_the_days_of_a_cuts_inferences_are_opened_and_none_may_be_missing(world: World) -> None:
    versions, staged = aged(world)
    versions.rename(versions.with_suffix(".away"))
    staged.rename(staged.with_suffix(".away"))
    later = LANDED + LONG + timedelta(hours=1)
    labels(world, "new", [label(1, 2, known=later, landed_at=LANDED + LONG)])
    outcome = run_labels(world)
    assert (said(outcome), outcome.tally.published) == ("", 1)
    assert shown(world) == {"r000000": 1, "r000001": 2}
    staged.with_suffix(".away").rename(staged)
    labels(world, "old", [label(0, 3, known=later)])
    assert "should be there and is not" in said(run_labels(world))
    versions.with_suffix(".away").rename(versions)
    outcome = run_labels(world)
    assert (said(outcome), outcome.tally.published) == ("", 1)
    assert shown(world) == {"r000000": 3, "r000001": 2}


def test_an_inference_is_looked_for_in_all_that_the_horizon_allows_before_its_label_is_held(world: World) -> None:
    _, staged = aged(world)
    far = {"known": LANDED + LONG + timedelta(hours=1), "landed_at": LANDED + LONG}
    labels(world, "new", [label(0, 4, **far), label(1, 4, **far)])
    staged.rename(staged.with_suffix(".away"))
    assert "should be there and is not" in said(run_labels(world))
    staged.with_suffix(".away").rename(staged)
    outcome = run_labels(world)
    assert (said(outcome), outcome.tally.published, outcome.tally.waiting) == ("", 2, 0)
    assert shown(world) == {"r000000": 4, "r000001": 4}


def test_a_label_of_an_id_of_two_inferences_belongs_to_the_newest_that_is_not_after_it(world: World) -> None:
    """The same ids once more after the lookback. The platform knows one of each, and has its newest label."""
    of_labels(world, limits={"cut_rows": 1})
    later = timedelta(hours=36)
    world.now = NOW + 2 * later
    world.log("new", rows(2, at=START + later))
    world.run()
    world.log("old", rows(2))
    assert world.backfill(START, LANDED).tally.published == 2
    of_new = [label(n, 5, known=LANDED + later, landed_at=LANDED + later) for n in range(2)]
    of_old = [label(n, 3, known=LANDED + timedelta(hours=n)) for n in range(2)]
    early = label(1, 9, known=LANDED + 1.1 * later, landed_at=START - timedelta(hours=1))
    labels(world, "all", [*of_old, *of_new, early])
    outcome = run_labels(world)
    assert (said(outcome), outcome.tally.published) == ("", 5)
    folder = world.staging.root / "flights" / "ground_truth" / "_tidepost" / "versions"
    versions = [one for path in sorted(folder.glob("*.parquet")) for one in pq.read_table(path).to_pylist()]
    at = {ns(one["known_at"]): one["late"] for one in (*of_old, *of_new, early)}
    assert sorted((one["id"], at[int(one["known"])], one["inference"]) for one in versions) == [
        ("r000000", 3, 2),
        ("r000000", 5, 1),
        ("r000001", 3, 2),
        ("r000001", 5, 1),
        ("r000001", 9, 2),
    ]
    assert shown(world) == {"r000000": 5, "r000001": 9}
    labels(world, "late", [label(0, 4, known=LANDED + timedelta(hours=3))])
    outcome = run_labels(world)
    assert (said(outcome), outcome.tally.published) == ("", 0)
    assert shown(world)["r000000"] == 5
