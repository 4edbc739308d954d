"""Deliveries and their sends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, insert, select, update

from tidepost.errors import Outdated
from tidepost.ledger.contents import read_slice
from tidepost.ledger.engine import Database
from tidepost.ledger.leases import verify
from tidepost.ledger.plans import lock
from tidepost.ledger.schema import SliceState, audit, deliveries, delivery_hours, part_hours, pauses, sends, slices
from tidepost.model import (
    OPEN_DELIVERIES,
    Delivery,
    DeliveryState,
    Lease,
    Pause,
    Proof,
    Send,
    SendForm,
    SendState,
    Slice,
    Stream,
)

# Where a delivery stays. Only `release` leads out of `held`, and only `reopen` out of `closed`: what was reopened
# does not cap the mark, or it would move back.
_ENDS: Final = (DeliveryState.HELD, DeliveryState.CLOSED)
_ENROLLED_AT_ONCE: Final = 1_000


class SqlDeliveries:
    """`ports.Deliveries` on the ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, stream: Stream, destination: str) -> tuple[Delivery, ...]:
        chosen = select(deliveries).where(
            deliveries.c.stream == stream.id,
            deliveries.c.destination == destination,
            deliveries.c.state.in_(OPEN_DELIVERIES),
        )
        with self._database.read() as connection:
            found = [_delivery(row) for row in connection.execute(chosen)]
        # Sorted here: to have them in order, SQLite would rather read all deliveries than the open ones.
        return tuple(sorted(found, key=lambda one: one.sequence))

    def held(self, stream: Stream, destination: str) -> tuple[Delivery, ...]:
        theirs = (deliveries.c.stream == stream.id, deliveries.c.destination == destination)
        chosen = select(deliveries).where(*theirs, deliveries.c.state == DeliveryState.HELD)
        with self._database.read() as connection:
            return tuple(_delivery(row) for row in connection.execute(chosen.order_by(deliveries.c.sequence)))

    def of(self, stream: Stream, cuts: Sequence[int]) -> tuple[Delivery, ...]:
        chosen = (
            select(deliveries)
            .join(slices, and_(slices.c.stream == deliveries.c.stream, slices.c.sequence == deliveries.c.sequence))
            .where(deliveries.c.stream == stream.id, slices.c.cut.in_(cuts))
        )
        with self._database.read() as connection:
            return tuple(_delivery(row) for row in connection.execute(chosen.order_by(deliveries.c.id)))

    def current(self, delivery: Delivery) -> Delivery:
        with self._database.read() as connection:
            return _delivery(_row(connection, delivery.id, lock=False))

    def contents(self, delivery: Delivery) -> tuple[Slice, tuple[Send, ...]]:
        with self._database.read() as connection:
            row = _row(connection, delivery.id, lock=False)
            so_far = select(sends).where(sends.c.delivery == delivery.id).order_by(sends.c.id)
            return (
                read_slice(connection, row.stream, row.sequence),
                tuple(_send(sent) for sent in connection.execute(so_far)),
            )

    def intend(self, lease: Lease, delivery: Delivery, part: int, form: SendForm, rows: int) -> Send:
        with self._database.write() as connection:
            verify(connection, lease, "delivery", delivery.id)
            now = self._database.now(connection)
            _move(connection, delivery.id, DeliveryState.SENDING, now, reason="")
            newest = select(func.max(sends.c.attempt)).where(sends.c.delivery == delivery.id, sends.c.part == part)
            intent = {
                "delivery": delivery.id,
                "part": part,
                "attempt": (connection.execute(newest).scalar() or 0) + 1,
                "form": form,
                "rows": rows,
                "state": SendState.INTENT,
                "detail": "",
                "at": now,
            }
            written = connection.execute(insert(sends).values(intent).returning(sends))
            return _send(written.one())

    def answer(self, lease: Lease, send: Send, state: SendState, detail: str) -> None:
        with self._database.write() as connection:
            verify(connection, lease, "delivery", send.delivery)
            this = (sends.c.id == send.id, sends.c.delivery == send.delivery)
            answered = {"state": state, "detail": detail, "answered_at": self._database.now(connection)}
            connection.execute(update(sends).where(*this).values(answered))

    def settle(
        self,
        lease: Lease,
        delivery: Delivery,
        state: DeliveryState,
        *,
        arrived: int = 0,
        refused: Mapping[int, int] | None = None,
        reason: str = "",
        proof: Proof | None = None,
    ) -> Delivery:
        """As `ports.Deliveries.settle`. `arrived`, and `refused` for each hour that it names, are totals so far,
        so that a repeat changes nothing; neither ever shrinks. `proof` tells by what a delivery was closed.

        Raises Outdated where the delivery was closed or held meanwhile. ValueError: more rows refused than the
        hour has."""
        with self._database.write() as connection:
            verify(connection, lease, "delivery", delivery.id)
            row = _row(connection, delivery.id, lock=True)
            for hour, rows in (refused or {}).items():
                _refuse(connection, delivery.id, hour, rows)
            counted = select(func.sum(delivery_hours.c.refused)).where(delivery_hours.c.delivery == delivery.id)
            changed = {
                "arrived": max(row.arrived, arrived),
                "refused": int(connection.execute(counted).scalar() or 0),
                "reason": reason,
                "proof": row.proof if proof is None else proof,
            }
            _move(connection, delivery.id, state, self._database.now(connection), **changed)
            return _delivery(_row(connection, delivery.id, lock=False))

    def enroll(self, stream: Stream, destination: str) -> int:
        """Give every published slice a delivery at a destination, where it has none, and return how many were
        new: for a destination that joined the job later. Repeating it is harmless, also after a crash."""
        missing = select(slices.c.sequence).where(*_without_delivery(stream, destination))
        some = missing.order_by(slices.c.sequence).limit(_ENROLLED_AT_ONCE)
        new = 0
        while True:
            with self._database.read() as connection:
                found = (
                    connection.execute(some).scalars().all() if _some_missing(connection, stream, destination) else ()
                )
            if not found:
                return new
            these = slices.c.sequence.between(found[0], found[-1])
            with self._database.write() as connection:
                lock(connection, stream)
                new += create_missing(connection, stream, destination, self._database.now(connection), these)

    def paused(self, job: str) -> dict[str, Pause]:
        chosen = select(pauses).where(pauses.c.job == job).order_by(pauses.c.destination)
        with self._database.read() as connection:
            return {row.destination: Pause(row.who, row.at, row.why) for row in connection.execute(chosen)}

    def release(
        self,
        stream: Stream,
        sequence: int,
        *,
        who: str,
        why: str,
        destination: str | None = None,
        arrived: bool = False,
    ) -> tuple[Delivery, ...]:
        """Let the held deliveries of a slice go, at one destination or at all, and return them; recorded in the
        audit. At all: the slice is not held any more, for destinations that join later either. `arrived`: what was
        sent of them without an answer counts as accepted, on the word of whoever says so."""
        this = and_(slices.c.stream == stream.id, slices.c.sequence == sequence)
        held = and_(
            deliveries.c.stream == stream.id,
            deliveries.c.sequence == sequence,
            deliveries.c.state == DeliveryState.HELD,
        )
        if destination is not None:
            held = and_(held, deliveries.c.destination == destination)
        with self._database.write() as connection:
            # A destination that is enrolled meanwhile sees the slice as held, and is released, or sees it released.
            lock(connection, stream)
            now = self._database.now(connection)
            reasons = {}
            if destination is None:
                reasons["every destination"] = connection.execute(select(slices.c.held).where(this)).scalar()
                connection.execute(update(slices).where(this).values(held=None))
            rows = connection.execute(
                select(deliveries).where(held).order_by(deliveries.c.id).with_for_update()
            ).all()
            reasons.update({row.destination: row.reason for row in rows})
            for where, reason in reasons.items():
                if reason is not None:
                    what = f"released slice {sequence} of {stream.name} at {where}"
                    entry = {"job": stream.job, "at": now, "who": who, "what": what, "old": f"held: {reason}"}
                    connection.execute(insert(audit).values({**entry, "new": DeliveryState.TODO, "why": why}))
            these = [row.id for row in rows]
            freed = {"state": DeliveryState.TODO, "reason": "", "changed_at": now, "released_at": now}
            connection.execute(update(deliveries).where(deliveries.c.id.in_(these)).values(freed))
            if arrived:
                _take_for_arrived(connection, these, now)
            return tuple(_delivery(_row(connection, one, lock=False)) for one in these)

    def reopen(
        self, stream: Stream, destination: str, lost: Mapping[int, int], *, who: str, why: str
    ) -> tuple[Delivery, ...]:
        """Open closed deliveries again, `lost` rows of each (by slice) being not there any more, and return those
        that were closed, by slice; recorded in the audit. Repeating it is harmless: an open one stays as it is, and
        so does one that was skipped."""
        closed = (
            deliveries.c.stream == stream.id,
            deliveries.c.destination == destination,
            deliveries.c.state == DeliveryState.CLOSED,
            deliveries.c.reason.not_like("skipped: %"),
        )
        found: list[Delivery] = []
        with self._database.write() as connection:
            lock(connection, stream)  # a purge of these slices sees them open, or they see it
            now = self._database.now(connection)
            for sequence, rows in sorted(lost.items()):
                this = select(deliveries).where(*closed, deliveries.c.sequence == sequence)
                row = connection.execute(this.with_for_update()).first()
                if row is None:
                    continue
                again = {
                    "state": DeliveryState.SENT,
                    "arrived": max(0, row.arrived - rows),
                    "reason": "",
                    "closed_at": None,
                    "changed_at": now,
                    "reopened_at": now,
                }
                connection.execute(update(deliveries).where(deliveries.c.id == row.id).values(again))
                entry = {
                    "job": stream.job,
                    "at": now,
                    "who": who,
                    "what": f"reopened slice {sequence} of {stream.name} at {destination}",
                    "old": f"closed, {row.arrived} of {row.rows} rows arrived",
                    "new": f"{rows} rows are sent again",
                    "why": why,
                }
                connection.execute(insert(audit).values(entry))
                found.append(_delivery(_row(connection, row.id, lock=False)))
        return tuple(found)


