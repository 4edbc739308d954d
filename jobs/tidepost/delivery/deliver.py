"""Delivering: a slice's files to one destination, each with an intent before its first byte and a receipt after.

A send that has an intent and no receipt may have landed. It is never repeated here: `confirm.py` asks first.
Intents and receipts are written to the staging before the ledger, so that a lost ledger can be rebuilt from them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from tidepost.errors import HeldElsewhere, Misconfigured, Refused, Retryable, TidepostError, Unknown
from tidepost.events import Event, PartSent
from tidepost.leases import Keeper
from tidepost.model import (
    Delivery,
    DeliveryState,
    Lease,
    Part,
    Proof,
    Send,
    SendForm,
    SendState,
    Slice,
    Stream,
)
from tidepost.ports import Destination, Ledger, Records, Staging, Upload

MOST_FILE_SENDS = 5
"""How often one file is sent, each time only after the destination was shown not to hold it."""


@dataclass(slots=True)
class Looked:
    """What the looks at a delivery's destination have seen so far.

    counts:    rows by hour, at the last look
    unchanged: how many looks in a row have seen these
    asked_at:  the counts at which more was asked for than counts
    replaces:  whether labels of it take the place of others; None before anybody looked
    """

    counts: Mapping[int, int] | None = None
    unchanged: int = 0
    asked_at: Mapping[int, int] | None = None
    replaces: bool | None = None


@dataclass(slots=True, eq=False)
class Parcel:
    """A delivery that this process works on: its lease, what it holds, and what was sent of it.

    noticed: when something was last learnt of a send, an answer or the lack of one, by this process's clock
    looked:  what was seen of it since it was sent
    """

    delivery: Delivery
    slice: Slice
    lease: Lease
    noticed: float = 0.0
    _sends: dict[int, Send] = field(default_factory=dict)
    looked: Looked = field(default_factory=Looked)

    @property
    def sends(self) -> list[Send]:
        """Newest last."""
        return list(self._sends.values())

    def put(self, send: Send) -> None:
        """Remember a send, or what has become of it."""
        self._sends[send.id] = send

    def of(self, part: Part, form: SendForm) -> list[Send]:
        return [send for send in self.sends if send.part == part.number and send.form is form]

    def old(self, send: Send) -> bool:
        """Whether it was sent before the delivery was opened again, and says nothing of what is missing now."""
        return self.delivery.reopened is not None and send.at < self.delivery.reopened

    def unanswered(self) -> bool:
        """Whether something may have landed that nobody knows of."""
        return any(send.state is SendState.INTENT for send in self.sends)

    @property
    def failed(self) -> int:
        """Rows that the destination itself said it did not take, in the newest answer of each file."""
        newest = [sends[-1] for part in self.slice.parts if (sends := self.of(part, SendForm.FILE))]
        return sum(json.loads(send.detail).get("failed", 0) for send in newest if send.state is SendState.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Courier:
    """Sends to one destination.

    parts: runs the sends of files
    now:   seconds of a clock that does not jump, for what is waited for; instants of the ledger never meet it
    clock: seconds since 1970, for the records
    """

    stream: Stream
    destination: Destination
    ledger: Ledger
    staging: Staging
    records: Records
    keeper: Keeper
    parts: Executor
    notice: Callable[[Event], None]
    now: Callable[[], float]
    clock: Callable[[], float] = time.time

    def pick_up(self, delivery: Delivery) -> Parcel:
        """Lease a delivery and read what was sent of it. Raises HeldElsewhere, Retryable."""
        lease = self.keeper.take("delivery", delivery.id)
        try:
            delivery = self.ledger.deliveries.current(delivery)
            contents, sends = self.ledger.deliveries.contents(delivery)
            ago = self._seconds_since(lease, delivery, sends)
            parcel = Parcel(delivery, contents, lease, self.now() - ago, {send.id: send for send in sends})
            self._told_before(parcel)
        except BaseException:
            self.keeper.release(lease)
            raise
        return parcel

    def _told_before(self, parcel: Parcel) -> None:
        """Take over the answers of files that reached the staging, and whose reader died before the ledger knew."""
        for send in parcel.sends:
            if send.state is SendState.INTENT and send.form is SendForm.FILE:
                written = self.records.get(self._key("receipts", parcel, send.part, send.attempt))
                if written is not None and (answer := _answered(written)) is not None:
                    self._learn(parcel, send, *answer)

    def _seconds_since(self, lease: Lease, delivery: Delivery, sends: Sequence[Send]) -> float:
        """How long ago something was last learnt of the sends. Both ends of it are the ledger's instants, so that
        a worker whose clock is wrong takes nothing for overdue."""
        if not sends:
            return 0.0
        unsure = any(send.state is SendState.INTENT for send in sends)
        if unsure and delivery.unknown is None:
            return 0.0  # its last bytes may have left just now
        told = max(send.answered or send.at for send in sends)
        if unsure and delivery.unknown is not None:
            told = max(told, delivery.unknown)
        return max(0.0, self.keeper.ledger_now(lease) - told)

    def deliver(self, parcel: Parcel) -> None:
        """Send every file of a parcel that is not there yet and not in question.

        Afterwards the delivery is `sent` (all accepted), `unknown` (at least one may have landed), `held` (one was
        refused whole) or `todo` again (at least one provably did not land). Raises LeaseLost, and Misconfigured or
        Retryable once every file that was on its way is accounted for.
        """
        todo = [part for part in parcel.slice.parts if self._sendable(parcel, part)]
        if not todo and parcel.unanswered() and parcel.delivery.state is DeliveryState.UNKNOWN:
            return  # since when it is unknown stays what it was
        failures: list[TidepostError] = []
        for future in [self.parts.submit(self._send, parcel, part) for part in todo]:
            try:
                future.result()
            except TidepostError as error:
                failures.append(error)
        lost = next((failure for failure in failures if isinstance(failure, HeldElsewhere)), None)
        if lost is not None:
            raise lost
        state, reason = _state(parcel, failures)
        parcel.delivery = self.ledger.deliveries.settle(parcel.lease, parcel.delivery, state, reason=reason)
        if state is not DeliveryState.UNKNOWN:
            for failure in failures:
                raise failure

    def absent(self, parcel: Parcel, part: Part) -> None:
        """Write down that the newest send of a file was shown not to have landed."""
        self.answer(parcel, parcel.of(part, SendForm.FILE)[-1], SendState.ABSENT, {"found": "absent by asking"})

    def answer(self, parcel: Parcel, send: Send, state: SendState, detail: Mapping[str, object]) -> None:
        """Write what was learnt of a send to the staging, then to the ledger."""
        self.records.put(self._key("receipts", parcel, send.part, send.attempt), _json({"state": state, **detail}))
        self._learn(parcel, send, state, detail)

    def _learn(self, parcel: Parcel, send: Send, state: SendState, detail: Mapping[str, object]) -> None:
        self.ledger.deliveries.answer(parcel.lease, send, state, json.dumps(detail))
        answered = self.keeper.ledger_now(parcel.lease)
        parcel.put(replace(send, state=state, detail=json.dumps(detail), answered=answered))

    def intend(self, parcel: Parcel, part: Part, form: SendForm, rows: int) -> Send:
        """Write the intent of a send to the staging, then to the ledger; after that it may leave.

        Raises Unknown where the staging holds this intent already: whoever wrote it died before the ledger knew,
        or this ledger is an older copy. It is in the ledger then, and the destination must be asked first.
        """
        attempt = 1 + max((send.attempt for send in parcel.sends if send.part == part.number), default=0)
        intent = {"form": form, "rows": rows, "at": self.clock()}
        new = self.records.put(self._key("intents", parcel, part.number, attempt), _json(intent), absent=True)
        send = self.ledger.deliveries.intend(parcel.lease, parcel.delivery, part.number, form, rows)
        parcel.put(send)
        if not new:
            raise Unknown(f"{part.path} may have been sent already: the staging holds an intent of it")
        return send

    def _sendable(self, parcel: Parcel, part: Part) -> bool:
        sends = parcel.of(part, SendForm.FILE)
        if not sends or sends[-1].state is SendState.ABSENT:
            return True
        # Where single rows can be asked for, what did not arrive goes row by row. Elsewhere files that were refused,
        # and those that nobody knows of, go again as such, once that was decided: until then the delivery is held.
        # So do all files of a delivery that was opened again.
        decided = sends[-1].state in (SendState.REFUSED, SendState.UNKNOWN) or parcel.old(sends[-1])
        return self.destination.proof is not Proof.ROWS and decided

    def _send(self, parcel: Parcel, part: Part) -> None:
        files = parcel.of(part, SendForm.FILE)
        taken = [send for send in files if "found" in send.detail and not parcel.old(send)]
        if len(taken) >= MOST_FILE_SENDS and not parcel.delivery.released:
            raise Refused(
                f"{self.destination.name} took {part.path} {MOST_FILE_SENDS} times and never held a row of it"
            )
        try:
            send = self.intend(parcel, part, SendForm.FILE, part.rows)
        except Unknown:
            parcel.noticed = self.now()
            raise
        upload = Upload(
            name=part.path.rpartition("/")[2],
            rows=part.rows,
            size=part.size,
            open=lambda: self.staging.open(self.stream, part),
            guard=lambda: self.keeper.guard(parcel.lease),
            batch_id=part.batch_id,
        )
        try:
            receipt = self.destination.send(self.stream.name, upload)
        except Unknown:
            parcel.noticed = self.now()
            raise
        except Refused as error:
            self.answer(parcel, send, SendState.REFUSED, {"message": error.message})
            raise
        except (Retryable, Misconfigured) as error:
            self.answer(parcel, send, SendState.ABSENT, {"message": error.message})
            raise
        self.answer(parcel, send, SendState.ACCEPTED, asdict(receipt))
        parcel.noticed = self.now()
        self.notice(PartSent(self.destination.name, parcel.slice.sequence, part, receipt))

    def _key(self, kind: str, parcel: Parcel, part: int, attempt: int) -> str:
        name = f"{parcel.slice.sequence:08d}-{part:05d}.{self.destination.name}.{attempt}.json"
        return f"{self.stream.prefix}/_tidepost/{kind}/{name}"


def _state(parcel: Parcel, failures: Sequence[TidepostError]) -> tuple[DeliveryState, str]:
    refused = next((error for error in failures if isinstance(error, Refused)), None)
    if parcel.unanswered():
        unknown = next((error.message for error in failures if isinstance(error, Unknown)), "a send has no answer")
        return DeliveryState.UNKNOWN, unknown
    if refused is not None:
        return DeliveryState.HELD, refused.message
    if failures:
        return DeliveryState.TODO, failures[0].message
    return DeliveryState.SENT, ""


def _answered(receipt: bytes) -> tuple[SendState, Mapping[str, object]] | None:
    """What a receipt says; None for a damaged one: what it answered stays unanswered."""
    with suppress(ValueError):
        content: object = json.loads(receipt)
        if isinstance(content, dict) and "state" in content:
            return SendState(content.pop("state")), content
    return None


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
