"""Rows that could not be sent or were refused, kept in the staging with their columns and the reason.

`{job}/{stream}/_tidepost/rejects/{cut}.parquet`                  what staging set aside
`{job}/{stream}/_tidepost/refused/{slice}.{destination}.parquet`  what a destination refused; ids that all of a job's
                                                                  refused have left the index
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence, Set

import pyarrow as pa
import pyarrow.parquet as pq

from tidepost.cursor import HOUR, parse_instant
from tidepost.model import RowAnswer, Stream, StreamName
from tidepost.ports import Records
from tidepost.rows.shape import TIMESTAMP

ID = "partner_inference_id"
LABEL_TIME = StreamName.GROUND_TRUTH.time
NO_REJECTS = pa.table(
    {"reason": pa.array([], pa.string()), ID: pa.array([], pa.string()), "row": pa.array([], pa.string())}
)
"""The columns of a file of rejects: `row` is the row as JSON."""


def rejects_key(stream: Stream, cut: int) -> str:
    return f"{stream.prefix}/_tidepost/rejects/{cut:08d}.parquet"


def refused_key(stream: Stream, sequence: int, destination: str) -> str:
    return f"{stream.prefix}/_tidepost/refused/{sequence:08d}.{destination}.parquet"


def write_rejects(records: Records, stream: Stream, cut: int, rejects: pa.Table) -> None:
    """Keep what staging set aside of a cut; if the cut is staged again, only what was set aside then."""
    if not rejects.num_rows:
        records.remove(rejects_key(stream, cut))
        return
    with records.file(rejects_key(stream, cut)) as path:
        pq.write_table(rejects, path, compression="zstd")


def write_refused(
    records: Records, stream: Stream, sequence: int, destination: str, answers: Sequence[tuple[RowAnswer, str]]
) -> None:
    """Add rows that a destination refused, each with the row as JSON; a row that is there already stays once."""
    key = refused_key(stream, sequence, destination)
    known = read_rejects(records, key)
    there = set(known.column(ID).to_pylist())
    new = [(answer, row) for answer, row in answers if answer.partner_inference_id not in there]
    added = pa.table(
        {
            "reason": pa.array([_why(destination, answer) for answer, _ in new], pa.string()),
            ID: pa.array([answer.partner_inference_id for answer, _ in new], pa.string()),
            "row": pa.array([row for _, row in new], pa.string()),
        }
    )
    with records.file(key) as path:
        pq.write_table(pa.concat_tables([known, added]), path, compression="zstd")


def _why(destination: str, answer: RowAnswer) -> str:
    return f"{'no_inference, ' if answer.no_inference else ''}refused by {destination}: {answer.message}"


def read_rejects(records: Records, key: str) -> pa.Table:
    """A file of rejects; an empty table where there is none."""
    data = records.get(key)
    return NO_REJECTS if data is None else pq.read_table(pa.BufferReader(data)).cast(NO_REJECTS.schema)


def by_hour(rejects: pa.Table) -> dict[int, int]:
    """Refused rows by hour of event time. Raises ValueError, TypeError or KeyError where one cannot be read."""
    hours: dict[int, int] = {}
    for text in rejects.column("row").to_pylist():
        row = json.loads(text)
        hour = parse_instant(row[TIMESTAMP] if TIMESTAMP in row else row[LABEL_TIME], zone="UTC") // HOUR
        hours[hour] = hours.get(hour, 0) + 1
    return hours


def read_refused(records: Records, stream: Stream) -> Iterator[tuple[int, str, list[str]]]:
    """(slice, destination, the ids of it that the destination refused)."""
    for key in records.list(f"{stream.prefix}/_tidepost/refused"):
        sequence, destination, _ = key.rpartition("/")[2].split(".", 2)
        yield int(sequence), destination, read_rejects(records, key).column(ID).to_pylist()


def read_tombstones(
    records: Records, stream: Stream, sequences: Set[int], destinations: Collection[str] = ()
) -> dict[int, list[str]]:
    """The ids that destinations refused, in order, by the slice that held them: those that each of `destinations`
    refused, or, where none are named, any."""
    found: dict[int, dict[str, list[str]]] = {}
    for key in records.list(f"{stream.prefix}/_tidepost/refused"):
        text, destination, _ = key.rpartition("/")[2].split(".", 2)
        if int(text) in sequences and (not destinations or destination in destinations):
            found.setdefault(int(text), {})[destination] = read_rejects(records, key).column(ID).to_pylist()
    least = max(1, len(destinations))
    told = {
        sequence: Counter(id_ for ids in refused.values() for id_ in set(ids)) for sequence, refused in found.items()
    }
    everywhere = {
        sequence: sorted(id_ for id_, times in counted.items() if times >= least)
        for sequence, counted in told.items()
    }
    return {sequence: ids for sequence, ids in everywhere.items() if ids}
