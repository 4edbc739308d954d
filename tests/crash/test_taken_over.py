"""What was on its way when a process died or slept, in the hands of the one that takes over."""

from __future__ import annotations

import signal

import pytest
from tests.crash.orders import Site
from tests.world import rows

from tidepost.sandbox.settings import Fault

ROWS = 12


def test_a_file_whose_upload_took_long_is_given_all_its_time_to_load_by_whoever_takes_over(site: Site) -> None:
    world = site.world
    world.define(destination={"loading": "4s"})
    world.platform.process.configure(loading_delay=2.5)
    world.log("monday", rows(ROWS))
    child = site.start(stop=("before guard", 2), die=("file left", 1))
    child.until_stopped()
    child.process.join(4.5)  # the time that the upload takes
    child.signal(signal.SIGCONT)
    assert child.code() == -9, child.said()
    site.until_closed()
    assert world.everything_arrived_once(ROWS)


@pytest.mark.parametrize("runs", [7])
def test_a_platform_that_takes_no_files_for_many_runs_gets_them_once_it_does(site: Site, runs: int) -> None:
    world = site.world
    world.define(destination={"retries": 0})
    world.log("monday", rows(ROWS))
    world.platform.process.configure(faults=[{"fault": "throttle", "kind": "file", "retry_after": 0}])
    for _ in range(runs):
        assert "too many requests" in site.run(codes=[4]).error()["message"]
    world.platform.reset()
    site.until_closed(codes=[0])
    assert world.everything_arrived_once(ROWS)


def test_a_slice_that_was_held_for_sends_that_never_landed_can_be_let_go(site: Site) -> None:
    world = site.world
    world.define(destination={"retries": 0})
    world.log("monday", rows(ROWS))
    world.platform.process.configure(faults=[{"fault": "reset", "kind": "file", "after_bytes": 10_000_000}])
    held = site.run(codes=[3])
    assert "never held a row of it" in held.error()["message"]
    world.platform.reset()
    site.run("release", "flights", "1", "--why", "the network was mended", "--yes")
    site.until_closed(codes=[0])
    assert world.everything_arrived_once(ROWS)


def test_a_lost_reply_is_asked_about_by_whoever_takes_over(site: Site) -> None:
    world = site.world
    world.log("monday", rows(ROWS))
    world.platform.process.fault(Fault("lose_reply", kind="file", count=1))
    site.run(codes=[-9], die=("before settle", 1))
    site.until_closed()
    assert world.everything_arrived_once(ROWS)
