"""The index: the ids of all published rows, by event time, and what tells their contents apart.

Of a part whose file is kept, the file itself; of one that was purged, its sidecar:

`{job}/{stream}/_tidepost/ids/{slice}-{part}.parquet`   partner_inference_id, inference_timestamp, content (16 bytes)

Absence is never "no ids": a file or sidecar that should be there and is not stops whoever asks. Rows that the
destination provably refused, of several each, have left the index, so that corrected ones can go: what one of them
took is never sent again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from tidepost.engine import BATCH_ROWS
from tidepost.errors import Misconfigured, Retryable
from tidepost.model import Part, Stream
from tidepost.ports import PartRef, Records, Relation, Staging
from tidepost.rows.rejects import read_tombstones
from tidepost.rows.shape import ID, TIMESTAMP
from tidepost.sql import quote_identifier, quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CONTENT: Final = "content"
Which: TypeAlias = Literal["sent", "refused", "all"]
SEQUENCE: Final = "CAST(regexp_extract(_part, '([0-9]+)-[0-9]+[.]parquet$', 1) AS BIGINT)"
"""SQL of the slice that holds a row of `Staging.relation`."""
_SIDECAR: Final = pa.schema([(ID, pa.string()), (TIMESTAMP, pa.timestamp("us", "UTC")), (CONTENT, pa.binary(16))])
_COLUMNS: Final = b"tidepost:columns"


def row_as_json(columns: Sequence[str]) -> str:
    """SQL of columns of a row `r` as JSON text."""
    pairs = ", ".join(f"{quote_literal(name)}: r.{quote_identifier(name)}" for name in columns)
    return f"CAST(to_json({{{pairs}}}) AS VARCHAR)"


def content_of(columns: Sequence[str]) -> str:
    """SQL of the content of a row `r` as one text that is equal where all columns are."""
    return f"md5({row_as_json(sorted(columns))})"


@dataclass(frozen=True, slots=True)
class Index:
    """Published rows to look ids up in; at least one of both is there.

    kept:     SQL over the rows of parts whose files are kept, with all staged columns and `_part`
    sidecars: SQL over those of purged parts, with the columns of a sidecar and `_part`
    time:     the staged column that is the event's time
    """

    kept: Relation | None = None
    sidecars: Relation | None = None
    time: str = TIMESTAMP

    def ids(self) -> Relation:
        """SQL of `id`, one row for each published row."""
        found = [one for one in (self.kept, self.sidecars) if one is not None]
        return _union([Relation(f"SELECT {ID} AS id FROM ({one.sql})", one.values) for one in found])

    def slices(self, where: str) -> Relation:
        """SQL of `id`, `event` (microseconds) and `sequence` (of the slice), of the rows that a condition on
        `partner_inference_id` chooses."""
        columns = f"{ID} AS id, {SEQUENCE} AS sequence"
        found = [
            Relation(
                f"SELECT {columns}, epoch_us({time}) AS event FROM ({one.sql}) WHERE {where}",
                one.values,
            )
            for one, time in ((self.kept, self.time), (self.sidecars, TIMESTAMP))
            if one is not None
        ]
        return _union(found)

    def contents(self, columns: Sequence[str], where: str = "true") -> Relation:
        """SQL of `id`, `event` (microseconds), `sequence` (of the slice) and `content`, of the rows that a condition
        on `partner_inference_id` chooses; content is computed for these alone.

        columns: the staged ones; equal content means equal values in all of them
        """
        found: list[Relation] = []
        both = (
            (self.kept, self.time, content_of(columns)),
            (self.sidecars, TIMESTAMP, f"lower(hex(r.{CONTENT}))"),
        )
        for one, time, content in both:
            if one is not None:
                sql = (
                    f"SELECT {ID} AS id, epoch_us({time}) AS event, {SEQUENCE} AS sequence, "
                    f"{content} AS {CONTENT} "
                    f"FROM (SELECT * FROM ({one.sql}) WHERE {where}) AS r"
                )
                found.append(Relation(sql, one.values))
        return _union(found)


def index_of(
    connection: DuckDBPyConnection,
    staging: Staging,
    records: Records,
    stream: Stream,
    *,
    parts: Sequence[PartRef],
    which: Which = "sent",
    destinations: Collection[str] = (),
) -> Index | None:
    """The published rows of some parts; None where there is none to look at.

    which: those that were not provably refused, those that were, by each of `destinations`, or all
    Raises Retryable where a file or a sidecar is not readable.
    """
    if not parts:
        return None
    kept = [one.part for one in parts if not one.part.purged]
    gone = [sidecar_of(one) for one in parts if one.part.purged]
    sequences = {one.sequence for one in parts}
    tombstones = {} if which == "all" else read_tombstones(records, stream, sequences, destinations)
    if which == "refused" and not tombstones:
        return None
    if tombstones:
        each = [(sequence, id_) for sequence, ids in tombstones.items() for id_ in ids]
        table = pa.table({"sequence": [sequence for sequence, _ in each], "id": [id_ for _, id_ in each]})
        connection.register("tidepost_tombstones", table)

    def relation(of: Sequence[Part]) -> Relation | None:
        if not of:
            return None
        rows = staging.relation(connection, stream, of)
        if not tombstones:
            return rows
        chosen = f"({SEQUENCE}, {ID}) IN (SELECT (sequence, id) FROM tidepost_tombstones) = {which == 'refused'}"
        return Relation(f"SELECT * FROM ({rows.sql}) WHERE {chosen}", rows.values)

    return Index(relation(kept), relation(gone), stream.name.time)


def sidecars(stream: Stream) -> str:
    """The prefix of a stream's sidecars."""
    return f"{stream.prefix}/_tidepost/ids"


