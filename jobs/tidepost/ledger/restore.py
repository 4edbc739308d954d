"""What a SQL ledger needs to take a stream over from its staging, and for the acts done by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, and_, column, delete, func, insert, inspect, select, table, text, update

from tidepost.errors import Outdated, Retryable
from tidepost.ledger.contents import NOT_SCANNED, write_joined, write_parts, write_tally
from tidepost.ledger.engine import Database
from tidepost.ledger.owner import this_person
from tidepost.ledger.plans import OPEN_CUTS, by_lane, lock, write_bucket
from tidepost.ledger.schema import (
    VERSION_TABLE,
    SliceState,
    audit,
    cuts,
    deliveries,
    delivery_hours,
    part_hours,
    pauses,
    requests,
    scanned,
    sends,
    slices,
    streams,
)
from tidepost.ledger.sql import SqlLedger, _backend
from tidepost.ledger.summary import AuditEntry
from tidepost.model import (
    Bucket,
    CutState,
    DeliveryState,
    Pause,
    ScanKind,
    Send,
    SendState,
    Slice,
    Stream,
    StreamName,
)
from tidepost.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Restored:
    """A delivery as a ledger is to have it.

    hours:   rows that should be there, by hour of event time
    refused: of these, rows that the destination refused
    sends:   in their order; numbers of the ledger in them mean nothing
    released: a person let it go, and nothing was sent of it since
    """

    sequence: int
    destination: str
    state: DeliveryState
    rows: int
    arrived: int
    hours: Mapping[int, int]
    refused: Mapping[int, int]
    reason: str
    sends: tuple[Send, ...]
    released: bool = False


@dataclass(frozen=True, slots=True)
class Takeover:
    """A stream as a ledger is to have it.

    request: the key under which the ledger remembers that it took the stream over
    newest:  the newest sequence number that was given to a slice
    pinned:  the staged column types, empty where no slice has rows
    slices:  all of them published
    passed:  what of `scanned` a person passed over
    paused:  destinations of the job that somebody paused, by name
    """

    job: str
    name: StreamName
    request: str
    newest: int
    pinned: Mapping[str, str]
    slices: tuple[Slice, ...]
    scanned: Mapping[str, Ranges]
    passed: Mapping[str, Ranges]
    deliveries: tuple[Restored, ...]
    history: tuple[AuditEntry, ...]
    paused: Mapping[str, Pause]


class SqlRestore:
    """Beside `ports.Ledger`: what is done to a ledger by hand only. Each write is one transaction."""

    def __init__(self, ledger: SqlLedger) -> None:
        self._database = ledger._database

    def taken(self) -> tuple[frozenset[int], int]:
        """The numbers of all cuts that the ledger knows, and the greatest of them."""
        with self._database.read() as connection:
            known = frozenset(connection.execute(select(cuts.c.id)).scalars())
        return known, max(known, default=0)

    def take_over(self, what: Takeover) -> Stream:
        """Write a stream down as it is to be; repeating it is harmless. Raises Outdated where the ledger knows
        anything of the stream already, Retryable where a cut's number was taken meanwhile."""
        this = select(streams).where(streams.c.job == what.job, streams.c.name == what.name)
        with self._database.write() as connection:
            fresh = {"job": what.job, "name": what.name, "identity": {}, "pinned": {}, "columns": {}}
            numbers = {"published": 0, "last_sequence": 0, "planned": 0}
            connection.execute(self._database.absent(streams).values({**fresh, **numbers}))
            row = connection.execute(this.with_for_update()).one()
            asked = select(requests.c.id).where(requests.c.stream == row.id, requests.c.key == what.request)
            if connection.execute(asked).first() is None:
                if row.planned or row.last_sequence:
                    raise Outdated(f"the ledger knows {what.job}/{what.name} already", safe="Nothing was written.")
                stream = Stream(row.id, row.job, StreamName(row.name))
                _write(connection, stream, what, self._database.now(connection))
            row = connection.execute(this).one()
            return Stream(
                row.id, row.job, StreamName(row.name), row.published, row.planned, row.last_sequence, row.pinned
            )

    def rescan(self, stream: Stream, version: int, after: Ranges, entry: AuditEntry) -> None:
        """Set what counts as scanned in the lane without a name, and tell the audit. Raises Outdated where anything
        was planned since `version` was read, or is still open."""
        with self._database.write() as connection:
            at = lock(connection, stream)
            this = and_(scanned.c.stream == stream.id, scanned.c.lane == "")
            still_open = select(cuts.c.id).where(cuts.c.stream == stream.id, cuts.c.state.in_(OPEN_CUTS))
            if at.planned != version or connection.execute(still_open.limit(1)).first() is not None:
                raise Outdated(
                    f"{stream.prefix} was planned meanwhile", safe="Nothing was changed.", hint="Say it again."
                )
            before = by_lane(connection, select(scanned.c.lane, scanned.c.start, scanned.c.end).where(this))
            connection.execute(delete(scanned).where(this))
            _scan(connection, stream, {"": after})
            _pass_over(connection, stream, {"": after.minus(before.get("", Ranges()))})
            connection.execute(update(streams).where(streams.c.id == stream.id).values(planned=version + 1))
            _record(connection, stream.job, entry)

    def skip(self, stream: Stream, sequence: int, destination: str, *, reason: str, entry: AuditEntry) -> None:
        """Close a held delivery without its rows, and tell the audit. What arrived of it stays what arrived.
        Raises Outdated where it is not held any more."""
        with self._database.write() as connection:
            held = select(deliveries).where(
                deliveries.c.stream == stream.id,
                deliveries.c.sequence == sequence,
                deliveries.c.destination == destination,
                deliveries.c.state == DeliveryState.HELD,
            )
            row = connection.execute(held.with_for_update()).first()
            if row is None:
                raise Outdated(
                    f"slice {sequence} of {stream.prefix} is not held at {destination} any more",
                    safe="Nothing was changed.",
                )
            so_far = select(sends.c.part, sends.c.state).where(sends.c.delivery == row.id)
            landed = may_have_landed((one.part, SendState(one.state)) for one in connection.execute(so_far))
            _expect_only(connection, row.id, landed)
            now = self._database.now(connection)
            closed = {"state": DeliveryState.CLOSED, "reason": reason, "changed_at": now, "closed_at": now}
            connection.execute(update(deliveries).where(deliveries.c.id == row.id).values(closed))
            _record(connection, stream.job, entry)

    def pause(self, job: str, destination: str, pause: Pause | None, entry: AuditEntry) -> None:
        """Pause a destination of a job, or with None resume it, and tell the audit. Raises Outdated where it is so
        already."""
        this = (pauses.c.job == job, pauses.c.destination == destination)
        with self._database.write() as connection:
            known = connection.execute(select(pauses).where(*this)).first()
            if (known is None) == (pause is None):
                state = "not paused" if pause is None else "paused already"
                raise Outdated(f"{destination} is {state} for {job}", safe="Nothing was changed.")
            _pause(connection, job, {destination: pause})
            _record(connection, job, entry)

    def history(self, job: str | None, limit: int) -> list[tuple[str, AuditEntry]]:
        """The newest entries of the audit, newest first, each with its job; of all jobs for None."""
        entries = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if job is not None:
            entries = entries.where(audit.c.job == job)
        with self._database.read() as connection:
            return [
                (row.job, AuditEntry(row.at, row.who, row.what, row.old, row.new, row.why))
                for row in connection.execute(entries)
            ]