def _take_for_arrived(connection: Connection, these: Sequence[int], now: float) -> None:
    """Answer the sends of some deliveries that have no answer: somebody said that they arrived."""
    silent = select(sends).where(
        sends.c.delivery.in_(these), sends.c.state.in_((SendState.INTENT, SendState.UNKNOWN))
    )
    for send in connection.execute(silent).all():
        answered = {"state": SendState.ACCEPTED, "detail": said_to_have_arrived(send.rows), "answered_at": now}
        connection.execute(update(sends).where(sends.c.id == send.id).values(answered))


def said_to_have_arrived(rows: int) -> str:
    """The detail of a send that counts as accepted on somebody's word."""
    return json.dumps({"accepted": rows, "failed": 0, "found": "said by hand"})


def create_missing(
    connection: Connection, stream: Stream, destination: str, now: float, *where: ColumnElement[bool]
) -> int:
    """Deliveries of those published slices that `where` chooses and that have none at a destination: held where
    the slice is held, closed where it has no rows."""
    missing = select(slices).where(*_without_delivery(stream, destination), *where)
    rows = connection.execute(missing.order_by(slices.c.sequence)).all()
    if not rows:
        return 0
    new = []
    for row in rows:
        state = (
            DeliveryState.HELD if row.held is not None else DeliveryState.TODO if row.rows else DeliveryState.CLOSED
        )
        new.append(
            {
                "stream": stream.id,
                "sequence": row.sequence,
                "destination": destination,
                "state": state,
                "rows": row.rows,
                "arrived": 0,
                "refused": 0,
                "reason": row.held or "",
                "created_at": now,
                "changed_at": now,
                "closed_at": now if state is DeliveryState.CLOSED else None,
            }
        )
    connection.execute(insert(deliveries), new)
    _write_hours(connection, stream, destination, [row.sequence for row in rows])
    return len(rows)


