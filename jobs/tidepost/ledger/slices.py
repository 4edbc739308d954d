"""Publishing: the one compare-and-set on a stream's sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from tidepost.errors import HeldElsewhere, Misconfigured, Outdated
from tidepost.ledger.contents import published_parts, read_parts, read_slice, write_joined, write_parts, write_tally
from tidepost.ledger.deliveries import create_missing, deliveries_of
from tidepost.ledger.engine import Database
from tidepost.ledger.leases import verify
from tidepost.ledger.plans import by_lane, lock, write_bucket
from tidepost.ledger.schema import SliceState, cuts, joined, scanned, slices, streams
from tidepost.ledger.schema import parts as files
from tidepost.model import Bucket, Cut, CutState, Delivery, Lease, Part, Slice, Stream, Tally
from tidepost.ports import Published
from tidepost.ranges import Range


class SqlSlices:
    """`ports.Slices` on the ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def published(self, stream: Stream, window: Range | None) -> Published:
        with self._database.read() as connection:
            version = connection.execute(select(streams.c.published).where(streams.c.id == stream.id)).scalar_one()
            return Published(version, read_parts(connection, published_parts(stream, window)))

    def cuts(self, stream: Stream, days: Set[int] | None) -> tuple[int, Mapping[int, int]]:
        of_slice = (joined.c.stream == slices.c.stream) & (joined.c.sequence == slices.c.sequence)
        theirs = (
            select(slices.c.cut, slices.c.sequence, joined.c.day)
            .join_from(joined, slices, of_slice)
            .where(joined.c.stream == stream.id, slices.c.state == SliceState.PUBLISHED)
        )
        if days is not None:
            theirs = theirs.where(joined.c.day.between(min(days, default=0), max(days, default=-1)))
        with self._database.read() as connection:
            version = connection.execute(select(streams.c.published).where(streams.c.id == stream.id)).scalar_one()
            return version, {
                row.cut: row.sequence for row in connection.execute(theirs) if days is None or row.day in days
            }

    def begin(self, lease: Lease, stream: Stream, draft: Slice, version: int, columns: Mapping[str, str]) -> Slice:
        _accounted_for(draft)
        with self._database.write() as connection:
            at = lock(connection, stream)
            verify(connection, lease, "cut", draft.cut)
            _nothing_publishing(connection, stream)
            if at.published != version:
                raise Outdated(
                    f"{stream.prefix} stands at slice {at.published}, and its index was read at {version}",
                    safe=f"Nothing of cut {draft.cut} was published.",
                )
            row = _still_planned(connection, stream, draft.cut)
            if (draft.kind, draft.range, draft.lane) != (row.kind, Range(row.start, row.end), row.lane):
                raise ValueError(f"a slice of another range than its cut's: {draft}")
            _pin(connection, stream, at.pinned, columns)
            sequence = at.last_sequence + 1
            begun = replace(
                draft,
                sequence=sequence,
                parts=tuple(
                    replace(part, path=part.path.replace("{sequence}", f"{sequence:08d}")) for part in draft.parts
                ),
            )
            _write(connection, stream, begun, self._database.now(connection))
            return begun

    def finish(self, stream: Stream, done: Slice, destinations: Sequence[str]) -> tuple[Delivery, ...]:
        with self._database.write() as connection:
            lock(connection, stream)
            now = self._database.now(connection)
            state = _slice(connection, stream, done.sequence).state
            if state == SliceState.WITHDRAWN:
                raise Outdated(
                    f"slice {done.sequence} of {stream.prefix} was withdrawn meanwhile",
                    safe=f"Its cut {done.cut} is planned again.",
                )
            if state == SliceState.PUBLISHING:
                _publish(connection, stream, done.sequence, now)
            this = (slices.c.sequence == done.sequence,)
            for destination in destinations:
                create_missing(connection, stream, destination, now, *this)
            return deliveries_of(connection, stream, done.sequence, destinations)

    def empty(self, lease: Lease, stream: Stream, cut: Cut, tally: Tally) -> None:
        if tally.published:
            raise ValueError(f"a cut with rows to publish is not empty: {tally}")
        with self._database.write() as connection:
            lock(connection, stream)
            verify(connection, lease, "cut", cut.id)
            row = _cut(connection, stream, cut.id)
            if row.state == CutState.DONE and row.sequence is None:
                return  # a repeat
            _still_planned(connection, stream, cut.id)
            write_tally(connection, stream, cut.id, tally)
            _done(connection, stream, cut.id, self._database.now(connection))

    def publishing(self, stream: Stream) -> Slice | None:
        with self._database.read() as connection:
            row = _publishing(connection, stream)
            return None if row is None else read_slice(connection, stream.id, row.sequence)

    def restaged(self, stream: Stream, sequence: int, parts: Sequence[Part]) -> None:
        with self._database.write() as connection:
            lock(connection, stream)
            for part in parts:
                this = (files.c.stream == stream.id, files.c.sequence == sequence, files.c.number == part.number)
                again = {"size": part.size, "sha256": part.sha256, "purged_at": None}
                connection.execute(update(files).where(*this, files.c.rows == part.rows).values(again))

    def withdraw(self, stream: Stream, sequence: int) -> None:
        with self._database.write() as connection:
            at = lock(connection, stream)
            row = _slice(connection, stream, sequence)
            if row.state == SliceState.PUBLISHED:
                raise Outdated(f"slice {sequence} of {stream.prefix} was published meanwhile")
            if row.state == SliceState.WITHDRAWN:
                return  # a repeat: its cut may be at work again
            this = (slices.c.stream == stream.id, slices.c.sequence == sequence)
            connection.execute(update(slices).where(*this).values(state=SliceState.WITHDRAWN))
            write_tally(connection, stream, row.cut, Tally())
            again = update(cuts).where(cuts.c.id == row.cut)
            connection.execute(again.values(state=CutState.PLANNED, sequence=None))
            if at.last_sequence == sequence and at.published == 0:
                # No slice has these types: they bind nothing.
                connection.execute(update(streams).where(streams.c.id == stream.id).values(pinned={}))