def may_have_landed(told: Iterable[tuple[int, SendState]]) -> set[int]:
    """The parts of which, by their sends (part, state), anything may be at the destination."""
    return {part for part, state in told if state in (SendState.INTENT, SendState.ACCEPTED, SendState.UNKNOWN)}


def _pause(connection: Connection, job: str, paused: Mapping[str, Pause | None]) -> None:
    for destination, pause in paused.items():
        connection.execute(delete(pauses).where(pauses.c.job == job, pauses.c.destination == destination))
        if pause is not None:
            connection.execute(insert(pauses).values(job=job, destination=destination, **asdict(pause)))


def _write(connection: Connection, stream: Stream, what: Takeover, now: float) -> None:
    ids = [one.cut for one in what.slices]
    _number_cuts(connection, ids)
    request = {"stream": stream.id, "key": what.request, "kind": ScanKind.REPAIR, "at": now, "by": this_person()}
    written = connection.execute(insert(requests).values(request).returning(requests.c.id)).scalar_one()
    for ordinal, one in enumerate(what.slices):
        _write_slice(connection, stream, one, {"request": written, "ordinal": ordinal}, now)
    _scan(connection, stream, what.scanned)
    _pass_over(connection, stream, what.passed)
    for delivery in what.deliveries:
        _write_delivery(connection, stream, delivery, now)
    _pause(connection, what.job, what.paused)
    for entry in what.history:
        _record(connection, stream.job, entry)
    newest = max((one.sequence for one in what.slices), default=0)
    numbers = {"published": newest, "last_sequence": what.newest, "pinned": dict(what.pinned)}
    connection.execute(update(streams).where(streams.c.id == stream.id).values(numbers))


def _number_cuts(connection: Connection, ids: Sequence[int]) -> None:
    """Make sure that cuts can be given these numbers, and that none is given twice later."""
    if connection.dialect.name == "postgresql":
        # Its counter does not see numbers that were given by hand; nobody else may count meanwhile.
        connection.execute(text("LOCK TABLE cuts IN SHARE ROW EXCLUSIVE MODE"))
        counter = func.pg_get_serial_sequence("cuts", "id")
        beyond = func.greatest(max(ids, default=0), func.nextval(counter))
        connection.execute(select(func.setval(counter, beyond)))
    known = connection.execute(select(cuts.c.id)).scalars().all()
    taken = set(known).intersection(ids)
    if taken:
        raise Retryable(
            f"the ledger gave number {min(taken)} to another cut meanwhile",
            safe="Nothing was written.",
            hint="Say it again.",
        )


