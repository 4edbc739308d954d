"""What people and confirmation ask. Sums are the database's: rows come here only for what is open or asked for."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, case, delete, exists, func, insert, or_, select, update

from tidepost.ledger.engine import Database
from tidepost.ledger.plans import OPEN_CUTS, by_lane, lock
from tidepost.ledger.schema import (
    SliceState,
    audit,
    cut_rejects,
    cuts,
    deliveries,
    delivery_hours,
    parts,
    requests,
    scanned,
    seen,
    sends,
    slices,
    streams,
)
from tidepost.ledger.summary import AuditEntry, DestinationSummary, OpenSlice, RejectedCut, SliceRow, StreamSummary
from tidepost.model import OPEN_DELIVERIES, CutState, DeliveryState, ScanKind, SendState, Stream, StreamName
from tidepost.ports import Batch
from tidepost.ranges import Range

_KEPT_IN_LOG: Final = 10_000
_LATELY: Final = 7 * 86_400.0
_ARRIVING: Final = (DeliveryState.SENT, DeliveryState.CLOSED)
_IN_FLIGHT: Final = (DeliveryState.SENDING, DeliveryState.UNKNOWN)
_WAITING: Final = (DeliveryState.TODO, DeliveryState.HELD)
_MAY_HAVE_LANDED: Final = (SendState.INTENT, SendState.ACCEPTED, SendState.UNKNOWN)
_NOT_CLOSED: Final = (*OPEN_DELIVERIES, DeliveryState.HELD)


class SqlReports:
    """`ports.Reports` on the ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def expected(self, stream: Stream, destination: str, hours: Range) -> dict[int, int]:
        # A subquery that is asked per hour: as a join, SQLite would begin with all deliveries that are closed.
        state = (
            select(deliveries.c.state)
            .where(deliveries.c.id == delivery_hours.c.delivery, deliveries.c.destination == destination)
            .scalar_subquery()
        )
        counted = (
            select(delivery_hours.c.hour, func.sum(delivery_hours.c.rows - delivery_hours.c.refused).label("due"))
            .where(
                delivery_hours.c.stream == stream.id,
                delivery_hours.c.hour >= hours.start,
                delivery_hours.c.hour < hours.end,
                state.in_(_ARRIVING),
            )
            .group_by(delivery_hours.c.hour)
            .order_by(delivery_hours.c.hour)
        )
        with self._database.read() as connection:
            return {row.hour: int(row.due) for row in connection.execute(counted)}

    def in_flight(self, stream: Stream, destination: str, hours: Range) -> frozenset[int]:
        """As `ports.Reports.in_flight`, and also the hours of a delivery that is `todo` or `held` after sends of
        which some may have landed: what arrived of it is not expected, and would stand in for what did not."""
        landed = exists().where(sends.c.delivery == deliveries.c.id, sends.c.state.in_(_MAY_HAVE_LANDED))
        found = (
            select(delivery_hours.c.hour)
            .distinct()
            .join_from(deliveries, delivery_hours, delivery_hours.c.delivery == deliveries.c.id)
            .where(
                deliveries.c.stream == stream.id,
                deliveries.c.destination == destination,
                deliveries.c.state.in_((*_IN_FLIGHT, *_WAITING)),
                or_(deliveries.c.state.in_(_IN_FLIGHT), landed),
                delivery_hours.c.hour >= hours.start,
                delivery_hours.c.hour < hours.end,
            )
        )
        with self._database.read() as connection:
            return frozenset(connection.execute(found).scalars())

    def batches(self, stream: Stream, destination: str) -> tuple[Batch, ...]:
        there = and_(deliveries.c.stream == parts.c.stream, deliveries.c.sequence == parts.c.sequence)
        left = func.sum(case((deliveries.c.state == DeliveryState.CLOSED, 0), else_=1))
        latest = func.max(parts.c.event_max).label("latest")
        counted = (
            select(parts.c.batch_id, func.sum(parts.c.rows).label("rows"), left.label("left"), latest)
            .join_from(parts, deliveries, there)
            .where(
                parts.c.stream == stream.id,
                deliveries.c.destination == destination,
                parts.c.batch_id.is_not(None),
                deliveries.c.reason.not_like("skipped: %"),
            )
            .group_by(parts.c.batch_id)
            .order_by(latest, parts.c.batch_id)
        )
        with self._database.read() as connection:
            rows = connection.execute(counted).all()
        return tuple(Batch(row.batch_id, int(row.rows), not row.left, row.latest) for row in rows)

    def summary(self, job: str) -> tuple[StreamSummary, ...]:
        """A job's streams, as of one instant."""
        known = select(streams).where(streams.c.job == job).order_by(streams.c.id)
        with self._database.read() as connection:
            now = self._database.now(connection)
            return tuple(_stream(connection, row, now) for row in connection.execute(known).all())

    def slices(self, stream: Stream, limit: int = 100) -> tuple[SliceRow, ...]:
        """The newest published slices, newest first."""
        newest = (
            select(slices.c.sequence, slices.c.rows, slices.c.size, slices.c.held, slices.c.published_at, cuts)
            .join_from(slices, cuts, slices.c.cut == cuts.c.id)
            .where(slices.c.stream == stream.id, slices.c.state == SliceState.PUBLISHED)
            .order_by(slices.c.sequence.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            rows = connection.execute(newest).all()
            states: dict[int, dict[str, DeliveryState]] = {row[0]: {} for row in rows}
            theirs = select(deliveries.c.sequence, deliveries.c.destination, deliveries.c.state).where(
                deliveries.c.stream == stream.id,
                deliveries.c.sequence.between(min(states, default=0), max(states, default=0)),
            )
            for sequence, destination, state in connection.execute(theirs):
                states[sequence][destination] = DeliveryState(state)
        return tuple(
            SliceRow(
                row[0],
                row.id,
                ScanKind(row.kind),
                Range(row.start, row.end),
                row.lane,
                row.rows,
                row.size,
                row.held,
                dict(sorted(states[row[0]].items())),
                row.published_at,
            )
            for row in rows
        )

    def rejects(self, stream: Stream, limit: int = 1_000) -> tuple[RejectedCut, ...]:
        """The newest cuts that are done and set rows aside, newest first."""
        # One more than asked for: at most one cut of a stream is being published, and is not counted yet.
        newest = (
            select(cut_rejects.c.cut)
            .distinct()
            .where(cut_rejects.c.stream == stream.id)
            .order_by(cut_rejects.c.cut.desc())
            .limit(limit + 1)
        )
        with self._database.read() as connection:
            found = connection.execute(newest).scalars().all()
            reasons: dict[int, dict[str, int]] = {cut: {} for cut in found}
            counted = select(cut_rejects.c.cut, cut_rejects.c.reason, cut_rejects.c.rows).where(
                cut_rejects.c.stream == stream.id,
                cut_rejects.c.cut.between(min(found, default=0), max(found, default=0)),
            )
            for cut, reason, count in connection.execute(counted.order_by(cut_rejects.c.reason)):
                reasons[cut][reason] = count
            done = select(cuts).where(cuts.c.id.in_(found), cuts.c.state == CutState.DONE)
            rows = connection.execute(done.order_by(cuts.c.id.desc()).limit(limit)).all()
        return tuple(
            RejectedCut(
                row.id,
                ScanKind(row.kind),
                Range(row.start, row.end),
                row.lane,
                row.sequence,
                reasons[row.id],
                row.done_at,
            )
            for row in rows
        )

    def seen(self, stream: Stream, at: float, highest: int) -> None:
        newest = select(seen.c.highest).where(seen.c.stream == stream.id).order_by(seen.c.id.desc())
        with self._database.write() as connection:
            lock(connection, stream)
            before = connection.execute(newest.limit(1)).scalar()
            # What was seen stays seen: rows that a source deletes do not make the log smaller.
            if before is not None and highest <= before:
                return
            connection.execute(insert(seen).values(stream=stream.id, at=at, highest=highest))
            surplus = select(seen.c.id).where(seen.c.stream == stream.id).order_by(seen.c.id.desc())
            oldest = connection.execute(surplus.offset(_KEPT_IN_LOG).limit(1)).scalar()
            if oldest is not None:
                connection.execute(delete(seen).where(seen.c.stream == stream.id, seen.c.id <= oldest))

    def highest_seen(self, stream: Stream, before: float) -> int | None:
        # Each entry is greater than all before it, so the last one written is the greatest, whatever its time.
        known = select(seen.c.highest).where(seen.c.stream == stream.id, seen.c.at <= before)
        with self._database.read() as connection:
            return connection.execute(known.order_by(seen.c.id.desc()).limit(1)).scalar()

    def first_seen(self, stream: Stream, position: int) -> float | None:
        known = select(seen.c.at).where(seen.c.stream == stream.id, seen.c.highest >= position)
        with self._database.read() as connection:
            return connection.execute(known.order_by(seen.c.id).limit(1)).scalar()

    def ran(self, stream: Stream) -> None:
        """Note that a run of a stream ended now, whether or not it found anything."""
        with self._database.write() as connection:
            noted = update(streams).where(streams.c.id == stream.id)
            connection.execute(noted.values(ran_at=self._database.now(connection)))

    def record(self, job: str, *, who: str, what: str, old: str, new: str, why: str) -> None:
        """Add to the audit what somebody decided."""
        entry = {"job": job, "who": who, "what": what, "old": old, "new": new, "why": why}
        with self._database.write() as connection:
            connection.execute(insert(audit).values(at=self._database.now(connection), **entry))

    def audit(self, job: str) -> tuple[AuditEntry, ...]:
        """A job's audit, oldest first."""
        entries = select(audit).where(audit.c.job == job).order_by(audit.c.id)
        with self._database.read() as connection:
            return tuple(
                AuditEntry(row.at, row.who, row.what, row.old, row.new, row.why)
                for row in connection.execute(entries)
            )


def _stream(connection: Connection, stream: Row[Any], now: float) -> StreamSummary:
    one = connection.execute
    of_stream = cuts.c.stream == stream.id
    done = and_(of_stream, cuts.c.state == CutState.DONE)
    published = one(
        select(
            func.count(),
            func.coalesce(func.sum(slices.c.rows), 0),
            func.coalesce(func.sum(slices.c.size), 0),
            func.max(slices.c.published_at),
        ).where(slices.c.stream == stream.id, slices.c.state == SliceState.PUBLISHED)
    ).one()
    rejected = (
        select(cut_rejects.c.reason, func.sum(cut_rejects.c.rows))
        .join_from(cut_rejects, cuts, cut_rejects.c.cut == cuts.c.id)
        .where(cut_rejects.c.stream == stream.id, cuts.c.state == CutState.DONE)
        .group_by(cut_rejects.c.reason)
        .order_by(cut_rejects.c.reason)
    )
    newest = select(cuts.c.null_cursors).where(of_stream, cuts.c.done_at.is_not(None))
    found_late = and_(done, cuts.c.kind == ScanKind.LOOKBACK)
    lately = and_(found_late, cuts.c.done_at > now - _LATELY)
    publishing = select(slices.c.sequence).where(
        slices.c.stream == stream.id, slices.c.state == SliceState.PUBLISHING
    )
    ran = (stream.ran_at, one(select(func.max(requests.c.at)).where(requests.c.stream == stream.id)).scalar())
    return StreamSummary(
        job=stream.job,
        name=StreamName(stream.name),
        scanned=by_lane(
            connection, select(scanned.c.lane, scanned.c.start, scanned.c.end).where(scanned.c.stream == stream.id)
        ),
        open_cuts=one(select(func.count()).where(of_stream, cuts.c.state.in_(OPEN_CUTS))).scalar_one(),
        slices=published[0],
        rows=int(published[1]),
        size=int(published[2]),
        duplicates=int(one(select(func.coalesce(func.sum(cuts.c.duplicates), 0)).where(done)).scalar_one()),
        rejected={reason: int(count) for reason, count in one(rejected)},
        late_rows=int(one(select(func.coalesce(func.sum(cuts.c.published), 0)).where(found_late)).scalar_one()),
        late=one(select(func.coalesce(func.max(cuts.c.late), 0.0)).where(lately)).scalar_one(),
        null_cursors=one(newest.order_by(cuts.c.done_at.desc()).limit(1)).scalar() or 0,
        publishing=one(publishing).scalar(),
        last_published_at=published[3],
        last_run_at=max((at for at in ran if at is not None), default=None),
        destinations=_destinations(connection, stream.id),
        superseded=int(one(select(func.coalesce(func.sum(cuts.c.superseded), 0)).where(done)).scalar_one()),
        waiting=_held_labels(connection, done),
    )


def _held_labels(connection: Connection, done: ColumnElement[bool]) -> int:
    """The labels that cuts held back, without those that cuts of the lane `held` took up again."""
    taken = case((cuts.c.lane == "held", cuts.c.scanned), else_=0)
    left = select(func.coalesce(func.sum(cuts.c.waiting - taken), 0)).where(done)
    return int(connection.execute(left).scalar_one())


def _destinations(connection: Connection, stream: int) -> tuple[DestinationSummary, ...]:
    by_state: dict[str, dict[DeliveryState, Row[Any]]] = {}
    counted = (
        select(
            deliveries.c.destination,
            deliveries.c.state,
            func.count().label("number"),
            func.sum(deliveries.c.rows).label("due"),
            func.sum(deliveries.c.arrived).label("arrived"),
            func.sum(deliveries.c.refused).label("refused"),
            func.max(deliveries.c.closed_at).label("closed_at"),
        )
        .where(deliveries.c.stream == stream)
        .group_by(deliveries.c.destination, deliveries.c.state)
    )
    for row in connection.execute(counted):
        by_state.setdefault(row.destination, {})[DeliveryState(row.state)] = row
    return tuple(
        _destination(destination, states, _not_closed(connection, stream, destination))
        for destination, states in sorted(by_state.items())
    )


def _destination(
    destination: str, states: dict[DeliveryState, Row[Any]], waiting: list[OpenSlice]
) -> DestinationSummary:
    closed = states.get(DeliveryState.CLOSED)
    oldest: dict[str, int] = {}
    for one in waiting:
        if one.kind is ScanKind.INCREMENTAL:
            oldest[one.lane] = min(one.range.start, oldest.get(one.lane, one.range.start))
    return DestinationSummary(
        destination=destination,
        deliveries={state: row.number for state, row in states.items()},
        rows={state: int(row.due) for state, row in states.items()},
        arrived=sum(int(row.arrived) for row in states.values()),
        refused=sum(int(row.refused) for row in states.values()),
        oldest=oldest,
        others=tuple(one for one in waiting if one.kind is not ScanKind.INCREMENTAL),
        last_closed_at=None if closed is None else closed.closed_at,
    )


def _not_closed(connection: Connection, stream: int, destination: str) -> list[OpenSlice]:
    chosen = (
        select(
            deliveries.c.sequence,
            deliveries.c.state,
            deliveries.c.reopened_at,
            cuts.c.kind,
            cuts.c.start,
            cuts.c.end,
            cuts.c.lane,
        )
        .join_from(
            deliveries,
            slices,
            and_(deliveries.c.stream == slices.c.stream, deliveries.c.sequence == slices.c.sequence),
        )
        .join(cuts, slices.c.cut == cuts.c.id)
        .where(
            deliveries.c.stream == stream,
            deliveries.c.destination == destination,
            deliveries.c.state.in_(_NOT_CLOSED),
        )
    )
    found = [
        OpenSlice(
            row.sequence,
            # The mark has passed what was reopened, and never moves back.
            ScanKind(row.kind) if row.reopened_at is None else ScanKind.REPAIR,
            Range(row.start, row.end),
            row.lane,
            DeliveryState(row.state),
        )
        for row in connection.execute(chosen)
    ]
    return sorted(found, key=lambda one: one.sequence)