def _publishing(connection: Connection, stream: Stream) -> Row[Any] | None:
    chosen = select(slices).where(slices.c.stream == stream.id, slices.c.state == SliceState.PUBLISHING)
    return connection.execute(chosen).first()


def _nothing_publishing(connection: Connection, stream: Stream) -> None:
    row = _publishing(connection, stream)
    if row is not None:
        raise HeldElsewhere(
            f"slice {row.sequence} of {stream.prefix}, of cut {row.cut}, is being published",
            hint="It ends by itself; if its process died, the next run finishes it.",
        )


def _slice(connection: Connection, stream: Stream, sequence: int) -> Row[Any]:
    this = (slices.c.stream == stream.id, slices.c.sequence == sequence)
    row = connection.execute(select(slices).where(*this)).first()
    if row is None:
        raise Outdated(f"the ledger knows no slice {sequence} of {stream.prefix}")
    return row


def _cut(connection: Connection, stream: Stream, cut: int) -> Row[Any]:
    row = connection.execute(select(cuts).where(cuts.c.id == cut, cuts.c.stream == stream.id)).first()
    if row is None:
        raise Outdated(f"the ledger knows no cut {cut} of {stream.prefix}")
    return row


def _still_planned(connection: Connection, stream: Stream, cut: int) -> Row[Any]:
    row = _cut(connection, stream, cut)
    if row.state != CutState.PLANNED:
        raise Outdated(f"cut {cut} of {stream.prefix} is {row.state} meanwhile", safe="Nothing was written.")
    return row


def _accounted_for(draft: Slice) -> None:
    """Raises ValueError where a slice's rows, its tally and its hours do not add up: expectations rest on them."""
    if draft.rows != draft.tally.published or draft.rows != sum(draft.hours.values()):
        raise ValueError(f"a slice of {draft.rows} rows, {sum(draft.hours.values())} by hour, tallied {draft.tally}")


def _pin(connection: Connection, stream: Stream, pinned: Mapping[str, str], columns: Mapping[str, str]) -> None:
    if not pinned:
        connection.execute(update(streams).where(streams.c.id == stream.id).values(pinned=dict(columns)))
        return
    for column in (*pinned, *columns):
        old, new = pinned.get(column, "absent"), columns.get(column, "absent")
        if old != new:
            raise Misconfigured(
                f"column {column!r} of {stream.prefix} was {old} in the first slice and is {new} now",
                safe="Nothing was published.",
                hint="What a stream sends is fixed by its first slice: put the mapping back, or rename the job.",
            )


def _write(connection: Connection, stream: Stream, begun: Slice, now: float) -> None:
    connection.execute(
        insert(slices).values(
            stream=stream.id,
            sequence=begun.sequence,
            cut=begun.cut,
            state=SliceState.PUBLISHING,
            held=begun.held,
            rows=begun.rows,
            size=begun.size,
            event_min=min((part.event_min for part in begun.parts), default=None),
            event_max=max((part.event_max for part in begun.parts), default=None),
            begun_at=now,
        )
    )
    write_parts(connection, stream, begun.sequence, begun.parts)
    write_joined(connection, stream, begun)
    write_tally(connection, stream, begun.cut, begun.tally)
    of_cut = update(cuts).where(cuts.c.id == begun.cut)
    connection.execute(of_cut.values(state=CutState.PUBLISHING, sequence=begun.sequence))
    connection.execute(update(streams).where(streams.c.id == stream.id).values(last_sequence=begun.sequence))


def _publish(connection: Connection, stream: Stream, sequence: int, now: float) -> None:
    this = (slices.c.stream == stream.id, slices.c.sequence == sequence)
    connection.execute(update(slices).where(*this).values(state=SliceState.PUBLISHED, published_at=now))
    connection.execute(update(streams).where(streams.c.id == stream.id).values(published=sequence))
    _done(connection, stream, connection.execute(select(slices.c.cut).where(*this)).scalar_one(), now)


def _done(connection: Connection, stream: Stream, cut: int, now: float) -> None:
    """Close a cut: remember what it saw, and add its range to what is scanned, which stays disjoint and coalesced."""
    connection.execute(update(cuts).where(cuts.c.id == cut).values(state=CutState.DONE, done_at=now))
    row = _cut(connection, stream, cut)
    if row.ids:
        write_bucket(connection, stream, row.lane, Bucket(Range(row.start, row.end), row.scanned, row.ids))
    of_lane = (scanned.c.stream == stream.id, scanned.c.lane == row.lane)
    known = by_lane(connection, select(scanned.c.lane, scanned.c.start, scanned.c.end).where(*of_lane))
    before = set(known.get(row.lane, ()))
    after = set(known[row.lane].union([Range(row.start, row.end)]) if before else [Range(row.start, row.end)])
    for one in before - after:
        connection.execute(delete(scanned).where(*of_lane, scanned.c.start == one.start))
    for one in after - before:
        new = {"stream": stream.id, "lane": row.lane, "start": one.start, "end": one.end}
        connection.execute(insert(scanned).values(new))
