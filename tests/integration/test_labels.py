"""Labels go the same path as inferences, and join them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.labels import LANDED, label, labels, of_labels, run_both, run_labels, shown, versions_sent
from tests.world import World, rows, said


@pytest.fixture
def labelled(world: World) -> World:
    return of_labels(world)


def test_labels_arrive_after_their_inferences_in_one_run(labelled: World) -> None:
    labelled.log("monday", rows(20))
    labels(labelled, "monday", [label(n, n % 3) for n in range(20)])
    first, second = run_both(labelled)
    assert (said(first), said(second)) == ("", "")
    assert (first.tally.published, second.tally.published, second.arrived) == (20, 20, 20)
    assert shown(labelled) == {f"r{n:06d}": n % 3 for n in range(20)}


def test_a_second_run_sends_no_label_again(labelled: World) -> None:
    labelled.log("monday", rows(5))
    labels(labelled, "monday", [label(n, 1) for n in range(5)])
    run_both(labelled)
    _, again = run_both(labelled)
    assert (again.cuts, again.tally.published) == (0, 0)
    assert len(versions_sent(labelled)) == 5


def test_zero_is_a_label_and_null_is_not_one_yet(labelled: World) -> None:
    labelled.log("monday", rows(3))
    labels(labelled, "monday", [label(0, 0), label(1, None), label(2, 7)])
    _, first = run_both(labelled)
    assert shown(labelled) == {"r000000": 0, "r000002": 7}
    assert first.tally.scanned == 2
    labels(labelled, "monday", [label(0, 0), label(1, 4), label(2, 7)])
    run_both(labelled)
    assert shown(labelled) == {"r000000": 0, "r000001": 4, "r000002": 7}


def test_a_changed_label_is_sent_and_an_equal_one_is_not(labelled: World) -> None:
    labelled.log("monday", rows(2))
    labels(labelled, "a", [label(0, 1), label(1, 1)])
    run_both(labelled)
    later = LANDED + timedelta(hours=1)
    labels(labelled, "b", [label(0, 2, known=later), label(1, 1, known=later)])
    _, second = run_both(labelled)
    assert said(second) == ""
    assert (second.tally.published, second.tally.duplicates) == (1, 1)
    assert shown(labelled) == {"r000000": 2, "r000001": 1}


def test_a_label_that_changes_and_changes_back_is_sent_each_time(labelled: World) -> None:
    labelled.log("monday", rows(1))
    for number, late in enumerate((5, 9, 5)):
        labels(labelled, f"{number}", [label(0, late, known=LANDED + timedelta(hours=number))])
        _, outcome = run_both(labelled)
        assert (said(outcome), outcome.tally.published) == ("", 1)
        assert shown(labelled) == {"r000000": late}


def test_the_newest_label_of_a_slice_wins(labelled: World) -> None:
    labelled.log("monday", rows(1))
    labels(labelled, "all", [label(0, late, known=LANDED + timedelta(minutes=late)) for late in (3, 9, 6)])
    _, outcome = run_both(labelled)
    assert (outcome.tally.published, outcome.tally.superseded) == (1, 2)
    assert shown(labelled) == {"r000000": 9}


def test_an_older_label_that_turns_up_late_never_overwrites(labelled: World) -> None:
    labelled.log("monday", rows(1))
    labels(labelled, "new", [label(0, 2, known=LANDED + timedelta(hours=2))])
    run_both(labelled)
    labels(labelled, "old", [label(0, 1, known=LANDED)])
    _, outcome = run_both(labelled)
    assert (outcome.tally.published, outcome.tally.superseded) == (0, 1)
    assert shown(labelled) == {"r000000": 2}


def test_an_equal_label_that_is_not_sent_is_remembered_as_the_newest(labelled: World) -> None:
    labelled.log("monday", rows(1))
    labels(labelled, "first", [label(0, 1)])
    run_both(labelled)
    labels(labelled, "again", [label(0, 1, known=LANDED + timedelta(hours=2))])
    run_both(labelled)
    labels(labelled, "between", [label(0, 8, known=LANDED + timedelta(hours=1))])
    _, outcome = run_both(labelled)
    assert (outcome.tally.published, outcome.tally.superseded) == (0, 1)
    assert shown(labelled) == {"r000000": 1}


def test_a_label_waits_for_its_inference_and_goes_in_the_first_run_after_it(labelled: World) -> None:
    labels(labelled, "early", [label(n, n) for n in range(4)])
    labelled.log("first", rows(2))
    _, outcome = run_both(labelled)
    assert (outcome.tally.published, outcome.tally.waiting, outcome.tally.rejects) == (2, 2, 0)
    assert shown(labelled) == {"r000000": 0, "r000001": 1}
    labelled.log("second", rows(1, first=2, at=LANDED))
    _, outcome = run_both(labelled)
    assert (outcome.tally.published, outcome.tally.waiting) == (1, 1)
    assert shown(labelled) == {"r000000": 0, "r000001": 1, "r000002": 2}
    labelled.log("third", rows(1, first=3, at=LANDED + timedelta(hours=1)))
    labels(labelled, "early", [])  # the store keeps what the source has forgotten
    run_both(labelled)
    assert shown(labelled) == {f"r{n:06d}": n for n in range(4)}
    _, nothing = run_both(labelled)
    assert nothing.cuts == 0


def test_labels_that_run_alone_are_held_until_inferences_were_uploaded(labelled: World) -> None:
    labelled.log("monday", rows(3))
    labels(labelled, "monday", [label(n, n) for n in range(3)])
    alone = run_labels(labelled)
    assert (alone.tally.published, alone.tally.waiting) == (0, 3)
    labelled.run()
    run_labels(labelled)
    assert shown(labelled) == {f"r{n:06d}": n for n in range(3)}
