"""Every send has an intent before its first byte, and none is repeated while it may have landed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import pytest
from tests.world import NOW, World, noting, rows

from tidepost.delivery.deliver import MOST_FILE_SENDS, Courier, Parcel
from tidepost.errors import HeldElsewhere, LeaseLost, Misconfigured, Refused, Retryable, TidepostError, Unknown
from tidepost.events import Event, PartSent
from tidepost.leases import Keeper
from tidepost.model import (
    Delivery,
    DeliveryState,
    Proof,
    Receipt,
    RowAnswer,
    Send,
    SendForm,
    SendState,
    Stream,
    StreamName,
)
from tidepost.planning.prospect import plan_request
from tidepost.ports import Upload, unguarded
from tidepost.publishing.publish import Publisher
from tidepost.publishing.stage import Stage
from tidepost.ranges import Range
from tidepost.world import World as Wired


@dataclass
class Scripted:
    """A destination that does what it is told, one outcome a send; after the last, it accepts.

    It stands for a network, which does not fail on demand at a given byte of a given file.
    """

    outcomes: list[TidepostError | None] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    seen: list[tuple[Send, ...]] = field(default_factory=list)
    look: list[object] = field(default_factory=list)
    name: str = "arthur"
    proof: Proof = Proof.ROWS
    loading: float = 1.0

    def check(self, stream: StreamName, columns: Mapping[str, str]) -> None:
        """All columns fit."""

    def send(self, stream: StreamName, upload: Upload) -> Receipt:
        for look in self.look:
            assert callable(look)
            look()
        with upload.open() as file:
            body = file.read()
        upload.guard()
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome
        self.bodies.append(body)
        return Receipt(upload.rows, 0)

    def send_rows(
        self, stream: StreamName, rows: Sequence[Mapping[str, object]], guard: Callable[[], float] = unguarded
    ) -> Sequence[RowAnswer]:
        raise NotImplementedError

    def counts(self, stream: StreamName, window: Range) -> Mapping[int, int]:
        raise NotImplementedError

    def close_batch(self, batch_id: str, total: int) -> None:
        raise NotImplementedError

    def ids(self, stream: StreamName, window: Range) -> Iterator[Sequence[str]]:
        raise NotImplementedError

    def labels(self, window: Range) -> Iterator[pa.Table]:
        raise NotImplementedError


@dataclass
class Office:
    """A courier with a published slice of three files."""

    world: Wired
    courier: Courier
    stream: Stream
    destination: Scripted
    delivery: Delivery
    told: list[Event]

    def pick_up(self) -> Parcel:
        return self.courier.pick_up(self.delivery)

    def sends(self) -> list[Send]:
        return list(self.world.ledger.deliveries.contents(self.delivery)[1])

    def state(self) -> DeliveryState:
        return self.world.ledger.deliveries.current(self.delivery).state

    def records(self, kind: str) -> list[str]:
        return [key.rpartition("/")[2] for key in self.world.records.list(f"flights/inferences/_tidepost/{kind}")]


@contextmanager
def office_of(world: World) -> Iterator[Office]:
    world.define(staging={"file_rows": 10})
    world.log("monday", rows(30))
    with world.wired() as wired, Keeper(wired.ledger, wired.owner) as keeper, ThreadPoolExecutor(1) as pool:
        connection = wired.engine.connect()
        try:
            stage = Stage(wired.job, wired.source, wired.staging, wired.records, wired.ledger, connection)
            publisher = Publisher(wired.job, wired.staging, wired.records, wired.ledger, keeper, ["arthur"])
            stream = wired.ledger.plans.stream("flights", StreamName.INFERENCES, {})
            (cut,), _ = plan_request(wired, stream, world.ask())
            with keeper.holding("cut", cut.id) as lease:
                done = publisher.publish(stage, lease, stream, cut, stage.stage(lease, stream, cut))
        finally:
            connection.close()
        told: list[Event] = []
        destination = Scripted()
        courier = Courier(
            stream,
            destination,
            wired.ledger,
            wired.staging,
            wired.records,
            keeper,
            pool,
            told.append,
            NOW.timestamp,
        )
        yield Office(wired, courier, stream, destination, done.deliveries[0], told)


@pytest.fixture
def office(world: World) -> Iterator[Office]:
    with office_of(world) as office:
        yield office


def test_every_file_is_sent_whole_and_once(office: Office, world: World) -> None:
    office.courier.deliver(office.pick_up())
    assert office.destination.bodies == [path.read_bytes() for path in world.files()]
    assert office.state() is DeliveryState.SENT
    assert [event.receipt.accepted for event in office.told if isinstance(event, PartSent)] == [10, 10, 10]


def test_an_intent_is_durable_in_ledger_and_staging_before_the_first_byte(office: Office) -> None:
    def look() -> None:
        newest = office.sends()[-1]
        assert newest.state is SendState.INTENT
        assert office.state() is DeliveryState.SENDING
        assert len(office.records("intents")) == len(office.sends())

    office.destination.look.append(look)
    office.courier.deliver(office.pick_up())
    assert len(office.sends()) == 3


def test_a_receipt_is_in_the_staging_before_the_ledger(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    records, deliveries = office.world.records, office.world.ledger.deliveries
    monkeypatch.setattr(records, "put", noting(order, lambda key, data, **_: key.split("/")[3], records.put))
    monkeypatch.setattr(deliveries, "answer", noting(order, lambda *args: "answered", deliveries.answer))
    office.courier.deliver(office.pick_up())
    assert order == ["intents", "receipts", "answered"] * 3


def test_names_of_intents_and_receipts_tell_slice_file_destination_and_attempt(office: Office) -> None:
    office.courier.deliver(office.pick_up())
    assert office.records("intents") == office.records("receipts")
    assert office.records("receipts")[0] == "00000001-00000.arthur.1.json"
    key = "flights/inferences/_tidepost/receipts/00000001-00000.arthur.1.json"
    stored = office.world.records.get(key)
    assert stored is not None
    assert json.loads(stored)["state"] == "accepted"


@pytest.mark.parametrize(
    ("outcome", "state", "send"),
    [
        (Unknown("no answer"), DeliveryState.UNKNOWN, SendState.INTENT),
        (Refused("400"), DeliveryState.HELD, SendState.REFUSED),
        (Retryable("503"), DeliveryState.TODO, SendState.ABSENT),
        (Misconfigured("401"), DeliveryState.TODO, SendState.ABSENT),
    ],
)
def test_what_becomes_of_a_delivery_follows_from_its_sends(
    office: Office, outcome: TidepostError, state: DeliveryState, send: SendState
) -> None:
    office.destination.outcomes = [None, outcome]
    if state is DeliveryState.UNKNOWN:
        office.courier.deliver(office.pick_up())
    else:
        with pytest.raises(type(outcome)):
            office.courier.deliver(office.pick_up())
    assert office.state() is state
    assert [one.state for one in office.sends()] == [SendState.ACCEPTED, send, SendState.ACCEPTED]


def test_only_what_did_not_land_is_sent_again(office: Office) -> None:
    office.destination.outcomes = [None, Retryable("503")]
    parcel = office.pick_up()
    with pytest.raises(Retryable):
        office.courier.deliver(parcel)
    office.courier.deliver(parcel)
    assert len(set(office.destination.bodies)) == 3 == len(office.destination.bodies)
    assert office.state() is DeliveryState.SENT


def test_a_send_without_an_answer_is_not_repeated(office: Office) -> None:
    office.destination.outcomes = [Unknown("no answer")]
    parcel = office.pick_up()
    office.courier.deliver(parcel)
    office.courier.deliver(parcel)
    assert len(office.sends()) == 3
    assert office.state() is DeliveryState.UNKNOWN


def test_a_send_of_a_process_that_died_is_not_repeated(office: Office) -> None:
    parcel = office.pick_up()
    office.courier.intend(parcel, parcel.slice.parts[0], SendForm.FILE, 10)
    office.courier.keeper.release(parcel.lease)
    office.courier.deliver(office.pick_up())
    assert len(office.destination.bodies) == 2
    assert office.state() is DeliveryState.UNKNOWN


@pytest.mark.parametrize(
    ("receipt", "state"),
    [
        (b'{"state": "accepted", "accepted": 10, "failed": 0}', DeliveryState.SENT),
        (b'{"state": "accep', DeliveryState.UNKNOWN),
    ],
)
def test_an_answer_that_reached_only_the_staging_is_taken_over(
    office: Office, receipt: bytes, state: DeliveryState
) -> None:
    parcel = office.pick_up()
    office.courier.intend(parcel, parcel.slice.parts[0], SendForm.FILE, 10)
    office.courier.keeper.release(parcel.lease)
    office.world.records.put("flights/inferences/_tidepost/receipts/00000001-00000.arthur.1.json", receipt)
    office.courier.deliver(office.pick_up())
    assert len(office.destination.bodies) == 2
    assert office.state() is state


def test_a_send_that_was_shown_to_be_absent_is_sent_again(office: Office) -> None:
    office.destination.outcomes = [Unknown("no answer")]
    parcel = office.pick_up()
    office.courier.deliver(parcel)
    office.courier.absent(parcel, parcel.slice.parts[0])
    office.courier.deliver(parcel)
    assert [one.attempt for one in office.sends() if one.part == 0] == [1, 2]
    assert office.state() is DeliveryState.SENT


def test_a_file_that_never_lands_is_left_to_a_person(office: Office) -> None:
    parcel = office.pick_up()
    for _ in range(MOST_FILE_SENDS):
        office.destination.outcomes = [Unknown("no answer")]
        office.courier.deliver(parcel)
        office.courier.absent(parcel, parcel.slice.parts[0])
    with pytest.raises(Refused, match=f"{MOST_FILE_SENDS} times and never held a row"):
        office.courier.deliver(parcel)
    assert office.state() is DeliveryState.HELD


def test_a_delivery_that_another_works_on_is_left_alone(office: Office) -> None:
    with Keeper(office.world.ledger, "somebody else") as other:
        other.take("delivery", office.delivery.id)
        with pytest.raises(HeldElsewhere):
            office.pick_up()


def test_a_lease_that_was_lost_keeps_the_last_bytes_back(office: Office) -> None:
    parcel = office.pick_up()
    office.courier.keeper.release(parcel.lease)
    with Keeper(office.world.ledger, "somebody else") as other:
        other.take("delivery", office.delivery.id)
        with pytest.raises(LeaseLost):
            office.courier.deliver(parcel)
    assert office.destination.bodies == []


def test_what_was_closed_meanwhile_is_seen_under_the_lease(office: Office) -> None:
    parcel = office.pick_up()
    office.world.ledger.deliveries.settle(parcel.lease, parcel.delivery, DeliveryState.CLOSED, arrived=30)
    office.courier.keeper.release(parcel.lease)
    assert office.pick_up().delivery.state is DeliveryState.CLOSED
