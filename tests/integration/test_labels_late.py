"""Labels that become visible after their range was scanned: found by looking back, and each sent once."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest
from tests.labels import LANDED, label, labels, of_labels, rejected_labels, run_both, run_labels, shown, versions_sent
from tests.world import NOW, World, between, rows, said

from tidepost import run as engine
from tidepost.events import Planned
from tidepost.model import Request, ScanKind

DAY = timedelta(days=1)


@pytest.fixture
def labelled(world: World) -> World:
    """A world with sixty inferences, which are uploaded."""
    of_labels(world)
    world.log("monday", rows(60))
    world.run()
    return world


def known(**span: float) -> datetime:
    return LANDED + timedelta(**span)


def quiet(world: World) -> bool:
    """Whether one more run finds nothing to look at again."""
    outcome = run_labels(world)
    assert not said(outcome)
    return outcome.cuts == 0


def each_was_sent_once(world: World, number: int) -> bool:
    """Whether so many labels were published, each once."""
    sent = versions_sent(world)
    assert len(sent) == len(set(sent)) == number, sent
    return True


def test_labels_that_are_visible_late_are_found_and_sent_once(labelled: World) -> None:
    labels(labelled, "first", [label(0, 1), label(1, 1, known=known(hours=6)), label(2, 1, known=known(hours=20))])
    assert run_labels(labelled).tally.published == 3
    late = [
        label(3, 3, known=known(hours=20)),  # ties with the last one
        label(4, 4, known=known(hours=1)),  # in a range that was empty
        label(5, 5),  # ties with the first one
        label(1, 9, known=known(hours=3)),  # older than the one that was sent
        label(0, 7, known=known(hours=2)),  # newer than the one that was sent
        label(2, 1, known=known(hours=4)),  # older, and equal
    ]
    labels(labelled, "late", late)
    outcome = run_labels(labelled)
    assert (said(outcome), outcome.tally.published, outcome.tally.superseded) == ("", 4, 1)
    expected = {0: 7, 1: 1, 2: 1, 3: 3, 4: 4, 5: 5}
    assert shown(labelled) == {f"r{n:06d}": late for n, late in expected.items()}
    assert each_was_sent_once(labelled, 7)
    assert quiet(labelled)
    labels(labelled, "later", [label(0, 8, known=known(hours=1)), label(0, 2, known=known(hours=3))])
    assert run_labels(labelled).tally.published == 1
    assert shown(labelled)["r000000"] == 2
    assert quiet(labelled)


def test_labels_beyond_the_lookback_are_found_by_a_backfill(labelled: World) -> None:
    cursor = labelled.job["ground_truth"]["cursor"] | {"lookback": "1h"}
    labelled.define(ground_truth={"cursor": cursor, "limits": {"cut_rows": 5}})
    labels(labelled, "first", [label(n, 1, known=known(minutes=30 * n)) for n in range(20)])
    run_labels(labelled)
    labels(labelled, "late", [label(50, 5), label(51, 5, known=known(hours=9)), label(0, 3, known=known(minutes=5))])
    assert run_labels(labelled).tally.published == 1
    request = Request("backfill", ScanKind.BACKFILL, between(LANDED, NOW))
    with labelled.wired() as wired:
        assert wired.labels is not None
        outcome = engine.run(wired.labels, request, notice=labelled.events.append, stop=threading.Event())
    assert (said(outcome), outcome.tally.published, outcome.tally.known) == ("", 2, 21)
    assert each_was_sent_once(labelled, 23)
    assert (shown(labelled)["r000050"], shown(labelled)["r000000"]) == (5, 3)
    assert quiet(labelled)


def test_a_loader_of_labels_that_was_down_for_three_days_loses_none(labelled: World) -> None:
    labels(labelled, "monday", [label(n, 1) for n in range(10)])
    for day in range(4):
        labelled.now = NOW + day * DAY
        run_labels(labelled)
    caught_up = [
        label(10 * (day + 1) + n, day, known=known(days=day, hours=1)) for day in range(3) for n in range(10)
    ]
    changed = [label(n, 7, known=known(days=1)) for n in range(5)]
    labels(labelled, "caught up", [*caught_up, *changed])
    assert not said(run_labels(labelled))
    assert each_was_sent_once(labelled, 45)
    found = shown(labelled)
    assert [found[f"r{n:06d}"] for n in range(40)] == [7] * 5 + [1] * 5 + [0] * 10 + [1] * 10 + [2] * 10
    labels(labelled, "late", [label(55, 5, known=known(days=2, hours=0.5))])
    assert run_labels(labelled).tally.published == 1
    assert quiet(labelled)


def test_a_label_that_is_known_twice_hours_apart_is_sent_once_in_whatever_order_it_is_seen(labelled: World) -> None:
    labels(labelled, "evening", [label(n, 4, known=known(hours=5)) for n in range(4)])
    run_labels(labelled)
    labels(labelled, "morning", [label(n, 4) for n in range(4)])
    outcome = run_labels(labelled)
    assert (outcome.tally.published, outcome.tally.rejects) == (0, 0)
    labels(labelled, "night", [label(n, 4, known=known(hours=9)) for n in range(4)])
    outcome = run_labels(labelled)
    assert (outcome.tally.published, outcome.tally.duplicates) == (0, 4)
    labels(labelled, "between", [label(0, 6, known=known(hours=7))])
    assert run_labels(labelled).tally.superseded == 1
    assert each_was_sent_once(labelled, 4)
    assert set(shown(labelled).values()) == {4}
    assert quiet(labelled)


def test_a_bulk_update_that_stamps_all_labels_anew_sends_what_changed_alone(labelled: World) -> None:
    before = [label(n, n, known=known(minutes=n)) for n in range(50)]
    labels(labelled, "all", before)
    run_labels(labelled)
    stamped = [one | {"known_at": known(hours=8)} for one in before]
    stamped[7] = stamped[7] | {"late": 99}
    labels(labelled, "all", [*stamped, label(59, 1, known=known(hours=8))])
    outcome = run_labels(labelled)
    assert (said(outcome), outcome.tally.published, outcome.tally.duplicates) == ("", 2, 49)
    assert (shown(labelled)["r000007"], shown(labelled)["r000008"]) == (99, 8)
    assert quiet(labelled)
    labels(labelled, "conflict", [label(7, 98, known=known(hours=8))])  # as new as the one that was sent
    outcome = run_labels(labelled)
    assert (outcome.tally.published, rejected_labels(labelled)) == (0, {"r000007": "conflicting_label"})
    assert each_was_sent_once(labelled, 52)


def test_labels_that_appear_while_a_run_reads_are_sent_once_and_a_late_null_becomes_a_label(labelled: World) -> None:
    labels(labelled, "all", [label(0, None), label(1, 1, known=known(hours=2))])
    labelled.events = []

    with labelled.wired() as wired:
        assert wired.labels is not None

        def grow(event: object) -> None:
            if isinstance(event, Planned):
                labels(labelled, "meanwhile", [label(2, 2, known=known(hours=1)), label(1, 5, known=known(hours=1))])

        engine.run(wired.labels, labelled.ask(), notice=grow, stop=threading.Event())
    labels(labelled, "all", [label(0, 0), label(1, 1, known=known(hours=2))])  # it has one, stamped as before
    run_both(labelled)
    assert shown(labelled) == {"r000000": 0, "r000001": 1, "r000002": 2}
    assert each_was_sent_once(labelled, 3)
    assert quiet(labelled)
