"""What a network and a server can do to a run to Arize, with both things that `on_unknown` may say: what nobody heard
of is held or goes again, what provably did not land goes again in either case, and nothing else does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pytest
from tests.integration.raw_server import Exchange, RawServer, answering, losing
from tests.to_arize import arrived, decided, held, of_arize, release, states, there
from tests.world import World, rows, said

from tidepost.sandbox.settings import Fault

ROWS = 50
LANDS = (Fault("lose_reply", kind="file", count=1), Fault("fail_after", kind="file", status=502, count=1))
DOES_NOT = (
    Fault("fail", kind="file", status=503, count=1),
    Fault("fail", kind="file", status=408, count=1),
    Fault("reset", kind="file", after_bytes=10_000_000, count=1),
)
"""Nobody hears what becomes of them: all of a file had left each time."""
REFUSED = Fault("fail", kind="file", status=400, count=1)
SLICES = len(LANDS) + len(DOES_NOT) + 2

both = pytest.mark.parametrize("on_unknown", ["stop", "resend"])


@pytest.fixture(autouse=True)
def _again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidepost.delivery.confirm.FIRST_REPEAT", 0.01)


def sending(world: World, on_unknown: str, slices: int, **changes: object) -> World:
    of_arize(world, on_unknown=on_unknown, **changes)
    world.define(limits={"cut_rows": ROWS})
    world.log("monday", rows(slices * ROWS))
    return world


@both
def test_each_file_that_nobody_heard_of_is_held_or_goes_again_with_the_same_ids(
    world: World, on_unknown: str
) -> None:
    sending(world, on_unknown, SLICES)
    for fault in (*LANDS, *DOES_NOT, REFUSED):
        world.platform.process.fault(fault)
    unheard = len(LANDS) + len(DOES_NOT)
    world.run()
    if on_unknown == "stop":
        assert (decided(world), len(held(world))) == ({"held": unheard}, unheard + 1)
        assert set(there(world).values()) == {1}
        world.run()
        assert arrived(world) == ((len(LANDS) + 1) * ROWS, (len(LANDS) + 1) * ROWS)
        for one in held(world):
            release(world, one.sequence, gone=one.sequence > len(LANDS))
    else:
        assert (decided(world), len(held(world))) == ({"sent again": unheard}, 1)
        release(world, held(world)[0].sequence)
    assert said(world.run()) == ""
    assert states(world) == {"closed": SLICES}
    again = len(LANDS) if on_unknown == "resend" else 0
    assert arrived(world) == (SLICES * ROWS, (SLICES + again) * ROWS)


@both
def test_what_provably_did_not_land_goes_again_and_waits_as_long_as_asked(world: World, on_unknown: str) -> None:
    sending(world, on_unknown, 1)
    for fault, error in (
        (Fault("fail", kind="file", status=401, count=1), "arize refuses the key"),
        (Fault("fail", kind="file", status=403, count=1), "arize refuses the key"),
        (Fault("fail", kind="file", status=404, count=1), "has nothing at the address"),
        (Fault("throttle", kind="file", retry_after=3600, count=1), "too many requests"),
        (Fault("throttle", kind="file", retry_after=0.0, count=2), r"too many requests .*\(2 attempts\)"),
    ):
        world.platform.process.fault(fault)
        outcome = world.run()
        with pytest.raises(type(outcome.worst()), match=error):  # type: ignore[type-var]
            raise outcome.worst()  # type: ignore[misc]
        assert (states(world), arrived(world)) == ({"todo": 1}, (0, 0))
    world.platform.process.fault(Fault("throttle", kind="file", retry_after=1, count=1))
    assert said(world.run()) == ""
    assert arrived(world) == (ROWS, ROWS)
    asked = [one["at"] for one in world.platform.process.stats()["requests"] if one["bytes"]]
    assert asked[0] - asked[1] >= 1, "not sooner than Retry-After says"
    assert not decided(world)


def cut_off(answer: bytes) -> Callable[[Exchange], None]:
    """Reads everything, and ends the connection in the middle of its answer."""

    def step(exchange: Exchange) -> None:
        exchange.read()
        exchange.sock.sendall(answer)
        exchange.close()

    return step


def slow(exchange: Exchange) -> None:
    """Reads everything, and says nothing."""
    exchange.read()
    exchange.sock.recv(1)  # until the other side has had enough
    exchange.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 40\r\n"
HALVES = (slow, losing, cut_off(HEAD[:30]), cut_off(HEAD), cut_off(HEAD + b'\r\n{"realTimeInges'))


@both
def test_half_an_answer_is_none(world: World, on_unknown: str) -> None:
    sending(world, on_unknown, len(HALVES), timeout="1s", retries=0)
    yes = answering(200, {"realTimeIngestionUri": "there"})
    with RawServer(yes, *HALVES, *[yes] * len(HALVES)) as server:
        world.define(destination={"url": server.url})
        outcome = world.run()
    sent = [
        tuple(pa.ipc.open_stream(one.content).read_all()["partner_inference_id"].to_pylist())
        for one in server.sent[1:]
    ]
    times = Counter(sent)
    assert (said(outcome), len(times)) == ("", len(HALVES))
    if on_unknown == "stop":
        assert (outcome.held, set(times.values())) == (len(HALVES), {1})
        assert all("sent without an answer" in one.reason for one in held(world))
    else:
        assert (states(world), len(sent)) == ({"closed": len(HALVES)}, 2 * len(HALVES))


def test_rows_that_arize_leaves_out_after_its_yes_are_known_to_nobody(world: World) -> None:
    sending(world, "stop", 1)
    world.platform.process.fault(Fault("drop", kind="file", rows=0.5, count=1))
    assert said(world.run()) == ""
    assert states(world) == {"closed": 1}
    assert 0 < arrived(world)[0] < ROWS
