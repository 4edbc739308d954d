"""Versions: which labels of which inference were published, kept beside a stream of ground truth.

`{job}/ground_truth/_tidepost/versions/{cut}.parquet`   one row for each label that the cut's slice holds, and for
                                                        each that is newer than the last of its id, and equal

A file counts once its cut's slice is published. The ledger, and the slice's manifest, say on which days the
inferences lie that its labels join. An inference has one event time, so all versions of its label are in files of its
day, and no others are opened. Of two labels of one inference the newer one is the greater (known, source); of the
history of an id only the greatest counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidepost.errors import Retryable
from tidepost.model import MICROSECONDS_AN_HOUR, Part, Stream
from tidepost.ports import Records, Staging, StagingArea
from tidepost.ranges import Range
from tidepost.rows.index import row_as_json
from tidepost.rows.rejects import read_tombstones

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_FOLDER: Final = "_tidepost/versions"
DAY: Final = 24 * MICROSECONDS_AN_HOUR
BY_QUERY: Final = 0
BY_FILE: Final = 1
"""Where a label came from, in the order in which sources win a draw."""

NO_VERSIONS: Final = pa.table(
    {
        "id": pa.array([], pa.string()),
        "known": pa.array([], pa.decimal128(38, 0)),
        "source": pa.array([], pa.int32()),
        "content": pa.array([], pa.string()),
        "sent": pa.array([], pa.bool_()),
        "inference": pa.array([], pa.int64()),
        "after": pa.array([], pa.int64()),
        "event": pa.array([], pa.int64()),
        "label_at": pa.array([], pa.int64()),
    }
)
"""The columns of a file of versions.

known:     when the label became known, as the position of its cursor
content:   of its values, equal where all of them are
sent:      whether the slice holds it; else the label before it is equal and stands
inference: the slice of inferences that holds its inference
after:     the slice of ground truth that holds the label before it; NULL for the first
event:     the inference's time, in microseconds
label_at:  its ground-truth timestamp, in microseconds
"""


def value_of(columns: tuple[str, ...]) -> str:
    """SQL of the values of a row `r` as one text."""
    return f"md5({row_as_json(sorted(columns))})"


def day_of(event: str) -> str:
    """SQL of the day since 1970 of an event time in microseconds, before 1970 too."""
    return f"({event} - (({event} % {DAY}) + {DAY}) % {DAY}) // {DAY}"


def days_joined(versions: pa.Table | None) -> tuple[int, ...]:
    """The days since 1970 of the inferences that labels join, ascending."""
    if versions is None:
        return ()
    events = versions.column("event")
    days = pc.divide(events, DAY)
    before = pc.less(events, pc.multiply(days, DAY))  # division is towards zero
    return tuple(sorted(pc.unique(pc.subtract(days, before.cast(pa.int64()))).to_pylist()))


def write_versions(records: Records, stream: Stream, cut: int, versions: pa.Table) -> None:
    """Keep a cut's versions before its slice is published; if it is staged again, those of then."""
    with records.file(_key(stream, cut)) as path:
        pq.write_table(versions, path, compression="zstd")


def keep_versions(records: Records, stream: Stream, cut: int, number: int) -> None:
    """Keep a cut's versions under another number too; harmless where it has none."""
    data = records.get(_key(stream, cut))
    if data is not None:
        records.put(_key(stream, number), data)


def follows(records: Records, stream: Stream, cut: int) -> tuple[frozenset[int], frozenset[int]]:
    """What a published slice of labels comes after: the slices of inferences that it joined, and the slices of
    ground truth that hold earlier labels of its ids. Raises Retryable where its versions are gone."""
    data = records.get(_key(stream, cut))
    if data is None:
        raise _gone(stream, cut)
    table = pq.read_table(pa.BufferReader(data), columns=["sent", "inference", "after"])
    sent = table.filter(table.column("sent"))
    return (
        frozenset(sent.column("inference").drop_null().to_pylist()),
        frozenset(sent.column("after").drop_null().to_pylist()),
    )


