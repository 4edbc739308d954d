"""Holding: labels whose inference is not published yet, kept until it is.

`{job}/ground_truth/_tidepost/held/{number}.parquet`   the labels that a cut held back, as they are staged, and when
                                                       each became known; the number is a hash of ledger and cut

The cut's slice closes without them. A file is taken up again, whole, by a cut of its own in the lane `held`, whose
range is the file's number: what has its inference by then is published, the rest is held
anew. A file that was taken up and not recorded, as the process died, is taken up once more; versions keep that from
doubling.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from tidepost.errors import Misconfigured
from tidepost.model import MICROSECONDS_AN_HOUR, Cut, CutState, Part, ScanKind, Stream
from tidepost.ports import CURSOR, Ledger, Records, Relation, Staging
from tidepost.ranges import Range, Ranges
from tidepost.rows.index import index_of
from tidepost.rows.shape import EVENT, HASH, HOUR, ID, REASON, ROW
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
    ledger, cut: that held them; numbers of another ledger's cuts say nothing
    """

    rows: pa.Table
    source: int
    looked: int
    since: float
    ledger: str = ""
    cut: int = 0

    @property
    def ids(self) -> pa.ChunkedArray:
        return self.rows.column(ID)


def write_held(records: Records, ledger: str, stream: Stream, cut: int, held: Held | None) -> None:
    """Keep what a cut holds back, durably; if the cut is staged again, only what it holds then."""
    key = _key(stream, _number(ledger, cut))
    if held is None or not held.rows.num_rows:
        records.remove(key)
        return
    told = {"source": held.source, "looked": held.looked, "since": held.since, "ledger": ledger, "cut": cut}
    about = json.dumps(told).encode()
    with records.file(key) as path:
        pq.write_table(held.rows.replace_schema_metadata({_ABOUT: about}), path, compression="zstd")


def read_held(records: Records, stream: Stream, number: int) -> Held:
    """What a file holds. Raises Misconfigured where it is gone or damaged."""
    data = records.get(_key(stream, number))
    try:
        rows = pq.read_table(pa.BufferReader(data or b""))
        about = json.loads(rows.schema.metadata[_ABOUT])
        numbers = (int(about["source"]), int(about["looked"]), float(about["since"]))
        return Held(rows, *numbers, str(about["ledger"]), int(about["cut"]))
    except (pa.ArrowException, ValueError, TypeError, KeyError):
        what = "is missing" if data is None else "is damaged"
        raise Misconfigured(
            f"staging: {_key(stream, number)} {what}: it holds labels that wait for their inference",
            safe="Nothing was sent.",
            hint="Bring it back from a copy of the staging, or load the labels again with tidepost backfill.",
        ) from None


def held_now(records: Records, ledger: Ledger, stream: Stream) -> Iterator[tuple[int, Held]]:
    """What is held now, by the number of its file."""
    taken = ledger.plans.coverage(stream).scanned.get(LANE, Ranges())
    for key in records.list(f"{stream.prefix}/_tidepost/held"):
        number = int(key.rpartition("/")[2].partition(".")[0])
        if number in taken:
            continue
        held = read_held(records, stream, number)
        if held.ledger != ledger.id or ledger.plans.cut(stream, held.cut).state is CutState.DONE:
            yield number, held


def due(
    connection: DuckDBPyConnection, staging: Staging, records: Records, ledger: Ledger, stream: Stream
) -> tuple[Cut, ...]:
    """The cuts that take up held labels of which an inference was published since they were looked up."""
    planned = ledger.plans.coverage(stream).planned.get(LANE, Ranges())
    held = [(number, one) for number, one in held_now(records, ledger, stream) if number not in planned]
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
            pa.table(
                {"file": pa.repeat(pa.scalar(number, pa.int64()), len(one.ids)), "id": one.ids.cast(pa.string())}
            )
            for number, one in held
        ]
    )
    connection.register("tidepost_waiting", waiting)
    there = index.slices(f"{ID} IN (SELECT id FROM tidepost_waiting)")
    found = connection.execute(
        f"SELECT DISTINCT file FROM tidepost_waiting WHERE id IN (SELECT id FROM ({there.sql}))",
        dict(there.values),
    ).fetchall()
    due_now = {number for (number,) in found}
    return tuple(
        Cut(0, ScanKind.INCREMENTAL, Range(number, number + 1), LANE, len(one.ids))
        for number, one in sorted(held, key=lambda one: (one[1].since, one[0]))
        if number in due_now
    )


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


def _number(ledger: str, cut: int) -> int:
    return int(hashlib.sha256(f"{ledger}/{cut}".encode()).hexdigest()[:15], 16)


def _path(number: int) -> str:
    return f"_tidepost/held/{number:018d}.parquet"


def _key(stream: Stream, number: int) -> str:
    return f"{stream.prefix}/{_path(number)}"