def deliveries_of(
    connection: Connection, stream: Stream, sequence: int, destinations: Sequence[str]
) -> tuple[Delivery, ...]:
    """A slice's deliveries at some destinations, in their order."""
    chosen = select(deliveries).where(deliveries.c.stream == stream.id, deliveries.c.sequence == sequence)
    found = {row.destination: _delivery(row) for row in connection.execute(chosen)}
    return tuple(found[destination] for destination in destinations)


def _write_hours(connection: Connection, stream: Stream, destination: str, sequences: Sequence[int]) -> None:
    """The rows by hour of some slices' new deliveries at a destination, from the hours of their parts."""
    theirs = select(deliveries.c.sequence, deliveries.c.id).where(
        deliveries.c.stream == stream.id,
        deliveries.c.destination == destination,
        deliveries.c.sequence.in_(sequences),
    )
    ids = {row.sequence: row.id for row in connection.execute(theirs)}
    counted = (
        select(part_hours.c.sequence, part_hours.c.hour, func.sum(part_hours.c.rows).label("due"))
        .where(part_hours.c.stream == stream.id, part_hours.c.sequence.in_(sequences))
        .group_by(part_hours.c.sequence, part_hours.c.hour)
    )
    hours = [
        {"delivery": ids[row.sequence], "hour": row.hour, "stream": stream.id, "rows": int(row.due), "refused": 0}
        for row in connection.execute(counted)
    ]
    if hours:
        connection.execute(insert(delivery_hours), hours)


