"""Ctrl-C and SIGTERM: whatever was on its way, the next run ends with every row there, once."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from tests.cli.conftest import NOW_TEXT, Ended, Shell
from tests.world import World, rows

from tidepost.cli.stopping import SAID
from tidepost.sandbox.settings import Fault

COUNT = 300


def line(process: subprocess.Popen[str], holding: str) -> str:
    """The next line of its log that holds a text."""
    assert process.stderr is not None
    return next(one for one in process.stderr if holding in one)


@pytest.fixture
def slowly(world: World) -> World:
    """A log of many cuts, and a platform that takes its time with each file."""
    world.log("monday", rows(COUNT))
    world.define(limits={"cut_rows": 20})
    return world


def test_a_first_signal_ends_the_run_in_order_and_the_next_one_goes_on(
    slowly: World, tidepost: Shell, upload: Callable[..., Ended]
) -> None:
    slowly.platform.process.fault(Fault("delay", kind="file", seconds=0.2))
    with tidepost.started("run", "flights", "--now", NOW_TEXT) as process:
        line(process, "cut 3/")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 4
    assert SAID in err
    assert "tidepost run flights" in err
    assert "published" in out
    sent = int(slowly.stats()["rows"])
    assert 0 < sent < COUNT
    slowly.platform.reset()
    again = upload()
    assert "of earlier runs first" in again.err
    assert slowly.everything_arrived_once(COUNT)


def test_a_second_signal_ends_the_process_at_once(
    slowly: World, tidepost: Shell, upload: Callable[..., Ended]
) -> None:
    slowly.platform.process.fault(Fault("delay", kind="file", seconds=20, count=2))
    with tidepost.started("run", "flights", "--now", NOW_TEXT) as process:
        line(process, "cut 2/")
        process.send_signal(signal.SIGINT)
        line(process, SAID)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
    assert process.returncode == 143
    assert time.monotonic() - began < 5
    slowly.platform.reset()
    upload()
    assert slowly.everything_arrived_once(COUNT)


def test_a_reader_who_goes_away_does_not_end_a_run(slowly: World, tidepost: Shell) -> None:
    with tidepost.started("run", "flights", "--now", NOW_TEXT) as process:
        line(process, "cut 2/")
        assert process.stderr is not None
        assert process.stdout is not None
        process.stderr.close()
        process.stdout.close()
        assert process.wait(timeout=30) == 0
    assert slowly.everything_arrived_once(COUNT)
