"""The tests' own test: each mutant of the product breaks one thing, and one scenario tells it from the product."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable

import pytest
from tests.crash.mutants import MUTANTS
from tests.crash.orders import Site
from tests.world import NOW, START, after, row, rows

from tidepost.model import Proof
from tidepost.sandbox.settings import Fault

ROWS = 12
Scenario = Callable[[Site, str | None], None]


def killed_after_a_send(site: Site, mutant: str | None) -> None:
    site.world.log("monday", rows(ROWS))
    site.run(codes=[-9], die=("after send", 1), mutant=mutant)
    site.until_closed(mutant=mutant)
    assert site.world.everything_arrived_once(ROWS)


def looked_at_twice(site: Site, mutant: str | None) -> None:
    site.world.log("monday", rows(ROWS))
    site.run(mutant=mutant)
    site.run("backfill", "flights", "--from", START.isoformat(), "--to", NOW.isoformat(), mutant=mutant)
    assert site.world.everything_arrived_once(ROWS)


def slept_before_the_last_bytes(site: Site, mutant: str | None) -> None:
    site.world.log("monday", rows(ROWS))
    # The first guard of a send stands before its first byte, the second before its last.
    sleeper = site.start(stop=("before guard", 2), lease=1.0, host="elsewhere", mutant=mutant)
    sleeper.until_stopped()
    site.until_closed(lease=1.0, host="here", mutant=mutant)
    sleeper.signal(signal.SIGCONT)
    assert sleeper.code() in (0, 6), sleeper.said()
    assert site.world.everything_arrived_once(ROWS)


def killed_before_a_file_is_visible(site: Site, mutant: str | None) -> None:
    site.world.log("monday", rows(ROWS))
    site.run(codes=[-9], die=("before reveal", 1), mutant=mutant)
    every_manifest_has_its_files(site)
    site.until_closed(mutant=mutant)
    every_manifest_has_its_files(site)


def every_manifest_has_its_files(site: Site) -> None:
    folder = site.world.staging.root / "flights" / "inferences"
    for path in folder.glob("_tidepost/manifests/*.json"):
        for part in json.loads(path.read_text())["parts"]:
            file = folder / part["path"]
            assert file.is_file(), f"{path.name} names {part['path']}"
            assert hashlib.sha256(file.read_bytes()).hexdigest() == part["sha256"]


def a_slice_that_did_not_arrive(site: Site, mutant: str | None) -> None:
    site.world.log("monday", rows(ROWS))
    site.run(mutant=mutant)
    arrived = site.world.mark()
    site.world.log("tuesday", rows(ROWS, first=ROWS, at=after(hours=5)))
    site.run(codes=[-9], die=("before send", 1), mutant=mutant)
    (stream,) = site.run("status", "flights", mutant=mutant).document()["streams"]
    assert stream["destinations"][0]["mark"] == arrived


def a_loader_that_was_behind(site: Site, mutant: str | None) -> None:
    site.world.define(cursor={"lookback": "0s"})
    site.world.log("monday", rows(ROWS))
    site.run(mutant=mutant)
    site.world.log("tuesday", rows(ROWS, first=ROWS, at=after(hours=5)))
    site.run(mutant=mutant)
    assert site.world.everything_arrived_once(2 * ROWS)


def a_lost_reply(site: Site, mutant: str | None) -> None:
    site.world.log("monday", rows(ROWS))
    site.world.platform.process.fault(Fault("lose_reply", kind="file", count=1))
    site.until_closed(mutant=mutant)
    assert site.world.everything_arrived_once(ROWS)


def a_lost_reply_and_slow_loading(site: Site, mutant: str | None) -> None:
    site.world.define(destination={"loading": "6s"})
    site.world.platform.process.configure(loading_delay=1.5)
    a_lost_reply(site, mutant)


def one_id_in_two_cuts_at_once(site: Site, mutant: str | None) -> None:
    site.world.define(limits={"cut_rows": ROWS})
    site.world.log("monday", rows(ROWS))
    again = row(3, after(minutes=3), logged_at=after(hours=2, minutes=59))
    site.world.log("tuesday", [*rows(ROWS - 1, first=ROWS, at=after(hours=2)), again])
    slow = site.start(stop=("before begin", 1), mutant=mutant)
    slow.until_stopped()
    site.run(codes=[6], mutant=mutant)
    slow.signal(signal.SIGCONT)
    assert slow.code() == 0, slow.said()
    site.until_closed(mutant=mutant)
    assert site.world.everything_arrived_once(2 * ROWS - 1)


def killed_before_it_is_confirmed(site: Site, mutant: str | None) -> None:
    site.world.log("monday", rows(ROWS))
    # The delivery's first settlement makes it `sent`.
    site.run(codes=[-9], die=("before settle", 1), mutant=mutant)
    site.until_closed(mutant=mutant)
    assert site.world.everything_arrived_once(ROWS)


def a_lost_reply_that_nobody_can_tell_of(site: Site, mutant: str | None) -> None:
    site.world.log("monday", rows(ROWS))
    site.world.platform.process.fault(Fault("lose_reply", kind="file", count=1))
    for _ in range(2):
        site.run(codes=[0, 3], shows=Proof.RECEIPT, mutant=mutant)
    assert site.world.platform_rows() == ROWS


DOUBLED, LOST = "'doubled': [1-9]", f"'rows': {ROWS}, "
SCENARIOS: dict[str, tuple[Scenario, str]] = {
    "no_intent": (killed_after_a_send, DOUBLED),
    "no_index": (looked_at_twice, DOUBLED),
    "no_fence": (slept_before_the_last_bytes, DOUBLED),
    "manifest_first": (killed_before_a_file_is_visible, "names data/"),
    "mark_from_the_clock": (a_slice_that_did_not_arrive, "Z' == '2024-05-01"),
    "bound_from_the_clock": (a_loader_that_was_behind, LOST),
    "no_asking": (a_lost_reply, DOUBLED),
    "no_patience": (a_lost_reply_and_slow_loading, DOUBLED),
    "no_compare": (one_id_in_two_cuts_at_once, DOUBLED),
    "no_memory_of_answers": (killed_before_it_is_confirmed, DOUBLED),
    "no_person": (a_lost_reply_that_nobody_can_tell_of, f"assert {2 * ROWS} == {ROWS}"),
}
"""By mutant: what the product survives, and what is seen where the mutant does not."""


def test_every_mutant_has_a_scenario() -> None:
    assert set(SCENARIOS) == set(MUTANTS)


@pytest.mark.parametrize("mutant", SCENARIOS)
def test_the_product_passes_where_its_mutant_is_caught(mutant: str, make_site: Callable[[str], Site]) -> None:
    scenario, seen = SCENARIOS[mutant]
    scenario(make_site("product"), None)
    with pytest.raises(AssertionError, match=seen):
        scenario(make_site("mutant"), mutant)
