"""Several processes at one job, as on several machines: some sleep through their leases, some hold the same ids."""

from __future__ import annotations

import signal

import pytest
from tests.crash.orders import Child, Site
from tests.world import NOW, START, Row, after, row, rows

from tidepost.sandbox.settings import Fault

CUT = 12
LEASE = 1.0
FINE = (0, 4, 6)
"""Done; a destination or a disk that failed; another run has the work."""


def two_cuts(site: Site) -> None:
    site.world.define(limits={"cut_rows": CUT})
    for cut in range(2):
        site.world.log(f"hour-{cut}", rows(CUT, first=cut * CUT, at=after(hours=cut)))


# A guard stands before a send's first byte and before its last: the second one of a file is the one before its last.
ASLEEP = [
    ("before scratch", 1),
    ("before begin", 1),
    ("after begin", 1),
    ("before reveal", 1),
    ("after reveal", 2),
    ("before finish", 1),
    ("after intend", 1),
    ("before guard", 2),
    ("after send", 1),
    ("before answer", 1),
    ("before settle", 1),
    ("before counts", 1),
]


@pytest.mark.parametrize("point", ASLEEP, ids=lambda point: f"{point[0]} {point[1]}")
def test_a_process_that_slept_through_its_lease_neither_publishes_nor_sends(
    site: Site, point: tuple[str, int]
) -> None:
    two_cuts(site)
    sleeper = site.start(stop=point, lease=LEASE, host="elsewhere")
    sleeper.until_stopped()
    site.until_closed(codes=FINE, lease=LEASE, host="here")
    assert site.world.everything_arrived_once(2 * CUT)
    sleeper.signal(signal.SIGCONT)
    assert sleeper.code() in FINE, sleeper.said()
    site.until_closed(codes=FINE, lease=LEASE, host="here")
    assert site.world.everything_arrived_once(2 * CUT)
    assert not list(site.world.staging.root.rglob("scratch/*"))


def test_nobody_takes_over_before_the_lease_of_a_process_elsewhere_has_lapsed(site: Site) -> None:
    two_cuts(site)
    sleeper = site.start(stop=("before begin", 1), lease=30.0, host="elsewhere")
    sleeper.until_stopped()
    other = site.run(codes=[6], lease=30.0, host="here")
    assert "is held by" in other.error()["message"]
    assert site.world.stats()["rows"] == CUT
    sleeper.signal(signal.SIGCONT)
    assert sleeper.code() == 0, sleeper.said()
    site.until_closed()
    assert site.world.everything_arrived_once(2 * CUT)


def test_a_process_that_slept_while_a_file_was_on_its_way_does_not_send_it_again(site: Site) -> None:
    two_cuts(site)
    site.world.define(destination={"loading": "3s"})
    site.world.platform.process.fault(Fault("delay", kind="file", seconds=1.5, count=1))
    sleeper = site.start(stop=("file left", 1), lease=LEASE, host="elsewhere")
    sleeper.until_stopped()
    site.until_closed(codes=FINE, lease=LEASE, host="here")
    sleeper.signal(signal.SIGCONT)
    assert sleeper.code() in FINE, sleeper.said()
    site.until_closed(codes=FINE, lease=LEASE, host="here")
    assert site.world.everything_arrived_once(2 * CUT)


def test_a_send_whose_last_bytes_were_about_to_leave_ends_with_its_lease(site: Site) -> None:
    site.world.define(limits={"cut_rows": CUT}, destination={"timeout": "5m"})
    site.world.log("monday", rows(CUT))
    sleeper = site.start(stop=("before last bytes", 2), lease=LEASE, host="elsewhere")
    sleeper.until_stopped()
    site.until_closed(codes=FINE, lease=LEASE, host="here")
    sleeper.signal(signal.SIGCONT)
    assert sleeper.code() in FINE, sleeper.said()
    assert site.world.everything_arrived_once(CUT)


