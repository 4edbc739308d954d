"""A delivery closes when the destination shows its rows, and never because it said yes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest
from tests.world import World, rows

from tidepost.delivery.confirm import Confirmer
from tidepost.delivery.deliver import Courier, Parcel
from tidepost.errors import Retryable
from tidepost.events import Event, Settled, Waiting
from tidepost.leases import Keeper
from tidepost.model import Delivery, DeliveryState, SendForm, StreamName
from tidepost.planning.prospect import plan_request
from tidepost.publishing.publish import Publisher
from tidepost.publishing.stage import Stage
from tidepost.ranges import Range
from tidepost.sandbox.settings import Fault
from tidepost.world import World as Wired


@dataclass
class Desk:
    """Two slices of two files with 50 rows each, all of one hour, and a clock that is set by hand."""

    world: World
    wired: Wired
    courier: Courier
    confirmer: Confirmer
    deliveries: list[Delivery]
    told: list[Event]
    now: float = 0.0

    def sent(self, number: int) -> Parcel:
        """Deliver one slice, whatever comes of it."""
        parcel = self.courier.pick_up(self.deliveries[number])
        with suppress(Retryable):
            self.courier.deliver(parcel)
        self.world.platform.process.wait_until_loaded()
        return parcel

    def look(self, *parcels: Parcel, times: int = 1) -> list[Parcel]:
        left = list(parcels)
        for _ in range(times):
            left = self.confirmer.look(left)
            self.world.platform.process.wait_until_loaded()
        return left


@contextmanager
def desk_of(world: World, *, shared: bool = False) -> Iterator[Desk]:
    world.define(
        limits={"cut_rows": 100, "rejects": "10%"},
        staging={"file_rows": 50},
        destination={"loading": "60s", "retries": 0, "connections": 1, "shared": shared},
    )
    world.log("monday", rows(200, every=10))
    with world.wired() as wired, Keeper(wired.ledger, wired.owner) as keeper, ThreadPoolExecutor(1) as pool:
        connection = wired.engine.connect()
        stream = wired.ledger.plans.stream("flights", StreamName.INFERENCES, {})
        deliveries: list[Delivery] = []
        try:
            stage = Stage(wired.job, wired.source, wired.staging, wired.records, wired.ledger, connection)
            publisher = Publisher(wired.job, wired.staging, wired.records, wired.ledger, keeper, ["arthur"])
            cuts, _ = plan_request(wired, stream, world.ask())
            for cut in cuts:
                with keeper.holding("cut", cut.id) as lease:
                    fresh = wired.ledger.plans.find("flights", stream.name) or stream
                    deliveries += publisher.publish(
                        stage, lease, fresh, cut, stage.stage(lease, fresh, cut)
                    ).deliveries
        finally:
            connection.close()
        assert [delivery.rows for delivery in deliveries] == [100, 100]
        told: list[Event] = []
        clock: list[Desk] = []

        def now() -> float:
            return clock[0].now

        destination = wired.destinations[0]
        courier = Courier(
            stream, destination, wired.ledger, wired.staging, wired.records, keeper, pool, told.append, now
        )
        confirmer = Confirmer(courier, wired.job, wired.engine, destination.loading, shared, now)
        # The ledger stamps by its own clock what was answered; the one set by hand begins there.
        desk = Desk(world, wired, courier, confirmer, deliveries, told, now=time.time())
        clock.append(desk)
        yield desk


def state_of(parcel: Parcel) -> DeliveryState:
    return parcel.delivery.state


@pytest.fixture
def desk(world: World) -> Iterator[Desk]:
    with desk_of(world) as desk:
        yield desk


@pytest.fixture
def shared_desk(world: World) -> Iterator[Desk]:
    with desk_of(world, shared=True) as desk:
        yield desk


def test_rows_that_show_close_their_delivery_by_one_count(desk: Desk) -> None:
    parcel = desk.sent(0)
    assert desk.look(parcel) == []
    assert (state_of(parcel), parcel.delivery.arrived) == (DeliveryState.CLOSED, 100)
    assert any(isinstance(event, Settled) for event in desk.told)


def test_many_deliveries_are_closed_by_one_look(desk: Desk) -> None:
    assert desk.look(desk.sent(0), desk.sent(1)) == []


def test_ids_are_not_asked_for_while_counts_say_that_rows_are_loading(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=1))
    parcel = desk.sent(0)
    asked: list[object] = []
    ids = desk.courier.destination.ids

    def noted(stream: StreamName, window: Range) -> Iterator[Sequence[str]]:
        asked.append(window)
        return ids(stream, window)

    monkeypatch.setattr(desk.courier.destination, "ids", noted)
    assert desk.look(parcel, times=3) == [parcel]
    assert asked == []
    desk.now += 61
    desk.look(parcel)
    assert asked != []


def test_nothing_to_confirm_asks_nothing(desk: Desk) -> None:
    assert desk.confirmer.look([]) == []


def test_rows_that_do_not_show_are_waited_for_until_their_time_is_over(desk: Desk) -> None:
    desk.world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=1, skip=1))
    parcel = desk.sent(0)
    assert desk.look(parcel, times=4) == [parcel]
    assert state_of(parcel) is DeliveryState.SENT
    assert not any(send.form is SendForm.ROWS for send in parcel.sends)
    waiting = [event for event in desk.told if isinstance(event, Waiting)]
    assert waiting[0].rows == 100
    assert 0 < waiting[0].seconds <= 60


def test_missing_rows_go_row_by_row_once_their_time_is_over(desk: Desk) -> None:
    desk.world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=1, skip=1))
    parcel = desk.sent(0)
    desk.look(parcel, times=2)
    desk.now += 61
    assert desk.look(parcel, times=2) == []
    assert [send.rows for send in parcel.sends if send.form is SendForm.ROWS] == [50]
    assert desk.world.platform_rows() == 100
    assert state_of(parcel) is DeliveryState.CLOSED


def test_a_file_of_unknown_outcome_that_landed_is_closed_by_its_ids(desk: Desk) -> None:
    desk.world.platform.process.fault(Fault("lose_reply", kind="file", count=2))
    parcel = desk.sent(0)
    assert state_of(parcel) is DeliveryState.UNKNOWN
    assert desk.look(parcel, times=2) == []
    assert state_of(parcel) is DeliveryState.CLOSED
    assert not parcel.unanswered()


def test_a_file_of_unknown_outcome_that_did_not_land_is_sent_again_when_its_time_is_over(desk: Desk) -> None:
    desk.world.platform.process.fault(Fault("reset", kind="file", after_bytes=10_000_000, count=1))
    parcel = desk.sent(0)
    assert state_of(parcel) is DeliveryState.UNKNOWN
    assert desk.look(parcel, times=3) == [parcel]
    assert state_of(parcel) is DeliveryState.UNKNOWN
    desk.now += 61
    assert desk.look(parcel) == [parcel]
    assert state_of(parcel) is DeliveryState.TODO
    desk.courier.deliver(parcel)
    desk.world.platform.process.wait_until_loaded()
    assert desk.look(parcel) == []
    assert desk.world.platform_rows() == 100


def test_counts_prove_nothing_while_something_of_unknown_outcome_is_in_the_hour(desk: Desk) -> None:
    desk.world.platform.process.fault(Fault("lose_reply", kind="file", count=1))
    unknown = desk.sent(0)
    desk.world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=2))
    dropped = desk.sent(1)
    assert unknown.delivery.state is DeliveryState.UNKNOWN
    assert dropped in desk.look(unknown, dropped, times=2)


def test_rows_of_a_half_sent_delivery_do_not_stand_for_the_lost_rows_of_another(desk: Desk) -> None:
    desk.world.platform.process.fault(Fault("throttle", kind="file", retry_after=0, count=1, skip=1))
    half = desk.sent(0)
    assert half.delivery.state is DeliveryState.TODO
    desk.world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=1))
    dropped = desk.sent(1)
    assert dropped.delivery.state is DeliveryState.SENT
    assert desk.look(dropped) == [dropped]


def test_rows_of_a_held_delivery_do_not_stand_for_the_lost_rows_of_another(desk: Desk) -> None:
    desk.world.platform.process.fault(Fault("fail", kind="file", status=400, count=1, skip=1))
    with pytest.raises(Exception, match="400"):
        desk.sent(0)
    desk.world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=1))
    dropped = desk.sent(1)
    assert desk.look(dropped) == [dropped]


def test_where_others_write_too_counts_prove_nothing(shared_desk: Desk) -> None:
    parcel = shared_desk.sent(0)
    assert shared_desk.look(parcel) == [parcel]
    assert shared_desk.look(parcel) == []


def test_a_few_rows_that_stay_missing_are_tried_twice_before_a_person_is_asked(desk: Desk) -> None:
    desk.world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=1))
    desk.world.platform.process.fault(Fault("drop", kind="rows", rows=0.2, count=1))
    parcel = desk.sent(0)
    left = [parcel]
    while left:
        left = desk.look(*left, times=2)
        desk.now += 61
    assert (state_of(parcel), parcel.delivery.reason) == (DeliveryState.CLOSED, "")
    assert desk.world.platform_rows() == 100


def test_a_worker_whose_clock_is_ahead_takes_nothing_for_overdue(desk: Desk) -> None:
    desk.world.platform.process.fault(Fault("drop", kind="file", rows=1.0, count=1))
    desk.courier.keeper.release(desk.sent(0).lease)
    desk.now += 3600
    parcel = desk.courier.pick_up(desk.deliveries[0])
    assert desk.look(parcel, times=3) == [parcel]
    assert not any(send.form is SendForm.ROWS for send in parcel.sends)
    desk.now += 61
    assert desk.look(parcel, times=2) == []
    assert desk.world.platform_rows() == 100