def _without_delivery(stream: Stream, destination: str) -> tuple[ColumnElement[bool], ...]:
    theirs = exists().where(
        deliveries.c.stream == slices.c.stream,
        deliveries.c.destination == destination,
        deliveries.c.sequence == slices.c.sequence,
    )
    return slices.c.stream == stream.id, slices.c.state == SliceState.PUBLISHED, ~theirs


def _some_missing(connection: Connection, stream: Stream, destination: str) -> bool:
    """Whether there are fewer deliveries than published slices: quicker to count than to look for each."""
    all_slices = select(func.count()).where(slices.c.stream == stream.id, slices.c.state == SliceState.PUBLISHED)
    theirs = select(func.count()).where(deliveries.c.stream == stream.id, deliveries.c.destination == destination)
    return connection.execute(theirs).scalar_one() < connection.execute(all_slices).scalar_one()


def _row(connection: Connection, delivery: int, *, lock: bool) -> Row[Any]:
    chosen = select(deliveries).where(deliveries.c.id == delivery)
    row = connection.execute(chosen.with_for_update() if lock else chosen).first()
    if row is None:
        raise Outdated(f"the ledger knows no delivery {delivery}")
    return row


def _move(connection: Connection, delivery: int, state: DeliveryState, now: float, **changed: object) -> None:
    row = _row(connection, delivery, lock=True)
    if row.state in _ENDS and state != row.state:
        raise Outdated(
            f"the delivery of slice {row.sequence} to {row.destination} is {row.state} and cannot become {state}",
            safe="Nothing was written.",
        )
    if state is DeliveryState.CLOSED and row.closed_at is None:
        changed["closed_at"] = now
    this = update(deliveries).where(deliveries.c.id == delivery)
    connection.execute(this.values(state=state, changed_at=now, **changed))


def _refuse(connection: Connection, delivery: int, hour: int, rows: int) -> None:
    this = (delivery_hours.c.delivery == delivery, delivery_hours.c.hour == hour)
    known = connection.execute(select(delivery_hours).where(*this)).first()
    if known is None or not 0 <= rows <= known.rows:
        raise ValueError(f"{rows} rows refused of hour {hour}, which has {0 if known is None else known.rows}")
    connection.execute(update(delivery_hours).where(*this).values(refused=max(rows, known.refused)))


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        row.id,
        row.sequence,
        row.destination,
        DeliveryState(row.state),
        row.rows,
        row.arrived,
        row.refused,
        row.reason,
        row.released_at,
        row.reopened_at,
        row.changed_at if row.state == DeliveryState.UNKNOWN else None,
    )


def _send(row: Row[Any]) -> Send:
    return Send(
        row.id,
        row.delivery,
        row.part,
        row.attempt,
        SendForm(row.form),
        row.rows,
        row.at,
        SendState(row.state),
        row.detail,
        row.answered_at,
    )