def _write_slice(connection: Connection, stream: Stream, one: Slice, at: Mapping[str, int], now: float) -> None:
    cut = {
        "id": one.cut,
        "stream": stream.id,
        "lane": one.lane,
        "kind": one.kind,
        "start": one.range.start,
        "end": one.range.end,
        "state": CutState.DONE,
        "sequence": one.sequence,
        "done_at": now,
    }
    connection.execute(insert(cuts).values({**cut, **at, **NOT_SCANNED}))
    write_tally(connection, stream, one.cut, one.tally)
    published = {
        "stream": stream.id,
        "sequence": one.sequence,
        "cut": one.cut,
        "state": SliceState.PUBLISHED,
        "held": one.held,
        "rows": one.rows,
        "size": one.size,
        "event_min": min((part.event_min for part in one.parts), default=None),
        "event_max": max((part.event_max for part in one.parts), default=None),
        "begun_at": now,
        "published_at": now,
    }
    connection.execute(insert(slices).values(published))
    write_parts(connection, stream, one.sequence, one.parts, now=now)
    write_joined(connection, stream, one)


def _write_delivery(connection: Connection, stream: Stream, one: Restored, now: float) -> None:
    values = {
        "stream": stream.id,
        "sequence": one.sequence,
        "destination": one.destination,
        "state": one.state,
        "rows": one.rows,
        "arrived": one.arrived,
        "refused": sum(one.refused.values()),
        "reason": one.reason,
        "created_at": now,
        "changed_at": now,
        "closed_at": now if one.state is DeliveryState.CLOSED else None,
        "released_at": now if one.released else None,
    }
    number = connection.execute(insert(deliveries).values(values).returning(deliveries.c.id)).scalar_one()
    hours = [
        {"delivery": number, "hour": hour, "stream": stream.id, "rows": rows, "refused": one.refused.get(hour, 0)}
        for hour, rows in one.hours.items()
    ]
    if hours:
        connection.execute(insert(delivery_hours), hours)
    told = [
        {
            "delivery": number,
            "part": send.part,
            "attempt": send.attempt,
            "form": send.form,
            "rows": send.rows,
            "state": send.state,
            "detail": send.detail,
            "at": send.at,
            # Receipts do not say when: what was accepted may be loading from now on.
            "answered_at": None if send.state is SendState.INTENT else now,
        }
        for send in one.sends
    ]
    if told:
        connection.execute(insert(sends), told)


def _expect_only(connection: Connection, delivery: int, landed: AbstractSet[int]) -> None:
    """Expect no more of a delivery than the rows of those parts."""
    of_part = (part_hours.c.stream == deliveries.c.stream, part_hours.c.sequence == deliveries.c.sequence)
    counted = (
        select(part_hours.c.hour, func.sum(part_hours.c.rows))
        .join_from(deliveries, part_hours, of_part[0] & of_part[1])
        .where(deliveries.c.id == delivery, part_hours.c.number.in_(landed))
        .group_by(part_hours.c.hour)
    )
    rows = {hour: int(count) for hour, count in connection.execute(counted)}
    known = connection.execute(select(delivery_hours).where(delivery_hours.c.delivery == delivery)).all()
    for one in known:
        this = (delivery_hours.c.delivery == delivery, delivery_hours.c.hour == one.hour)
        left = max(rows.get(one.hour, 0), one.refused)
        connection.execute(update(delivery_hours).where(*this).values(rows=left))


def _scan(connection: Connection, stream: Stream, ranges: Mapping[str, Ranges]) -> None:
    rows = [
        {"stream": stream.id, "lane": lane, "start": one.start, "end": one.end}
        for lane, items in ranges.items()
        for one in items
    ]
    if rows:
        connection.execute(insert(scanned), rows)


def _pass_over(connection: Connection, stream: Stream, ranges: Mapping[str, Ranges]) -> None:
    """Remember that lookback scans are not to look at what was passed over by hand."""
    for lane, items in ranges.items():
        for one in items:
            write_bucket(connection, stream, lane, Bucket(one, 0, None))


def _record(connection: Connection, job: str, entry: AuditEntry) -> None:
    connection.execute(insert(audit).values({"job": job, **asdict(entry)}))


def revision(url: str) -> str | None:
    """The version of a ledger's tables; None where there are none yet. Raises as `open_ledger` does."""
    backend = _backend(url)
    database = Database(backend, None)
    try:
        backend.prepare(database.engine)
        with database.read() as connection:
            if VERSION_TABLE not in inspect(connection).get_table_names():
                return None
            version = table(VERSION_TABLE, column("version_num"))
            found = connection.execute(select(version.c.version_num)).scalar()
            return None if found is None else str(found)
    finally:
        database.close()
