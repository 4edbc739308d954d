"""Streams, requests and cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from tidepost.errors import Misconfigured, Outdated
from tidepost.ledger.contents import NOT_SCANNED, read_tally
from tidepost.ledger.engine import Database
from tidepost.ledger.owner import this_person
from tidepost.ledger.schema import buckets, cut_rejects, cuts, requests, scanned, streams
from tidepost.model import Bucket, Coverage, Cut, CutState, Request, ScanKind, Stream, StreamName, Tally
from tidepost.ranges import Range, Ranges

OPEN_CUTS: Final = (CutState.PLANNED, CutState.PUBLISHING)


class SqlPlans:
    """`ports.Plans` on the ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stream(self, job: str, name: StreamName, identity: Mapping[str, str]) -> Stream:
        known = select(streams).where(streams.c.job == job, streams.c.name == name)
        with self._database.read() as connection:
            row = connection.execute(known).first()
        # Asked at every run: one that finds nothing to write does not wait for those that write.
        if row is not None and _same(row, identity) == row.identity:
            return _stream(row)
        with self._database.write() as connection:
            fresh = {"job": job, "name": name, "identity": {}, "pinned": {}, "columns": {}}
            numbers = {"published": 0, "last_sequence": 0, "planned": 0}
            connection.execute(self._database.absent(streams).values({**fresh, **numbers}))
            row = connection.execute(known.with_for_update()).one()
            changed = update(streams).where(streams.c.id == row.id)
            connection.execute(changed.values(identity=_same(row, identity)))
            return _stream(row)

    def find(self, job: str, name: StreamName) -> Stream | None:
        known = select(streams).where(streams.c.job == job, streams.c.name == name)
        with self._database.read() as connection:
            row = connection.execute(known).first()
        return None if row is None else _stream(row)

    def know(self, stream: Stream, columns: Mapping[str, str]) -> None:
        with self._database.write() as connection:
            this = update(streams).where(streams.c.id == stream.id)
            connection.execute(this.values(columns=dict(columns)))

    def coverage(self, stream: Stream) -> Coverage:
        with self._database.read() as connection:
            version = connection.execute(select(streams.c.planned).where(streams.c.id == stream.id)).scalar_one()
            done = select(scanned.c.lane, scanned.c.start, scanned.c.end).where(scanned.c.stream == stream.id)
            promised = select(cuts.c.lane, cuts.c.start, cuts.c.end).where(
                cuts.c.stream == stream.id, cuts.c.state.in_(OPEN_CUTS)
            )
            return Coverage(version, by_lane(connection, done), by_lane(connection, promised))

    def asked(self, stream: Stream, key: str) -> tuple[Cut, ...] | None:
        with self._database.read() as connection:
            return _asked(connection, stream, key)

    def write(self, stream: Stream, request: Request, cuts: Sequence[Cut], version: int) -> tuple[Cut, ...]:
        with self._database.write() as connection:
            planned = lock(connection, stream).planned
            existing = _asked(connection, stream, request.key)
            if existing is not None:
                return existing
            if planned != version:
                raise Outdated(
                    f"{stream.prefix} was planned {planned - version} times since its coverage was read",
                    safe="Nothing of this plan was written.",
                )
            _write(connection, stream, request, cuts, self._database.now(connection))
            connection.execute(update(streams).where(streams.c.id == stream.id).values(planned=version + 1))
            return _asked(connection, stream, request.key) or ()

    def open_cuts(self, stream: Stream) -> tuple[Cut, ...]:
        chosen = select(cuts).where(cuts.c.stream == stream.id, cuts.c.state.in_(OPEN_CUTS))
        with self._database.read() as connection:
            return tuple(cut_of(row) for row in connection.execute(chosen.order_by(cuts.c.id)))

    def cut(self, stream: Stream, cut: int) -> Cut:
        """One cut as it is now. Raises Misconfigured where the stream has none of that number."""
        with self._database.read() as connection:
            row = connection.execute(select(cuts).where(cuts.c.id == cut, cuts.c.stream == stream.id)).first()
        if row is None:
            raise Misconfigured(f"{stream.prefix} has no cut {cut} in this ledger")
        return cut_of(row)

    def left(self, stream: Stream, seconds: float) -> tuple[Cut, ...]:
        open_cuts = select(cuts).join(requests, requests.c.id == cuts.c.request)
        with self._database.read() as connection:
            before = self._database.now(connection) - seconds
            others = cuts.alias()
            busy = select(others.c.request).where(others.c.stream == stream.id, others.c.done_at > before)
            chosen = open_cuts.where(
                cuts.c.stream == stream.id,
                cuts.c.state.in_(OPEN_CUTS),
                requests.c.at <= before,
                cuts.c.request.not_in(busy),
            )
            return tuple(cut_of(row) for row in connection.execute(chosen.order_by(cuts.c.id)))

    def tallies(self, stream: Stream, of: Sequence[int]) -> dict[int, Tally]:
        chosen = select(cuts).where(cuts.c.stream == stream.id, cuts.c.id.in_(of), cuts.c.state == CutState.DONE)
        with self._database.read() as connection:
            rows = connection.execute(chosen.order_by(cuts.c.id)).all()
            return {row.id: read_tally(connection, row) for row in rows}

    def buckets(self, stream: Stream, window: Range) -> tuple[Bucket, ...]:
        with self._database.read() as connection:
            return buckets_in(connection, stream, "", window)

    def rejected(self, stream: Stream, window: Range) -> tuple[int, ...]:
        found = (
            select(cut_rejects.c.cut)
            .distinct()
            .join_from(cut_rejects, cuts, cut_rejects.c.cut == cuts.c.id)
            .where(
                cut_rejects.c.stream == stream.id,
                cuts.c.state == CutState.DONE,
                cuts.c.start < window.end,
                cuts.c.end > window.start,
            )
        )
        with self._database.read() as connection:
            return tuple(sorted(connection.execute(found).scalars()))


