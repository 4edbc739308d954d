"""Looking back: which scanned ranges of the source hold other rows by now than the scan saw that looked at them last.

Every cut that is done leaves a bucket: its range, how many rows the scan returned, and the sum of their ids' hashes.
A lookback counts and sums again, which reads the id's columns and the cursor only. Buckets that agree are passed
over. Ranges that differ, and scanned ranges of which nobody knows what they held (a rebuilt ledger, half of a range
that a backfill looked at), are cut and staged like any other: the index tells which of their rows are new.

The window ends where scanning ended before this run, not at the clock: rows that became visible during an outage, of
the loader or of tidepost, are as far below that end as they would have been without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import duckdb

from tidepost.cursor import DAY, SECOND, CursorKind, CursorType
from tidepost.definition.job import Attribute, Job
from tidepost.definition.units import duration_text
from tidepost.engine import Engine, translated
from tidepost.model import Bucket, Stream
from tidepost.ports import CURSOR, Reports, Source
from tidepost.ranges import Range, Ranges
from tidepost.sql import quote_identifier, quote_literal

NANOSECONDS_A_MICROSECOND = 1_000
WRAP = 2**64
CLOSE_TO_LOOKBACK = 0.8
"""The share of the lookback beyond which late rows are warned of: a little later still, and they are lost."""


def told_sum(hashes: int) -> str:
    """A sum of ids' hashes as it is kept: with the version that hashed them, as another one would hash otherwise."""
    return f"{duckdb.__version__}:{hashes % WRAP}"


def window(
    scanned: Ranges, lookback: timedelta, kind: CursorKind, *, start: int, stream: Stream, reports: Reports
) -> Range | None:
    """The range within `lookback` of the top of what is scanned, not before the job's start; None for an empty one.

    A cursor that is no time has its distance by the log of when it was seen; what is older than the log is within.
    """
    if not scanned or not lookback:
        return None
    top = scanned.items[-1].end
    if kind.type is CursorType.TIMESTAMP:
        low = top - lookback // timedelta(microseconds=1) * NANOSECONDS_A_MICROSECOND
    elif kind.type is CursorType.DATE:
        low = top + (-lookback) // timedelta(days=1)
    else:
        seen_at = reports.first_seen(stream, top - 1)
        seen = None if seen_at is None else reports.highest_seen(stream, seen_at - lookback.total_seconds())
        low = start if seen is None else seen + 1
    low = max(start, low)
    return Range(low, top) if low < top else None


def lateness(position: int, scanned: Ranges, kind: CursorKind, *, stream: Stream, reports: Reports) -> float:
    """How far a row is below the top of what is scanned, in seconds; 0 where nothing tells."""
    top = scanned.items[-1].end if scanned else position
    if kind.type is CursorType.TIMESTAMP:
        return max(0.0, (top - position) / SECOND)
    if kind.type is CursorType.DATE:
        return max(0.0, (top - position) * DAY / SECOND)
    ends = [reports.first_seen(stream, one) for one in (position, top - 1)]
    return max(0.0, ends[1] - ends[0]) if ends[0] is not None and ends[1] is not None else 0.0


def late_warning(late: float, lookback: timedelta) -> str | None:
    """What to tell of rows that came so many seconds late; None where that is well within the lookback."""
    if late <= CLOSE_TO_LOOKBACK * lookback.total_seconds():
        return None
    most = timedelta(minutes=-(-late // 60))
    return (
        f"rows came up to {duration_text(most)} late; rows that come later than cursor.lookback, which is "
        f"{duration_text(lookback)}, are not found. Set it to {duration_text(2 * most)} or more"
    )


def labelled(rows: str, labels: Sequence[Attribute]) -> str:
    """SQL of those rows of a source that have their label: a value for each attribute that is not optional, or for
    any where all are. Of all rows, where there are no labels."""
    if not labels:
        return rows
    needed = [one for one in labels if not one.optional]
    tests = [f"{quote_identifier(one.column)} IS NOT NULL" for one in needed or labels]
    return f"SELECT * FROM ({rows}) WHERE {(' AND ' if needed else ' OR ').join(tests)}"


def differing(
    window: Range, *, scanned: Ranges, planned: Ranges, buckets: Sequence[Bucket], found: Mapping[int, Bucket]
) -> Ranges:
    """What has to be scanned again: buckets that are not as they were found now (first position → bucket), and
    scanned ranges of the window in no bucket; without what open cuts will scan anyway."""
    unknown = scanned.within(window).minus(Ranges.of(one.range for one in buckets))
    changed = [one.range for one in buckets if one.ids is not None and one != found.get(one.range.start)]
    return unknown.union(changed).minus(planned)


def count(job: Job, source: Source, engine: Engine, buckets: Sequence[Bucket]) -> dict[int, Bucket]:
    """What the source holds now in the ranges of some buckets, which are in order and disjoint: first position →
    bucket. Reads the columns of the id and the cursor, once. Raises what the source raises."""
    if not buckets:
        return {}
    template = job.mapping.partner_inference_id
    hull = Range(buckets[0].range.start, buckets[-1].range.end)
    of_source = source.columns()
    labels = [one for one in job.labels if one.column in of_source]
    reads = tuple(dict.fromkeys([*template.columns, *(one.column for one in labels)]))
    with engine.connect() as connection, source.read(connection, hull, reads) as relation:
        id_ = template.sql(of_source, quote_identifier)
        rows = f"SELECT {quote_identifier(CURSOR)} AS p, hash({id_}) AS h FROM ({labelled(relation.sql, labels)})"
        number = _number(buckets, 0, len(buckets), source.cursor())
        try:
            counted = connection.execute(
                f"SELECT b, count(*), sum(h) FROM (SELECT {number} AS b, h FROM ({rows})) "
                f"WHERE b IS NOT NULL GROUP BY b",
                dict(relation.values),
            ).fetchall()
        except duckdb.Error as error:
            raise translated(error, f"{job.name}: looking back") from error
    sums = {int(at): (int(rows_), int(hashes)) for at, rows_, hashes in counted}
    found = {}
    for at, one in enumerate(buckets):
        rows_, hashes = sums.get(at, (0, 0))
        found[one.range.start] = Bucket(one.range, rows_, told_sum(hashes))
    return found


def _number(buckets: Sequence[Bucket], first: int, end: int, kind: CursorKind) -> str:
    """SQL of the number of the bucket that holds `p`, a relation's `CURSOR`, by halving; NULL between buckets.
    Comparing with each bucket, or an ASOF join, takes several times as long."""
    if end - first == 1:
        low, high = (_carried(one, kind) for one in (buckets[first].range.start, buckets[first].range.end - 1))
        return f"CASE WHEN p >= {low} AND p <= {high} THEN {first} END"
    middle = (first + end) // 2
    left, right = _number(buckets, first, middle, kind), _number(buckets, middle, end, kind)
    return f"CASE WHEN p < {_carried(buckets[middle].range.start, kind)} THEN {left} ELSE {right} END"


def _carried(position: int, kind: CursorKind) -> str:
    """SQL of a position as a relation's `CURSOR` has it."""
    return quote_literal(kind.format(position)) if kind.type is CursorType.UUID else str(position)
