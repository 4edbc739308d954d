"""Slices, their parts and their tallies, between rows and nouns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select, union_all, update

from tidepost.ledger.schema import SliceState, cut_rejects, cuts, joined, part_hours, parts, slices
from tidepost.model import MICROSECONDS_AN_HOUR, Part, ScanKind, Slice, Stream, Tally
from tidepost.ports import PartRef
from tidepost.ranges import Range

Conditions: TypeAlias = tuple[ColumnElement[bool], ...]

NOT_SCANNED: Final = {
    "scanned": 0,
    "published": 0,
    "duplicates": 0,
    "known": 0,
    "superseded": 0,
    "waiting": 0,
    "null_cursors": 0,
    "ids": "",
    "late": 0.0,
}
"""The tally of a cut before it is scanned."""

# A part is filed by the first of these spans, in microseconds, that holds its event times; wider ones beyond them.
WIDTHS: Final = tuple(hours * MICROSECONDS_AN_HOUR for hours in (1, 24, 31 * 24, 366 * 24))


def read_slice(connection: Connection, stream: int, sequence: int) -> Slice:
    """A slice in whatever state, with its parts and its cut's tally."""
    row = connection.execute(
        select(slices.c.sequence, slices.c.held, cuts)
        .join_from(slices, cuts, slices.c.cut == cuts.c.id)
        .where(slices.c.stream == stream, slices.c.sequence == sequence)
    ).one()
    refs = read_parts(connection, [(parts.c.stream == stream, parts.c.sequence == sequence)])
    days = select(joined.c.day).where(joined.c.stream == stream, joined.c.sequence == sequence)
    return Slice(
        sequence,
        row.id,
        ScanKind(row.kind),
        Range(row.start, row.end),
        tuple(ref.part for ref in refs),
        read_tally(connection, row),
        row.lane,
        row.held,
        tuple(connection.execute(days.order_by(joined.c.day)).scalars()),
    )


def read_parts(connection: Connection, choices: Sequence[Conditions]) -> tuple[PartRef, ...]:
    """The parts that any of `choices` chooses, by sequence and number; no part may be chosen twice.

    Each choice is a query of its own in one union: an OR would keep SQLite from using an index for it.
    """
    of_slice = and_(parts.c.stream == slices.c.stream, parts.c.sequence == slices.c.sequence)
    chosen = [select(parts).join_from(parts, slices, of_slice).where(*where) for where in choices]
    of_part = and_(
        parts.c.stream == part_hours.c.stream,
        parts.c.sequence == part_hours.c.sequence,
        parts.c.number == part_hours.c.number,
    )
    counted = [
        select(part_hours.c.sequence, part_hours.c.number, part_hours.c.hour, part_hours.c.rows)
        .join_from(parts, slices, of_slice)
        .join(part_hours, of_part)
        .where(*where)
        for where in choices
    ]
    hours: dict[tuple[int, int], dict[int, int]] = {}
    for sequence, number, hour, rows in connection.execute(union_all(*counted)):
        hours.setdefault((sequence, number), {})[hour] = rows
    refs = [
        PartRef(row.sequence, _part(row, hours.get((row.sequence, row.number), {})))
        for row in connection.execute(union_all(*chosen))
    ]
    return tuple(sorted(refs, key=lambda ref: (ref.sequence, ref.part.number)))


def published_parts(stream: Stream, window: Range | None) -> list[Conditions]:
    """Choices for `read_parts`: published parts whose event times, from first to last, meet a window of
    microseconds; one choice for each width that parts are filed by."""
    published = (parts.c.stream == stream.id, slices.c.state == SliceState.PUBLISHED)
    if window is None:
        return [published]
    meets = (*published, parts.c.event_min < window.end, parts.c.event_max >= window.start)
    filed: list[Conditions] = [
        (*meets, parts.c.width == width, parts.c.event_min >= window.start - span)
        for width, span in enumerate(WIDTHS)
    ]
    return [*filed, (*meets, parts.c.width == len(WIDTHS))]


def write_parts(
    connection: Connection, stream: Stream, sequence: int, finished: Iterable[Part], *, now: float | None = None
) -> None:
    """Add a slice's parts, whose row is there already; those that are purged count as purged `now`."""
    rows = [
        {
            "stream": stream.id,
            "sequence": sequence,
            "number": part.number,
            "path": part.path,
            "rows": part.rows,
            "size": part.size,
            "sha256": part.sha256,
            "event_min": part.event_min,
            "event_max": part.event_max,
            "width": _width(part),
            "token": part.token,
            "batch_id": part.batch_id,
            "purged_at": now if part.purged else None,
        }
        for part in finished
    ]
    hours = [
        {"stream": stream.id, "sequence": sequence, "number": part.number, "hour": hour, "rows": count}
        for part in finished
        for hour, count in part.hours.items()
    ]
    if rows:
        connection.execute(insert(parts), rows)
    if hours:
        connection.execute(insert(part_hours), hours)


def write_joined(connection: Connection, stream: Stream, of: Slice) -> None:
    """Add the days that a slice's labels join; its row is there already."""
    rows = [{"stream": stream.id, "day": day, "sequence": of.sequence} for day in of.joined]
    if rows:
        connection.execute(insert(joined), rows)


def write_tally(connection: Connection, stream: Stream, cut: int, tally: Tally) -> None:
    """Set a cut's tally, in place of any before it."""
    numbers = {
        "scanned": tally.scanned,
        "published": tally.published,
        "duplicates": tally.duplicates,
        "known": tally.known,
        "superseded": tally.superseded,
        "waiting": tally.waiting,
        "null_cursors": tally.null_cursors,
        "ids": tally.ids,
        "late": tally.late,
    }
    connection.execute(update(cuts).where(cuts.c.id == cut).values(numbers))
    connection.execute(delete(cut_rejects).where(cut_rejects.c.cut == cut))
    rows = [
        {"cut": cut, "reason": reason, "stream": stream.id, "rows": count} for reason, count in tally.rejected.items()
    ]
    if rows:
        connection.execute(insert(cut_rejects), rows)


def read_tally(connection: Connection, cut: Row[Any]) -> Tally:
    """What became of the rows of a cut, of which this is the row."""
    reasons = select(cut_rejects.c.reason, cut_rejects.c.rows).where(cut_rejects.c.cut == cut.id)
    rejected = {row.reason: row.rows for row in connection.execute(reasons.order_by(cut_rejects.c.reason))}
    numbers = (cut.scanned, cut.published, cut.duplicates, cut.known)
    return Tally(*numbers, rejected, cut.null_cursors, cut.ids, cut.late, cut.superseded, cut.waiting)


def _width(part: Part) -> int:
    span = part.event_max - part.event_min
    return next((width for width, limit in enumerate(WIDTHS) if span <= limit), len(WIDTHS))


def _part(row: Row[Any], hours: dict[int, int]) -> Part:
    return Part(
        row.number,
        row.path,
        row.rows,
        row.size,
        row.sha256,
        row.event_min,
        row.event_max,
        hours,
        row.token,
        row.batch_id,
        row.purged_at is not None,
    )