def test_rows_that_were_about_to_be_sent_one_by_one_stay_where_their_lease_was_lost(site: Site) -> None:
    site.world.log("monday", rows(CUT))
    site.world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=1))
    sleeper = site.start(stop=("after intend", 2), lease=LEASE, host="elsewhere")  # the first is the file's
    sleeper.until_stopped()
    site.until_closed(codes=FINE, lease=LEASE, host="here")
    sleeper.signal(signal.SIGCONT)
    assert sleeper.code() in FINE, sleeper.said()
    assert site.world.everything_arrived_once(CUT)


def overlapping() -> list[Row]:
    """Four cuts: every third id of each stands in the next one too, logged again, some with another content."""
    found: list[Row] = []
    for cut in range(4):
        at = after(hours=cut)
        found += rows(CUT, first=cut * CUT, at=at)
        found += [
            row(number, after(hours=cut, minutes=number % CUT), logged_at=after(hours=cut, minutes=50 + number % CUT))
            | ({"note": "changed"} if number % 2 else {})
            for number in range(cut * CUT, (cut + 1) * CUT, 3)
        ]
    return found


@pytest.mark.parametrize("keys", [("one", "one", "one", "one"), ("one", "two", "three", "four")], ids=["one", "own"])
def test_processes_on_several_machines_upload_an_id_that_several_cuts_hold_once(
    site: Site, keys: tuple[str, ...]
) -> None:
    site.world.define(limits={"cut_rows": CUT // 2, "rejects": "100%"})
    site.world.log("monday", overlapping())
    found = [site.start(key=key, lease=LEASE, host=f"host-{number}") for number, key in enumerate(keys)]
    whole = ("--from", START.isoformat(), "--to", NOW.isoformat())
    found.append(site.start("backfill", "flights", *whole, lease=LEASE, host="another"))
    ended = {child.code(): child.said() for child in found}
    assert set(ended) <= set(FINE), ended
    site.until_closed(codes=FINE, lease=LEASE, host="here")
    assert site.world.everything_arrived_once(4 * CUT)
    site.run("backfill", "flights", *whole)
    assert site.world.everything_arrived_once(4 * CUT)


def test_sleepers_wake_in_any_order_and_each_id_is_published_once(site: Site) -> None:
    site.world.define(limits={"cut_rows": CUT, "rejects": "100%"})
    site.world.log("monday", overlapping())
    sleepers: list[Child] = []
    for number in range(3):
        sleeper = site.start(stop=("before begin", 1), lease=LEASE, host=f"host-{number}", key="one")
        sleeper.until_stopped()
        sleepers.append(sleeper)
    for sleeper in reversed(sleepers):
        sleeper.signal(signal.SIGCONT)
    ended = {sleeper.code(): sleeper.said() for sleeper in sleepers}
    assert set(ended) <= set(FINE), ended
    site.until_closed(codes=FINE, lease=LEASE, host="here")
    assert site.world.everything_arrived_once(4 * CUT)


def test_a_machine_that_went_away_for_good_is_waited_for_no_longer_than_its_lease(
    site: Site,
) -> None:
    two_cuts(site)
    site.run(codes=[-9], die=("after begin", 1), lease=LEASE, host="elsewhere")
    site.until_closed(codes=FINE, lease=LEASE, host="here")
    assert site.world.everything_arrived_once(2 * CUT)


def test_a_run_that_says_that_it_is_done_has_left_nothing(site: Site) -> None:
    two_cuts(site)
    site.run(codes=[-9], die=("after begin", 1), lease=3.0, host="elsewhere")
    # It finds the half-published slice in the hands of another machine; when it comes to the cut, the lease is over.
    other = site.start(stop=("after commit", 1), lease=3.0, host="here")
    other.until_stopped()
    other.process.join(3.5)
    other.signal(signal.SIGCONT)
    code = other.code()
    assert code == 6 or (code == 0 and other.document()["left"] == 0), other.said()
    site.until_closed(codes=FINE, lease=LEASE, host="here")
    assert site.world.everything_arrived_once(2 * CUT)