def sidecar_of(ref: PartRef) -> Part:
    """A part's sidecar, as `Staging.relation` reads it: below the stream's folder, as parts are."""
    return replace(ref.part, path=f"_tidepost/ids/{ref.sequence:08d}-{ref.part.number:05d}.parquet")


def write_sidecar(
    connection: DuckDBPyConnection,
    staging: Staging,
    records: Records,
    stream: Stream,
    ref: PartRef,
    *,
    columns: Mapping[str, str],
) -> int:
    """Write a part's sidecar from its file, durably, and return its size in bytes; repeating it is harmless.

    columns: the staged ones, name → DuckDB type
    Raises Retryable where the file is not readable, Misconfigured where it is not what was published.
    """
    rows = staging.relation(connection, stream, [ref.part])
    content = f"unhex({content_of(tuple(columns))}) AS {CONTENT}"
    sql = f"SELECT {ID}, {stream.name.time} AS {TIMESTAMP}, {content} FROM ({rows.sql}) AS r"
    schema = _SIDECAR.with_metadata({_COLUMNS: json.dumps(dict(columns)).encode()})
    written = 0
    with records.file(f"{stream.prefix}/{sidecar_of(ref).path}") as path:
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
            for batch in connection.execute(sql, dict(rows.values)).to_arrow_reader(BATCH_ROWS):
                writer.write_batch(batch.cast(_SIDECAR).replace_schema_metadata(schema.metadata))
                written += batch.num_rows
        size = path.stat().st_size
        if written != ref.part.rows:
            raise Misconfigured(
                f"staging: {ref.part.path} holds {written} rows, and {ref.part.rows} were published",
                safe="Nothing was dropped.",
                hint="Bring the file back from a copy of the staging.",
            )
    return size


def columns_of(records: Records, stream: Stream, ref: PartRef) -> dict[str, str]:
    """The staged columns, name → DuckDB type, as a sidecar has kept them. Raises Retryable where it is gone."""
    data = records.get(f"{stream.prefix}/{sidecar_of(ref).path}")
    if data is None:
        raise Retryable(f"staging: {sidecar_of(ref).path} should be there and is not")
    found = (pq.read_schema(pa.BufferReader(data)).metadata or {}).get(_COLUMNS, b"{}")
    return {str(name): str(kind) for name, kind in json.loads(found).items()}


def _union(of: Sequence[Relation]) -> Relation:
    values: dict[str, object] = {}
    for one in of:
        values |= one.values
    return Relation(" UNION ALL ".join(one.sql for one in of), values)