def load_history(
    connection: DuckDBPyConnection,
    staging: Staging,
    records: Records,
    stream: Stream,
    published: Mapping[int, int],
    *,
    ids: str,
) -> None:
    """Fill the temporary table `tidepost_last`: of each id that the SQL `ids` gives, the newest label that was
    published and not refused: `id`, `known`, `source`, `content`, `inference`, and `holder`, the slice that holds it.
    And `tidepost_history` with all that were.

    published: cut → sequence, of all published slices that join inferences of the days of these ids
    Raises Retryable where a file is not readable.
    """
    rows, values = _rows(connection, staging, records, stream, published)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE tidepost_history AS "
        f"SELECT id, known, source, content, inference, event, sequence, "
        f"CASE WHEN sent THEN sequence ELSE after END AS holder FROM ({rows}) WHERE id IN ({ids})",
        dict(values),
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE tidepost_last AS SELECT * EXCLUDE (sequence) FROM tidepost_history "
        "QUALIFY row_number() OVER (PARTITION BY id ORDER BY known DESC, source DESC, sequence DESC) = 1"
    )


def load_labelled(
    connection: DuckDBPyConnection,
    area: StagingArea,
    stream: Stream,
    published: Mapping[int, int],
    *,
    window: Range,
) -> None:
    """Fill the temporary table `tidepost_labelled` with `id`, `event` and `label_at` of each label that was published
    and not refused, of inferences in a window of microseconds. Raises as `load_history` does."""
    rows, values = _rows(connection, area, area, stream, published)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE tidepost_labelled AS SELECT id, event, label_at FROM ({rows}) "
        f"WHERE sent AND event >= $start AND event < $end",
        {**values, "start": window.start, "end": window.end},
    )


def load_versions(
    connection: DuckDBPyConnection,
    staging: Staging,
    records: Records,
    stream: Stream,
    published: Mapping[int, int],
) -> None:
    """Fill the temporary table `tidepost_versions` with all versions of published slices, the `sequence` of each, and
    whether a destination has `refused` it. Raises as `load_history` does."""
    rows, values = _rows(connection, staging, records, stream, published, refused=True)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE tidepost_versions AS {rows}", dict(values))


def _rows(
    connection: DuckDBPyConnection,
    staging: Staging,
    records: Records,
    stream: Stream,
    published: Mapping[int, int],
    *,
    refused: bool = False,
) -> tuple[str, Mapping[str, object]]:
    """SQL over the versions of published slices, with the `sequence` of each, without those that were `refused`, or
    with all and that column."""
    files = [Part(0, _path(cut), 0, 0, "", 0, 0, {}) for cut in published]
    slices = pa.table(
        {"cut": pa.array(list(published), pa.int64()), "sequence": pa.array(list(published.values()), pa.int64())}
    )
    tombstones = [
        (sequence, id_)
        for sequence, each in read_tombstones(records, stream, set(published.values())).items()
        for id_ in each
    ]
    gone = pa.table(
        {
            "sequence": pa.array([sequence for sequence, _ in tombstones], pa.int64()),
            "id": pa.array([id_ for _, id_ in tombstones], pa.string()),
        }
    )
    relation = staging.relation(connection, stream, files) if files else None
    connection.register("tidepost_slices", slices)
    connection.register("tidepost_no_labels", gone)
    connection.register("tidepost_no_versions", NO_VERSIONS)
    rows = "SELECT *, '' AS _part FROM tidepost_no_versions" if relation is None else relation.sql
    gone_too = "(s.sequence, v.id) IN (SELECT (sequence, id) FROM tidepost_no_labels)"
    told, left = (f", {gone_too} AS refused", "true") if refused else ("", f"NOT {gone_too}")
    sql = (
        f"SELECT v.* EXCLUDE (_part), s.sequence{told} FROM ({rows}) AS v JOIN tidepost_slices AS s "
        f"ON CAST(regexp_extract(_part, '([0-9]+)[.]parquet$', 1) AS BIGINT) = s.cut "
        f"WHERE {left}"
    )
    return sql, {} if relation is None else relation.values


def _path(cut: int) -> str:
    return f"{_FOLDER}/{cut:08d}.parquet"


def _key(stream: Stream, cut: int) -> str:
    return f"{stream.prefix}/{_path(cut)}"


def _gone(stream: Stream, cut: int) -> Retryable:
    return Retryable(
        f"staging: {_key(stream, cut)} should be there and is not",
        safe="Nothing was sent: without it nobody knows which labels come first.",
        hint="Bring it back from a copy of the staging.",
    )
