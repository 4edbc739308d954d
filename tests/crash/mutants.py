"""Mutations of the product, each of which breaks one thing that its promise rests on. Applied in child processes.

A test that cannot tell the product from its mutant proves nothing; `test_mutants.py` has, for each, one that can.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from tidepost import status
from tidepost.delivery.confirm import Confirmer
from tidepost.delivery.deliver import Courier, Parcel
from tidepost.destinations.arthur.destination import ArthurDestination
from tidepost.errors import Unknown
from tidepost.leases import Keeper
from tidepost.ledger.deliveries import SqlDeliveries
from tidepost.ledger.slices import SqlSlices
from tidepost.model import Delivery, Lease, Part, Send, SendForm, SendState, Slice, Stream
from tidepost.planning import plan, prospect
from tidepost.ports import Upload, unguarded
from tidepost.publishing.publish import Publisher, head_key, manifest, manifest_key
from tidepost.publishing.stage import Stage


def no_intent() -> None:
    """A send is written down only once it is answered, in the ledger as in the staging."""
    numbers = itertools.count(-1, -1)
    waiting: dict[int, tuple[Delivery, int, SendForm, int]] = {}
    plain_intend, plain_answer = SqlDeliveries.intend, SqlDeliveries.answer

    def intend(  # noqa: PLR0917 - the port's
        self: SqlDeliveries, lease: Lease, delivery: Delivery, part: int, form: SendForm, rows: int
    ) -> Send:
        number = next(numbers)
        waiting[number] = (delivery, part, form, rows)
        return Send(number, delivery.id, part, 1, form, rows, time.time())

    def answer(self: SqlDeliveries, lease: Lease, send: Send, state: SendState, detail: str) -> None:
        if send.id in waiting:
            send = plain_intend(self, lease, *waiting.pop(send.id))
        plain_answer(self, lease, send, state, detail)

    def unrecorded(self: Courier, parcel: Parcel, part: Part, form: SendForm, rows: int) -> Send:
        send = self.ledger.deliveries.intend(parcel.lease, parcel.delivery, part.number, form, rows)
        parcel.put(send)
        return send

    Courier.intend = unrecorded  # type: ignore[method-assign]
    SqlDeliveries.intend = intend  # type: ignore[method-assign]
    SqlDeliveries.answer = answer  # type: ignore[method-assign]


def no_index() -> None:
    """Ids are not looked up in what was published."""
    Stage._index = lambda self, stream, parts, which="sent": None  # type: ignore[method-assign]


def no_fence() -> None:
    """A process that slept acts on its leases as if it had not."""
    Keeper.guard = lambda self, lease: unguarded()  # type: ignore[method-assign]


def manifest_first() -> None:
    """The manifest is there before its files are."""

    def complete(self: Publisher, stream: Stream, begun: Slice) -> tuple[Delivery, ...]:
        head = {"ledger": self.ledger.id, "newest": begun.sequence}
        self.records.put(head_key(stream), json.dumps(head).encode())
        self.records.put(manifest_key(stream, begun.sequence), manifest(self.ledger.id, stream, begun))
        for part in begun.parts:
            self.staging.reveal(stream, part)
        return self.ledger.slices.finish(stream, begun, self.destinations)

    Publisher._complete = complete  # type: ignore[method-assign]


def mark_from_the_clock() -> None:
    """The mark is where the clock stands, whatever arrived."""
    status.__dict__["high_water_mark"] = lambda *_: time.time_ns()


def bound_from_the_clock() -> None:
    """What was scanned goes up to the clock, also where a loader was behind it."""
    for module in (plan, prospect):
        module.__dict__["bound"] = lambda limit, *_: limit


def no_asking() -> None:
    """A file whose answer was lost is sent again at once."""
    plain = ArthurDestination.send

    def send(self: ArthurDestination, stream: Any, upload: Upload) -> Any:
        try:
            return plain(self, stream, upload)
        except Unknown:
            return plain(self, stream, upload)

    ArthurDestination.send = send  # type: ignore[method-assign]


def no_patience() -> None:
    """What does not show yet is taken for what did not land."""
    Confirmer._deadline = lambda self, parcel: 0.0  # type: ignore[method-assign]


def no_compare() -> None:
    """Publishing does not compare the version that the index was read at."""
    plain = SqlSlices.begin

    def begin(  # noqa: PLR0917 - the port's
        self: SqlSlices, lease: Lease, stream: Stream, draft: Slice, version: int, columns: Mapping[str, str]
    ) -> Slice:
        return plain(self, lease, stream, draft, self.published(stream, None).version, columns)

    SqlSlices.begin = begin  # type: ignore[method-assign]


def no_memory_of_answers() -> None:
    """A file that was accepted is sent again by whoever picks its delivery up."""
    Courier._sendable = lambda self, parcel, part: True  # type: ignore[method-assign]


def no_person() -> None:
    """What nobody can tell of is sent again, although the job says that a person decides."""
    plain = Confirmer._unheard

    def unheard(self: Confirmer, parcel: Parcel) -> bool:
        to = tuple(one.model_copy(update={"on_unknown": "resend"}) for one in self.job.destinations)
        self.job = self.job.model_copy(update={"destinations": to})
        return plain(self, parcel)

    Confirmer._unheard = unheard  # type: ignore[method-assign]


MUTANTS: Mapping[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (
        no_intent,
        no_index,
        no_fence,
        manifest_first,
        mark_from_the_clock,
        bound_from_the_clock,
        no_asking,
        no_patience,
        no_compare,
        no_memory_of_answers,
        no_person,
    )
}
