"""Several processes at a job whose files go to Arize, which cannot be asked: each file goes once, and who slept
through the lease of a delivery neither sends nor closes it."""

from __future__ import annotations

import signal

import pytest
from tests.crash.orders import Site
from tests.to_arize import held, of_arize, release, states, there
from tests.world import after, eventually, rows

ROWS = 12
CUTS = 3
LEASE = 1.0
FINE = (0, 3, 4, 6)
"""Done; something is held; a destination or a disk that failed; another run has the work."""


@pytest.fixture
def site(site: Site) -> Site:
    of_arize(site.world)
    site.world.define(limits={"cut_rows": ROWS})
    for cut in range(CUTS):
        site.world.log(f"hour-{cut}", rows(ROWS, first=cut * ROWS, at=after(hours=cut)))
    return site


def repeated(site: Site) -> dict[str, int]:
    """The ids of which more than one row came, and how many."""
    return {id_: times for id_, times in there(site.world).items() if times != 1}


def until_ended(site: Site) -> None:
    """Run until every delivery is closed, or held for a person."""

    def ended() -> bool:
        site.run(codes=FINE, lease=LEASE, host="here")
        return set(states(site.world)) <= {"closed", "held"} and not site.world.summary().open_cuts

    eventually(ended, seconds=30)


@pytest.mark.parametrize("keys", [("one", "one"), ("one", "two")], ids=["one request", "each its own"])
def test_two_processes_at_once_send_each_file_to_arize_once(site: Site, keys: tuple[str, str]) -> None:
    children = [site.start(key=key, lease=30.0, host=f"host-{key}-{n}") for n, key in enumerate(keys)]
    ended = {child.code(): child.said() for child in children}
    assert set(ended) <= {0, 6}, ended
    site.until_closed(codes=[0], host="here")
    assert len(there(site.world)) == CUTS * ROWS
    assert repeated(site) == {}
    assert states(site.world) == {"closed": CUTS}


@pytest.mark.parametrize(
    ("point", "landed", "waits"),
    [
        pytest.param(("before guard", 2), False, True, id="before its last bytes left"),
        pytest.param(("file left", 1), True, True, id="before the answer"),
        pytest.param(("after send", 1), True, True, id="before the receipt"),
        pytest.param(("before settle", 1), True, False, id="before it closes"),
    ],
)
def test_a_sender_that_slept_through_its_lease_sends_and_closes_nothing_when_it_wakes(
    site: Site, point: tuple[str, int], *, landed: bool, waits: bool
) -> None:
    sleeper = site.start(stop=point, lease=LEASE, host="elsewhere")
    sleeper.until_stopped()
    until_ended(site)
    before = states(site.world)
    assert before == ({"closed": CUTS - 1, "held": 1} if waits else {"closed": CUTS})
    sleeper.signal(signal.SIGCONT)
    assert sleeper.code() in FINE, sleeper.said()
    assert states(site.world) == before
    assert len(there(site.world)) == (CUTS if landed else CUTS - 1) * ROWS
    for one in held(site.world):
        release(site.world, one.sequence, gone=not landed)
    until_ended(site)
    assert states(site.world) == {"closed": CUTS}
    assert len(there(site.world)) == CUTS * ROWS
    assert repeated(site) == {}
