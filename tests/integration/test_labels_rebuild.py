"""A ledger lost: what the staging tells of labels is enough to go on."""

from __future__ import annotations

from datetime import timedelta

from tests.integration.test_rebuild import lose, rebuilt
from tests.labels import LANDED, label, labels, of_labels, run_both, shown, versions_sent
from tests.world import World, rows, said


def test_after_a_rebuild_no_label_is_sent_again_overwritten_or_lost(world: World) -> None:
    of_labels(world)
    world.log("monday", rows(3))
    labels(world, "first", [*(label(n, 1) for n in range(3)), label(9, 4)])
    run_both(world)
    labels(world, "second", [label(0, 2, known=LANDED + timedelta(hours=2))])
    run_both(world)
    before = versions_sent(world)
    lose(world.root)
    assert [(one.name, one.rows) for one in rebuilt(world.root)] == [("inferences", 3), ("ground_truth", 4)]
    labels(world, "first", [label(n, 1) for n in range(3)])  # the source has forgotten what is held
    labels(world, "third", [label(0, 8, known=LANDED + timedelta(hours=1))])
    _, outcome = run_both(world)
    assert (said(outcome), outcome.tally.published) == ("", 0)
    assert (versions_sent(world), shown(world)) == (before, {"r000000": 2, "r000001": 1, "r000002": 1})
    world.log("later", rows(1, first=9, at=LANDED))
    _, outcome = run_both(world)
    assert (said(outcome), outcome.tally.published) == ("", 1)
    assert shown(world) == {"r000000": 2, "r000001": 1, "r000002": 1, "r000009": 4}


def test_labels_that_wait_alone_outlive_their_ledger(world: World) -> None:
    of_labels(world)
    world.log("monday", rows(1))
    labels(world, "early", [label(n, 1) for n in (5, 6)])
    run_both(world)
    lose(world.root)
    rebuilt(world.root)
    labels(world, "early", [])
    world.log("later", rows(1, first=5, at=LANDED))
    run_both(world)
    world.log("last", rows(1, first=6, at=LANDED + timedelta(hours=1)))
    run_both(world)
    assert shown(world) == {"r000005": 1, "r000006": 1}