def buckets_in(connection: Connection, stream: Stream, lane: str, window: Range) -> tuple[Bucket, ...]:
    """The buckets of a lane that meet a window, in order."""
    of_lane = (buckets.c.stream == stream.id, buckets.c.lane == lane)
    # They are disjoint, so of those that begin before the window only the last can reach into it.
    last = select(func.max(buckets.c.start, type_=buckets.c.start.type)).where(
        *of_lane, buckets.c.start <= window.start
    )
    first = connection.execute(last).scalar()
    chosen = select(buckets).where(
        *of_lane,
        buckets.c.start >= (window.start if first is None else first),
        buckets.c.start < window.end,
        buckets.c.end > window.start,
    )
    rows = connection.execute(chosen.order_by(buckets.c.start))
    return tuple(Bucket(Range(row.start, row.end), row.rows, row.ids) for row in rows)


def write_bucket(connection: Connection, stream: Stream, lane: str, one: Bucket) -> None:
    """Remember what a range holds, in place of all buckets that it meets."""
    of_lane = (buckets.c.stream == stream.id, buckets.c.lane == lane)
    for old in buckets_in(connection, stream, lane, one.range):
        connection.execute(delete(buckets).where(*of_lane, buckets.c.start == old.range.start))
    new = {"stream": stream.id, "lane": lane, "start": one.range.start, "end": one.range.end}
    connection.execute(insert(buckets).values(**new, rows=one.rows, ids=one.ids))


def lock(connection: Connection, stream: Stream) -> Row[Any]:
    """The stream's row, kept from other writers until the transaction ends."""
    return connection.execute(select(streams).where(streams.c.id == stream.id).with_for_update()).one()


def by_lane(connection: Connection, chosen: Select[Any]) -> dict[str, Ranges]:
    """Rows of (lane, start, end) as sets of positions."""
    found: dict[str, list[Range]] = {}
    for lane, start, end in connection.execute(chosen):
        found.setdefault(lane, []).append(Range(start, end))
    return {lane: Ranges.of(ranges) for lane, ranges in found.items()}


def cut_of(row: Row[Any]) -> Cut:
    return Cut(row.id, ScanKind(row.kind), Range(row.start, row.end), row.lane, row.estimated, CutState(row.state))


def _stream(row: Row[Any]) -> Stream:
    numbers = (row.published, row.planned, row.last_sequence)
    return Stream(row.id, row.job, StreamName(row.name), *numbers, row.pinned, row.columns)


def _same(row: Row[Any], identity: Mapping[str, str]) -> dict[str, str]:
    """A stream's identity with what is new of `identity`. Raises Misconfigured where an entry differs."""
    known: dict[str, str] = row.identity
    for entry, value in identity.items():
        if known.get(entry, value) != value:
            raise Misconfigured(
                f"{entry} of {row.job}/{row.name} was {known[entry]!r} and is now {value!r}",
                safe="Nothing was planned or sent.",
                hint=f"Put {entry} back to {known[entry]!r}; or rename the job, which uploads everything under "
                "its new name from the start.",
            )
    return {**known, **identity}


def _asked(connection: Connection, stream: Stream, key: str) -> tuple[Cut, ...] | None:
    known = select(requests.c.id).where(requests.c.stream == stream.id, requests.c.key == key)
    request = connection.execute(known).scalar()
    if request is None:
        return None
    chosen = select(cuts).where(cuts.c.request == request).order_by(cuts.c.ordinal)
    return tuple(cut_of(row) for row in connection.execute(chosen))


def _write(connection: Connection, stream: Stream, request: Request, plan: Sequence[Cut], at: float) -> None:
    written = connection.execute(
        insert(requests)
        .values(
            stream=stream.id,
            key=request.key,
            kind=request.kind,
            start=request.window and request.window.start,
            end=request.window and request.window.end,
            at=at,
            by=this_person(),
        )
        .returning(requests.c.id)
    ).scalar_one()
    rows = [
        {
            "stream": stream.id,
            "request": written,
            "ordinal": ordinal,
            "lane": cut.lane,
            "kind": cut.kind,
            "start": cut.range.start,
            "end": cut.range.end,
            "estimated": cut.estimated,
            "state": CutState.PLANNED,
            **NOT_SCANNED,
        }
        for ordinal, cut in enumerate(plan)
    ]
    if rows:
        connection.execute(insert(cuts), rows)
