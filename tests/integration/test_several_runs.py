"""Two runs of one job at the same time: everything arrives once, whoever does it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.world import NOW, START, World, after, eventually, rows, said

from tidepost.delivery.confirm import Confirmer
from tidepost.delivery.deliver import Courier
from tidepost.delivery.outbound import Outbound, Patience
from tidepost.events import Event
from tidepost.leases import Keeper
from tidepost.model import Delivery, DeliveryState, Request, ScanKind
from tidepost.publishing.publish import Publisher
from tidepost.sandbox.settings import Fault

HARMLESS = {"HeldElsewhere", "LeaseLost"}


@pytest.mark.parametrize("runs", [2, 3])
def test_runs_at_the_same_time_upload_everything_once(world: World, runs: int) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(1200, every=20))
    with ExitStack() as stack:
        processes = [stack.enter_context(world.spawned(f"run {number}")) for number in range(runs)]
        found = [process.told() for process in processes]
    errors = {error[0] for one in found for error in one["errors"]}
    assert errors <= HARMLESS, found
    assert sum(one["published"] for one in found) == 1200
    eventually(lambda: not world.run().errors)
    assert world.everything_arrived_once(1200)


def test_runs_at_the_same_time_on_a_new_ledger_make_one(world: World) -> None:
    world.log("monday", rows(100))
    with ExitStack() as stack:
        processes = [stack.enter_context(world.spawned(f"run {number}")) for number in range(2)]
        found = [process.told() for process in processes]
    assert {error[0] for one in found for error in one["errors"]} <= HARMLESS, found
    assert world.everything_arrived_once(100)
    head = json.loads((world.staging.root / "flights/inferences/_tidepost/head.json").read_text())
    with world.ledger() as ledger:
        assert head["ledger"] == ledger.id


def test_a_backfill_beside_an_incremental_run_doubles_nothing(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(600, every=20))
    errors: list[str] = []

    def backfill() -> None:
        errors.append(said(world.backfill(START, NOW)))

    other = threading.Thread(target=backfill)
    other.start()
    with world.spawned("incremental") as process:
        found = process.told()
    other.join()
    assert {error[0] for error in found["errors"]} <= HARMLESS, found
    eventually(lambda: not world.run().errors)
    assert world.everything_arrived_once(600)


def test_the_same_request_twice_at_once_is_one_plan(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(600, every=20))
    with ExitStack() as stack:
        processes = [stack.enter_context(world.spawned("dag/run/1")) for _ in range(2)]
        found = [process.told() for process in processes]
    assert {error[0] for one in found for error in one["errors"]} <= HARMLESS, found
    eventually(lambda: not world.run(Request("dag/run/1", ScanKind.INCREMENTAL)).errors)
    assert world.everything_arrived_once(600)


def test_a_run_leaves_alone_what_another_one_is_sending(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(200, every=20))
    world.platform.process.fault(Fault("delay", kind="file", seconds=1.5, count=2))
    with world.spawned("first") as process:
        eventually(lambda: list(world.staging.root.rglob("head.json")) and "sending" in world.states())
        outcome = world.run()
        assert "is held by" in said(outcome)
        assert process.told()["errors"] == []
    assert world.everything_arrived_once(200)


def test_what_a_process_held_that_was_killed_is_taken_over_at_once(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(200, every=20))
    world.platform.process.fault(Fault("delay", kind="file", seconds=30, count=2))
    with world.spawned("first"):
        eventually(lambda: list(world.staging.root.rglob("head.json")) and "sending" in world.states())
    world.platform.reset()
    outcome = world.run()
    assert not said(outcome)
    assert world.everything_arrived_once(200)


def test_a_slice_that_another_run_publishes_meanwhile_is_not_taken_for_a_foreign_one(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    before = world.stream()
    world.log("tuesday", rows(10, first=10, at=after(hours=5)))
    world.run()
    with world.wired() as wired, Keeper(wired.ledger, wired.owner) as keeper:
        publisher = Publisher(wired.job, wired.staging, wired.records, wired.ledger, keeper, ["arthur"])
        publisher.agree(before)


def test_a_delivery_that_another_run_closed_since_it_was_listed_is_left_alone(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    told_of: list[Event] = []
    with world.wired() as wired, Keeper(wired.ledger, wired.owner) as keeper, ThreadPoolExecutor(1) as pool:
        destination, records, now = wired.destinations[0], wired.records, NOW.timestamp
        courier = Courier(
            world.stream(), destination, wired.ledger, wired.staging, records, keeper, pool, told_of.append, now
        )
        confirmer = Confirmer(courier, wired.job, wired.engine, destination.loading, False, now)
        outbound = Outbound(courier, confirmer, Patience(0.1, threading.Event()), told_of.append, at_once=2)
        outbound.add(Delivery(1, 1, "arthur", DeliveryState.TODO, 10))
        outbound.finish()
        assert (outbound.errors, told_of) == ([], [])
    assert world.everything_arrived_once(10)


def test_other_jobs_of_the_project_are_not_in_the_way(world: World, tmp_path: Path) -> None:
    world.log("monday", rows(100))
    name, _ = world.platform.register()
    other = json.loads(json.dumps(world.job)) | {"name": "others"}
    other["destination"]["model"] = name
    (world.root / "jobs" / "others.yaml").write_text(json.dumps(other))
    world.run()
    assert world.everything_arrived_once(100)
    assert world.project.job("others").name == "others"
