"""Holding: labels whose inference is not published yet, kept until it is.

`{job}/ground_truth/_tidepost/held/{cut}.parquet`   the labels that a cut held back, as they are staged, and when each
                                                    became known

The cut's slice closes without them. A file is taken up again, whole, by a cut of its own in the lane `held`, whose
range is the number of the cut that wrote the file: what has its inference by then is published, the rest is held
anew. A file that was taken up and not recorded, as the process died, is taken up once more; versions keep that from
doubling.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from tidepost.errors import Misconfigured
from tidepost.index import index_of
from tidepost.model import MICROSECONDS_AN_HOUR, Cut, CutState, Part, ScanKind, Stream
from tidepost.ports import CURSOR, Ledger, Records, Relation, Staging
from tidepost.ranges import Range, Ranges
from tidepost.shape import EVENT, HASH, HOUR, ID, REASON, ROW
from tidepost.sql import quote_identifier

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LANE: Final = "held"
_ABOUT: Final = b"tidepost:held"


@dataclass(frozen=True, slots=True)
class Held:
    """Labels that a cut holds back.

    rows:   the staged columns, and `CURSOR`: when each became known
    source: where they came from, see `versions.py`
    looked: the newest slice of inferences that they were looked up in
    since:  when they were held first, in seconds since 1970
    """

    rows: pa.Table
    source: int
    looked: int
    since: float

    @property
    def ids(self) -> pa.ChunkedArray:
        return self.rows.column(ID)


def write_held(records: Records, stream: Stream, cut: int, held: Held | None) -> None:
    """Keep what a cut holds back, durably; if the cut is staged again, only what it holds then."""
    if held is None or not held.rows.num_rows:
        records.remove(_key(stream, cut))
        return
    about = json.dumps({"source": held.source, "looked": held.looked, "since": held.since}).encode()
    with records.file(_key(stream, cut)) as path:
        pq.write_table(held.rows.replace_schema_metadata({_ABOUT: about}), path, compression="zstd")


def read_held(records: Records, stream: Stream, cut: int) -> Held:
    """What a cut held back. Raises Misconfigured where the file is gone or damaged."""
    data = records.get(_key(stream, cut))
    try:
        rows = pq.read_table(pa.BufferReader(data or b""))
        about = json.loads(rows.schema.metadata[_ABOUT])
        return Held(rows, int(about["source"]), int(about["looked"]), float(about["since"]))
    except (pa.ArrowException, ValueError, TypeError, KeyError):
        what = "is missing" if data is None else "is damaged"
        raise Misconfigured(
            f"staging: {_key(stream, cut)} {what}: it holds labels that wait for their inference",
            safe="Nothing was sent.",
            hint="Bring it back from a copy of the staging, or load the labels again with tidepost backfill.",
        ) from None


def held_now(records: Records, ledger: Ledger, stream: Stream) -> Iterator[tuple[int, Held]]:
    """What is held now, by the cut that holds it, oldest first."""
    taken = ledger.plans.coverage(stream).scanned.get(LANE, Ranges())
    for key in records.list(f"{stream.prefix}/_tidepost/held"):
        cut = int(key.rpartition("/")[2].partition(".")[0])
        if cut not in taken and _done(ledger, stream, cut):
            yield cut, read_held(records, stream, cut)


def due(
    connection: DuckDBPyConnection, staging: Staging, records: Records, ledger: Ledger, stream: Stream
) -> tuple[Cut, ...]:
    """The cuts that take up held labels of which an inference was published since they were looked up."""
    planned = ledger.plans.coverage(stream).planned.get(LANE, Ranges())
    held = [(cut, one) for cut, one in held_now(records, ledger, stream) if cut not in planned]
    inferences = ledger.plans.find(stream.job, inferences_of(stream).name)
    if not held or inferences is None:
        return ()
    oldest = min(one.looked for _, one in held)
    parts = [one for one in ledger.slices.published(inferences, None).parts if one.sequence > oldest]
    index = index_of(connection, staging, records, inferences, parts=parts, which="all")
    if index is None:
        return ()
    waiting = pa.concat_tables(
        [
            pa.table({"cut": pa.repeat(pa.scalar(cut, pa.int64()), len(one.ids)), "id": one.ids.cast(pa.string())})
            for cut, one in held
        ]
    )
    connection.register("tidepost_waiting", waiting)
    there = index.slices(f"{ID} IN (SELECT id FROM tidepost_waiting)")
    found = connection.execute(
        f"SELECT DISTINCT cut FROM tidepost_waiting WHERE id IN (SELECT id FROM ({there.sql})) ORDER BY cut",
        dict(there.values),
    ).fetchall()
    rows = {cut: len(one.ids) for cut, one in held}
    return tuple(Cut(0, ScanKind.INCREMENTAL, Range(cut, cut + 1), LANE, rows[cut]) for (cut,) in found)


def relation(
    connection: DuckDBPyConnection, staging: Staging, stream: Stream, cut: Cut, columns: Sequence[str]
) -> Relation:
    """SQL over what a cut of the lane takes up, with all columns that staging needs. Raises Retryable where the file
    cannot be read."""
    file = Part(0, _path(cut.range.start), 0, 0, "", 0, 0, {})
    found = staging.relation(connection, stream, [file])
    event = f"epoch_us({quote_identifier(stream.name.time)})"
    over = f"(({event} % {MICROSECONDS_AN_HOUR}) + {MICROSECONDS_AN_HOUR}) % {MICROSECONDS_AN_HOUR}"
    names = ", ".join(quote_identifier(name) for name in (*columns, CURSOR))
    own = quote_identifier
    return Relation(
        f"SELECT {names}, {event} AS {own(EVENT)}, ({event} - {over}) // {MICROSECONDS_AN_HOUR} AS {own(HOUR)}, "
        f"hash({ID}) AS {own(HASH)}, CAST(NULL AS VARCHAR) AS {own(REASON)}, CAST(NULL AS VARCHAR) AS {own(ROW)} "
        f"FROM ({found.sql})",
        found.values,
    )


def inferences_of(stream: Stream) -> Stream:
    """The stream that a job's labels join, as it is named."""
    return Stream(0, stream.job, type(stream.name).INFERENCES)


def _done(ledger: Ledger, stream: Stream, cut: int) -> bool:
    """Whether a cut is done. One that a rebuilt ledger does not know was: its file holds what nothing else does."""
    try:
        return ledger.plans.cut(stream, cut).state is CutState.DONE
    except Misconfigured:
        return True


def _path(cut: int) -> str:
    return f"_tidepost/held/{cut:08d}.parquet"


def _key(stream: Stream, cut: int) -> str:
    return f"{stream.prefix}/{_path(cut)}"
