"""Labels go in their turn: after their inferences, and after the labels that they replace."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from tests.labels import (
    LANDED,
    label,
    labels,
    of_labels,
    rejected_labels,
    run_both,
    run_labels,
    shown,
    stream_of_labels,
    versions_sent,
)
from tests.world import ATTRIBUTES, World, after, reasons, row, rows, said

from tidepost.model import DeliveryState
from tidepost.publishing.publish import Publisher
from tidepost.sandbox.settings import Fault

LATER = LANDED + timedelta(hours=1)


@pytest.fixture
def labelled(world: World) -> World:
    world.define(destination={"retries": 0})
    return of_labels(world)


def states(world: World) -> list[str]:
    """The states of the labels' deliveries, by slice."""
    with world.ledger() as ledger:
        stream = stream_of_labels(world)
        found = {one.sequence: one.state for one in ledger.deliveries.open(stream, "arthur")}
        found |= {one.sequence: one.state for one in ledger.deliveries.held(stream, "arthur")}
        newest = ledger.plans.find("flights", stream.name)
        assert newest is not None
        return [found.get(number, DeliveryState.CLOSED).value for number in range(1, newest.published + 1)]


@contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> Iterator[None]:
    """Something that another process does between the staging of the first cut and its publishing."""
    publish, done = Publisher.publish, threading.Event()

    def first_another(self: Publisher, *given: Any) -> Any:
        if not done.is_set():
            done.set()
            act()
        return publish(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish", first_another)
        yield
    assert done.is_set()


def test_labels_are_not_sent_while_their_inferences_are_on_their_way(labelled: World) -> None:
    labelled.log("monday", rows(5))
    labels(labelled, "monday", [label(n, n) for n in range(5)])
    labelled.platform.process.fault(Fault("throttle", kind="file", count=1))
    first, second = run_both(labelled)
    assert said(first)
    assert (said(second), second.tally.published, states(labelled)) == ("", 5, ["todo"])
    run_labels(labelled)
    assert (shown(labelled), states(labelled)) == ({}, ["todo"])
    run_both(labelled)
    assert (shown(labelled), states(labelled)) == ({f"r{n:06d}": n for n in range(5)}, ["closed"])


def test_a_label_that_replaces_one_is_sent_after_that_one_arrived(labelled: World) -> None:
    labelled.log("monday", rows(3))
    labelled.run()
    labels(labelled, "a", [label(n, 1) for n in range(3)])
    labelled.platform.process.fault(Fault("throttle", kind="file", count=1))
    run_labels(labelled)
    labels(labelled, "b", [label(0, 2, known=LATER)])
    labelled.platform.process.fault(Fault("throttle", kind="file", count=1))
    run_labels(labelled)
    assert states(labelled) == ["todo", "todo"]
    assert said(run_labels(labelled)) == ""
    assert (states(labelled), shown(labelled)) == (["closed", "closed"], {"r000000": 2, "r000001": 1, "r000002": 1})


def test_a_label_waits_while_one_that_it_replaces_is_held_for_a_person(labelled: World) -> None:
    labelled.define(limits={"rejects": 0})
    labelled.log("monday", rows(2))
    labelled.run()
    labels(labelled, "a", [label(0, 1), label(1, 1, landed_at=None)])
    run_labels(labelled)
    labels(labelled, "b", [label(0, 2, known=LATER)])
    run_labels(labelled)
    assert (states(labelled), shown(labelled)) == (["held", "todo"], {})
    with labelled.ledger() as ledger:
        ledger.deliveries.release(stream_of_labels(labelled), 1, who="me", why="one row is bad")
    run_labels(labelled)
    assert (states(labelled), shown(labelled)) == (["closed", "closed"], {"r000000": 2})


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", kind="file", after_bytes=10_000_000, count=1),
        Fault("drop", kind="file", rows=1.0, count=1),
        Fault("lose_reply", kind="file", count=1),
    ],
    ids=lambda fault: fault.fault,
)
def test_that_a_label_replaced_another_is_seen_by_its_value(labelled: World, fault: Fault) -> None:
    labelled.log("monday", rows(4))
    labels(labelled, "a", [label(n, 1) for n in range(4)])
    run_both(labelled)
    labels(labelled, "b", [label(n, 2, known=LATER) for n in range(3)])
    labelled.platform.process.fault(fault)
    run_both(labelled)
    assert states(labelled) == ["closed", "closed"]
    assert shown(labelled) == {"r000000": 2, "r000001": 2, "r000002": 2, "r000003": 1}


def test_the_newest_wins_where_another_run_publishes_a_newer_label_meanwhile(
    labelled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled.define(limits={"cut_rows": 1})
    labelled.log("monday", rows(2))
    labelled.run()
    labels(labelled, "both", [label(0, 1), label(1, 5), label(0, 2, known=LATER)])
    with meanwhile(monkeypatch, lambda: run_labels(labelled)):
        outcome = run_labels(labelled)
    assert outcome.tally.superseded == 1
    assert outcome.tally.published == 1
    run_labels(labelled)
    assert shown(labelled) == {"r000000": 2, "r000001": 5}
    sent = versions_sent(labelled)
    assert len(sent) == len(set(sent)) == 2


def test_the_newest_wins_where_another_run_publishes_an_older_label_meanwhile(
    labelled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled.log("monday", rows(2))
    labels(labelled, "first", [label(1, 7)])
    run_both(labelled)
    labels(labelled, "new", [label(0, 2, known=LATER)])

    def older() -> None:
        labels(labelled, "old", [label(0, 1)])
        run_labels(labelled)

    with meanwhile(monkeypatch, older):
        outcome = run_labels(labelled)
    assert (said(outcome), outcome.tally.published) == ("", 1)
    assert (states(labelled), shown(labelled)) == (["closed"] * 3, {"r000000": 2, "r000001": 7})


def test_two_labels_known_at_the_same_time_are_a_conflict_and_what_was_sent_stands(labelled: World) -> None:
    labelled.define(limits={"rejects": "100%"})
    labelled.log("monday", rows(2))
    labels(labelled, "a", [label(0, 1), label(1, 3), label(1, 3)])
    _, first = run_both(labelled)
    assert (first.tally.published, first.tally.duplicates) == (2, 1)
    labels(labelled, "b", [label(0, 2), label(1, 3)])
    _, second = run_both(labelled)
    assert second.tally.rejected == {"conflicting_label": 1}
    assert rejected_labels(labelled) == {"r000000": "conflicting_label"}
    assert shown(labelled) == {"r000000": 1, "r000001": 3}


def test_the_label_of_a_refused_inference_is_set_aside_and_holds_up_nobody(labelled: World) -> None:
    needed = [(name, of, "PREDICTED_VALUE" if name == "note" else stage) for name, of, stage in ATTRIBUTES]
    strict = of_labels(World.make(labelled.root / "strict", labelled.platform, attributes=needed))
    strict.define(limits={"rejects": "50%"})
    strict.log("monday", [*rows(3, first=1), row(50, after(minutes=5), note=None)])
    strict.run()
    assert list(reasons(strict.rejects())) == ["r000050"]
    strict.define(limits={"rejects": 0})
    labels(strict, "monday", [label(n, 1) for n in (1, 2, 3, 50)])
    outcome = run_labels(strict)
    assert (said(outcome), outcome.tally.rejected) == ("", {"no_inference": 1})
    assert (rejected_labels(strict), sorted(shown(strict))) == (
        {"r000050": "no_inference"},
        ["r000001", "r000002", "r000003"],
    )
