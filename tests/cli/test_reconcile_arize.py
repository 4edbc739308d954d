"""Reconcile and resend where one destination can be asked what is there, and another cannot."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from tests.cli.conftest import Ended, Shell
from tests.labels import label, labels, of_labels
from tests.to_arize import arrived, of_arize, of_both, release, states
from tests.world import World, rows

from tidepost.sandbox.settings import Fault

Upload = Callable[..., Ended]


@pytest.fixture
def world(world: World) -> World:
    """Three slices of 20 rows, to Arthur and to Arize."""
    of_both(world)
    world.define(limits={"cut_rows": 20})
    world.log("monday", rows(60, every=300))
    return world


def totals(ended: Ended) -> dict[str, list[str]]:
    """What each table says in all, by the line that follows it."""
    lines = ended.out.splitlines()
    return {after: line.split() for line, after in pairwise(lines) if line.startswith("total")}


def test_of_several_each_is_compared_as_far_as_it_can_be_asked_and_one_can_be_chosen(
    world: World, upload: Upload, tidepost: Shell
) -> None:
    upload()
    ended = tidepost("reconcile", "flights")
    here, there = ["total", "60", "60", "0", "0", "0"], ["60", "0", "0"]
    silent = "at arize, which cannot be asked: taken is what it accepted"
    assert totals(ended) == {"at arthur": [*here, *there], silent: [*here, *there]}
    heads = [line.split() for line in ended.out.splitlines() if line.startswith("day")]
    assert [head[6] for head in heads] == ["arrived", "taken"]

    world.platform.process.lose(world.model_id, ["r000000", "r000021"])
    assert list(totals(tidepost.here("reconcile", "flights", "--destination", "arize"))) == [silent]
    chosen = ("reconcile", "flights", "--destination", "arthur")
    ended = tidepost.here(*chosen, code=7)
    assert list(totals(ended)) == ["at arthur"]
    assert "tidepost reconcile flights --destination arthur --repair" in ended.err
    assert "It has: arthur, arize" in tidepost.here(*chosen[:3], "nobody", code=2).err
    at = tidepost.here("reconcile", "flights", "--json", code=7).document["total"]["at"]
    assert [(name, one["arrived"], one["taken"], one["lost"]) for name, one in at.items()] == [
        ("arthur", 58, 0, 2),
        ("arize", 0, 60, 0),
    ]
    tidepost.here(*chosen, "--repair", "--yes")
    assert world.everything_arrived_once(60)
    assert arrived(world) == (60, 60)


def test_where_nothing_can_be_asked_all_is_sent_again_only_blindly_and_only_where_repeats_merge(
    world: World, upload: Upload, tidepost: Shell
) -> None:
    upload()
    ended = tidepost.here("resend", "flights", "--destination", "arize", code=2)
    assert "arize cannot be asked what is there, so nobody can tell what was lost" in ended.err
    assert "tidepost resend flights --blind --destination arize" in ended.err
    ended = tidepost.here("resend", "flights", "--blind", "--yes", code=2)
    assert "arthur keeps both copies of a repeat" in ended.err
    assert "Where repeats merge:  tidepost resend flights --blind --destination arize" in ended.err
    assert "everything that had arrived is there" in tidepost.here("resend", "flights").out
    assert arrived(world) == (60, 60)

    blindly = ("resend", "flights", "--blind", "--destination", "arize")
    assert "there is no terminal to ask on" in tidepost.here(*blindly, "--slice", "2", code=2).err
    ended = tidepost.here(*blindly, "--slice", "2", "--yes")
    assert "flights: 20 rows went again; all of their slices have arrived again" in ended.out
    assert (arrived(world), states(world)) == ((60, 80), {"closed": 3})
    assert "everything goes again, without asking" in tidepost.here("ledger", "history", "flights").out
    tidepost.here(*blindly, "--yes", "--why", "the model was made anew")
    assert (arrived(world), states(world)) == ((60, 140), {"closed": 3})
    assert world.everything_arrived_once(60)
    upload()
    assert arrived(world) == (60, 140)
    world.platform.process.fault(Fault("throttle", kind="file", retry_after=3600, count=1))
    tidepost.here(*blindly, "--slice", "3", "--yes", code=4)
    assert (arrived(world), states(world)) == ((60, 140), {"closed": 2, "todo": 1})
    upload()
    assert (arrived(world), states(world)) == ((60, 160), {"closed": 3})


def test_what_arize_refused_by_number_is_told_and_its_labels_are_compared_too(
    world: World, upload: Upload, tidepost: Shell
) -> None:
    of_labels(of_arize(world))
    labels(world, "monday", [label(n, n % 3) for n in range(10)])
    world.log("tuesday", rows(2, first=60, note="x" * 20_001))
    upload(code=3)
    with world.ledger() as ledger:
        (held,) = ledger.deliveries.held(world.stream(), "arize")
    release(world, held.sequence)
    upload()
    ended = tidepost.here("reconcile", "flights")
    assert "  of these it refused 2 rows, and did not say which" in ended.out.splitlines()
    ended = tidepost.here("reconcile", "flights", "--stream", "ground_truth", "--json")
    assert ended.document["total"]["at"]["arize"]["taken"] == 10
    blindly = ("resend", "flights", "--stream", "ground_truth", "--blind", "--yes")
    assert "an older one would take the place of a newer" in tidepost.here(*blindly, code=2).err
