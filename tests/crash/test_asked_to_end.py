"""Ctrl-C and SIGTERM at random moments of a run: it ends in order, and the next run goes on where it stood."""

from __future__ import annotations

import random
import signal

import pytest
from tests.crash.orders import Site
from tests.world import after, rows

from tidepost.sandbox.settings import Fault

CUT, CUTS = 12, 6
SEED = 20130101


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_run_that_is_asked_to_end_ends_in_order_and_the_next_goes_on(site: Site, number: signal.Signals) -> None:
    chance = random.Random(SEED)
    world = site.world
    world.define(limits={"cut_rows": CUT})
    world.platform.process.fault(Fault("delay", kind="file", seconds=0.1))
    ended: list[int] = []
    for trial in range(4):
        for cut in range(CUTS):
            at = after(hours=trial * CUTS + cut)
            world.log(f"{trial}-{cut}", rows(CUT, first=(trial * CUTS + cut) * CUT, at=at))
        world.now = after(hours=(trial + 2) * CUTS)
        child = site.start(stop=("before scratch", 1))
        child.until_stopped()  # it listens to signals by then
        child.signal(signal.SIGCONT)
        child.process.join(chance.uniform(0.0, 1.2))
        child.signal(number)
        ended.append(child.code())
        assert ended[-1] in (0, 4), child.said()
        if ended[-1] == 4:
            assert "stopped with" in child.error()["message"], child.said()
        assert set(world.states()) <= {"closed", "todo", "sent", "unknown"}
        site.until_closed(codes=(0,))
        assert world.everything_arrived_once((trial + 1) * CUTS * CUT)
    assert 4 in ended
