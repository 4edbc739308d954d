"""A run in pieces: each in a process of its own, repeated, side by side, killed and taken over."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
from tests.children import Child, child, upload_cuts
from tests.world import START, World, after, between, eventually, rows

from tidepost import steps
from tidepost.errors import Misconfigured, Retryable
from tidepost.events import Event
from tidepost.leases import Keeper
from tidepost.model import Request, ScanKind
from tidepost.sandbox.settings import Fault

KEY = "dag/scheduled/1"


def ignored(_: Event) -> None:
    pass


def begin(world: World, key: str = KEY, *, most: int = 500, window: Any = None) -> steps.Begun:
    kind = ScanKind.INCREMENTAL if window is None else ScanKind.BACKFILL
    with world.wired() as wired:
        return steps.begin(wired, Request(key, kind, window), notice=ignored, most=most)


def upload(world: World, cut: int) -> steps.Uploaded:
    with world.wired() as wired:
        return steps.upload(wired, cut, notice=ignored, stop=threading.Event())


def settle(world: World, cuts: Any = None) -> steps.Standing:
    with world.wired() as wired:
        return steps.settle(wired, notice=ignored, stop=threading.Event(), cuts=cuts)


def finished(world: World, cuts: Any = None) -> steps.Standing:
    """Looked at until nothing is waited for."""
    standing: list[steps.Standing] = []

    def look() -> bool:
        standing.append(settle(world, cuts))
        return standing[-1].done

    eventually(look)
    return standing[-1]


def uploading(world: World, *cuts: int) -> AbstractContextManager[Child]:
    """Cuts uploaded by a process of its own, as another host would."""
    return child(upload_cuts, world.root, world.now.timestamp(), cuts, env=world.env)


def test_in_pieces_everything_arrives_once(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(300, every=20))
    begun = begin(world)
    assert (len(begun.cuts), begun.rows, begun.more, begun.closed) == (3, 300, False, False)
    done = [upload(world, cut) for cut in begun.cuts]
    assert [one.rows for one in done] == [100, 100, 100]
    assert [one.slice for one in done] == [1, 2, 3]
    assert all(one.sent == 1 and not one.before and one.elsewhere is None for one in done)
    standing = finished(world, begun.cuts)
    assert (standing.deliveries, standing.rows, standing.arrived, standing.held) == (3, 300, 300, 0)
    assert world.everything_arrived_once(300)
    assert world.run().cuts == 0


def test_the_same_request_gets_the_same_cuts_though_the_source_has_grown(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(200, every=20))
    first = begin(world)
    world.log("tuesday", rows(200, first=200, at=after(hours=3), every=20))
    assert begin(world).cuts == first.cuts
    upload(world, first.cuts[0])
    assert begin(world).cuts == first.cuts[1:]


def test_a_request_whose_cuts_are_done_is_closed_and_finds_nothing_to_do(world: World) -> None:
    world.log("monday", rows(100))
    (cut,) = begin(world).cuts
    upload(world, cut)
    world.log("tuesday", rows(100, first=100, at=after(hours=5)))
    again = begin(world)
    assert (again.closed, again.cuts, again.done, again.more) == (True, (), (cut,), False)
    assert not begin(world, "dag/scheduled/2").closed
    before = upload(world, cut)
    assert (before.before, before.rows, before.sent) == (True, 100, 0)


def test_a_request_takes_so_many_cuts_and_tells_that_more_remain(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(500, every=20))
    first = begin(world, most=2)
    assert (len(first.cuts), first.more, first.rest) == (2, True, None)
    assert begin(world, most=2) == steps.Begun(first.cuts, rows=200, more=True)
    for cut in first.cuts:
        upload(world, cut)
    second = begin(world, "next", most=2)
    assert second.more
    assert not set(second.cuts) & set(first.cuts)
    third = begin(world, "last", most=3)
    assert (len(third.cuts), third.more) == (3, False), "what was left open, and one of its own"
    assert set(second.cuts) < set(third.cuts)


def test_a_range_that_was_given_up_is_finished_by_a_run_that_takes_what_is_new(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.log("monday", rows(100, every=20))
    (cut,) = begin(world, "range", window=between(START, after(days=1))).cuts
    assert begin(world, "another range", window=between(START, after(days=1))).cuts != (cut,)
    assert cut not in begin(world, "new").cuts
    monkeypatch.setattr(steps, "GIVEN_UP", 0.0)
    assert cut in begin(world, "later").cuts


def test_what_remains_of_a_range_is_the_next_request_s(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(500, every=20))
    window = between(START, after(days=1))
    seen: list[int] = []
    for number in range(3):
        begun = begin(world, f"range {number}", most=2, window=window)
        seen += [upload(world, cut).rows for cut in begun.cuts]
        if begun.rest is None:
            break
        with world.wired() as wired:
            kind = wired.source.cursor()
        window = type(window)(*map(kind.parse, begun.rest))
    assert seen == [100, 100, 100, 100, 100]
    assert finished(world).held == 0
    assert world.everything_arrived_once(500)


def test_processes_upload_the_cuts_of_one_plan_side_by_side_with_a_run(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(800, every=20))
    cuts = begin(world).cuts
    with uploading(world, *cuts[::2]) as one, uploading(world, *cuts[1::2]) as other, world.spawned("cli") as run:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda cut: upload(world, cut), cuts[-2:]))
        found = one.told(), other.told()
        assert {error[0] for error in run.told()["errors"]} <= {"HeldElsewhere", "LeaseLost"}
    assert all(each["errors"] == [] for each in found), found
    eventually(lambda: not settle(world, cuts).unfinished)
    finished(world)
    assert world.everything_arrived_once(800)


def test_processes_share_nothing_but_a_ledger_in_postgresql_and_staging_on_s3(
    world: World, new_ledger: Callable[[], str], new_place: Callable[[], str]
) -> None:
    (world.root / "tidepost.yaml").write_text(f"version: 1\nledger: {new_ledger()}\nstaging: {new_place()}\n")
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(300, every=20))
    cuts = begin(world).cuts
    with uploading(world, *cuts[:2]) as one, uploading(world, *cuts[1:]) as other:
        found = one.told(), other.told()
    assert all(each["errors"] == [] for each in found), found
    assert finished(world, cuts).arrived == 300
    assert world.everything_arrived_once(300)


def test_a_cut_that_another_process_works_on_is_told_of_and_not_waited_for(world: World) -> None:
    world.log("monday", rows(10))
    (cut,) = begin(world).cuts
    with world.wired() as wired, Keeper(wired.ledger, wired.owner) as keeper, keeper.holding("cut", cut):
        found = upload(world, cut)
        assert found.elsewhere is not None
        assert f"cut {cut} is held by process {os.getpid()} on" in found.elsewhere
        assert "until" in found.elsewhere
        assert settle(world, [cut]).unfinished == (cut,)
    assert upload(world, cut).rows == 10


def test_a_lease_that_lapsed_is_taken_over(world: World) -> None:
    world.log("monday", rows(10))
    (cut,) = begin(world).cuts
    with world.ledger() as ledger:
        ledger.leases.take("cut", cut, "elsewhere/boot/ns/1/1/abc", 0.0)
    assert upload(world, cut).rows == 10


def test_what_a_killed_process_had_begun_is_finished_by_the_retry(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(200, every=20))
    cuts = begin(world).cuts
    world.platform.process.fault(Fault("delay", kind="file", seconds=30, count=1))
    with uploading(world, *cuts):
        eventually(lambda: world.summary().slices and "sending" in world.states())
    world.platform.reset()
    again = upload(world, cuts[0])
    assert (again.before, again.rows) == (True, 100)
    assert upload(world, cuts[1]).sent == 1
    finished(world, cuts)
    assert world.everything_arrived_once(200)


@pytest.mark.parametrize("who", ["upload", "begin", "settle"])
def test_a_slice_that_was_half_published_is_finished_by_whoever_comes(world: World, who: str) -> None:
    world.log("monday", rows(10))
    (cut,) = begin(world).cuts
    with pytest.MonkeyPatch.context() as patch, world.wired() as wired:
        patch.setattr(type(wired.ledger.slices), "finish", _dies)
        with pytest.raises(Dead):
            steps.upload(wired, cut, notice=ignored, stop=threading.Event())
    assert world.summary().publishing == 1
    if who == "upload":
        upload(world, cut)
    elif who == "begin":
        begin(world)
    else:
        settle(world)
    assert world.summary().publishing is None
    finished(world, [cut])
    assert world.everything_arrived_once(10)


def test_what_was_published_and_not_sent_is_sent_by_whoever_settles(world: World) -> None:
    world.log("monday", rows(10))
    (cut,) = begin(world).cuts
    world.platform.process.fault(Fault("fail", kind="file", status=429))
    with pytest.raises(Retryable):
        upload(world, cut)
    world.platform.reset()
    assert finished(world, [cut]).arrived == 10
    assert world.everything_arrived_once(10)


def test_a_file_of_which_nobody_knows_is_asked_about_by_several_looks_in_a_row(world: World) -> None:
    world.define(destination={"loading": "1s", "poll": "1s"})
    world.log("monday", rows(10))
    (cut,) = begin(world).cuts
    world.platform.process.fault(Fault("drop", kind="file", count=1))
    upload(world, cut)
    assert finished(world, [cut]).arrived == 10
    assert world.everything_arrived_once(10)


def test_what_is_still_loading_is_told_with_the_time_to_the_next_look(world: World) -> None:
    world.define(destination={"loading": "60s", "poll": "7s"})
    world.log("monday", rows(10))
    (cut,) = begin(world).cuts
    world.platform.process.configure(loading_delay=600)
    upload(world, cut)
    standing = settle(world, [cut])
    assert (standing.waiting, standing.arrived, standing.wait, standing.done) == (1, 0, 7.0, False)
    world.platform.reset()


def test_a_slice_that_is_held_is_told_of_when_everything_else_has_arrived(world: World) -> None:
    world.define(limits={"cut_rows": 100, "rejects": 0})
    bad = rows(100, at=START, every=20, score=None)
    world.log("monday", [*bad, *rows(100, first=100, at=after(hours=2), every=20)])
    begun = begin(world)
    done = [upload(world, cut) for cut in begun.cuts]
    assert sum(one.held for one in done) == 1
    standing = finished(world, begun.cuts)
    assert (standing.held, standing.arrived, standing.waiting) == (1, 100, 0)


def test_what_no_retry_can_mend_is_raised_before_anything_is_done(world: World) -> None:
    world.log("monday", rows(10))
    (cut,) = begin(world).cuts
    world.define(mapping={"inputs": ["distance", "carrier", "nothing"]})
    with pytest.raises(Misconfigured):
        upload(world, cut)
    with pytest.raises(Misconfigured):
        begin(world, "next")


def test_a_piece_that_is_stopped_leaves_the_rest_open(world: World) -> None:
    world.log("monday", rows(10))
    (cut,) = begin(world).cuts
    stop = threading.Event()
    stop.set()
    with world.wired() as wired:
        assert steps.upload(wired, cut, notice=ignored, stop=stop).rows == 0
    assert settle(world, [cut]).unfinished == (cut,)
    assert upload(world, cut).sent == 1


class Dead(BaseException):
    """What ends a process between two effects."""


def _dies(*_: object) -> None:
    raise Dead
