"""Which of a cut's rows repeat an id: of the published slices (the index), or of the cut itself.

Works on the finished files in the scratch folder, so the source is not read again, and rewrites only those files
that lose rows.

| the row's id is                | and its content is | so it is                                            |
|--------------------------------|--------------------|-----------------------------------------------------|
| in the index                   | the same           | a duplicate: dropped and counted; in a scan that     |
|                                |                    | looks again, known                                  |
| in the index                   | another            | `changed_after_sent`: what was sent is immutable    |
| in the cut more than once      | the same           | a duplicate                                         |
| in the cut more than once      | another            | `conflicting_id`, but for the smallest (cursor, content) |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidepost.engine import BATCH_ROWS
from tidepost.model import MICROSECONDS_AN_HOUR
from tidepost.rows.index import Index, content_of, row_as_json
from tidepost.rows.rejects import NO_REJECTS
from tidepost.rows.shape import ID, TIMESTAMP
from tidepost.rows.writer import KEYS, Draft, ParquetFile
from tidepost.sql import quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DUPLICATE, KNOWN, CHANGED, CONFLICT = "duplicate", "known", "changed_after_sent", "conflicting_id"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What is left of the drafts, how many rows were duplicates, and the rows to set aside.

    rejects: columns `reason`, `partner_inference_id`, `row` (the staged row as JSON)
    """

    drafts: tuple[Draft, ...]
    duplicates: int
    known: int
    rejects: pa.Table


def resolve(
    connection: DuckDBPyConnection,
    drafts: Sequence[Draft],
    *,
    columns: Sequence[str],
    index: Index | None,
    refused: Index | None = None,
    inside: bool,
    again: bool = False,
) -> Resolved:
    """Drop and set aside what repeats an id.

    columns: the staged ones; equal content means equal values in all of them
    index:   the published rows to look ids up in, or None where there are none
    refused: published rows that a destination refused: a row that is equal to one of them is known, any other of its
             id may go
    inside:  look for repeats among the drafts too; needs the writer's `keys.arrow` beside them, in its state
    again:   the rows were scanned before: one that is published is known, and no duplicate
    """
    if not drafts:
        return Resolved((), 0, 0, NO_REJECTS)
    connection.execute("CREATE OR REPLACE TEMP TABLE tidepost_doomed (part INTEGER, row BIGINT, verdict VARCHAR)")
    rows = rows_of(drafts)
    if index is not None:
        _against(connection, rows, columns, index, same=KNOWN if again else DUPLICATE, other=CHANGED)
    if refused is not None:
        _against(connection, rows, columns, refused, same=KNOWN, other=None)
    if inside:
        _inside(connection, drafts, rows, columns)
    counts = {
        int(part): (int(lost), int(duplicates), int(known))
        for part, lost, duplicates, known in connection.execute(
            "SELECT part, count(*), count(*) FILTER (verdict = $duplicate), count(*) FILTER (verdict = $known) "
            "FROM tidepost_doomed GROUP BY part",
            {"duplicate": DUPLICATE, "known": KNOWN},
        ).fetchall()
    }
    if not counts:
        return Resolved(tuple(drafts), 0, 0, NO_REJECTS)
    rejects = _rejects(connection, rows, columns)
    left = [
        draft if draft.part.number not in counts else without(connection, draft, counts[draft.part.number][0])
        for draft in drafts
    ]
    return Resolved(
        tuple(draft for draft in left if draft is not None),
        sum(duplicates for _, duplicates, _ in counts.values()),
        sum(known for _, _, known in counts.values()),
        rejects,
    )


def earliest(connection: DuckDBPyConnection, folder: Path) -> int | str | None:
    """The smallest `CURSOR` of the rows that the last `resolve` left; None where it left none. `folder` holds their
    `keys.arrow`, as it was written."""
    with pa.memory_map(str(folder / KEYS)) as mapped:
        keys = pa.ipc.open_file(mapped).read_all()
        connection.register("tidepost_keys", keys)
        try:
            left = "(part, row) NOT IN (SELECT (part, row) FROM tidepost_doomed)"
            found = connection.execute(f"SELECT min(cursor) FROM tidepost_keys WHERE {left}").fetchall()[0][0]
        finally:
            connection.unregister("tidepost_keys")
            del keys
    return found if found is None or isinstance(found, str) else int(found)


def rows_of(drafts: Sequence[Draft]) -> str:
    """SQL over the drafts' rows, with `_part` and `_row`."""
    files = ", ".join(quote_literal(str(draft.file)) for draft in drafts)
    numbers = " ".join(f"WHEN {quote_literal(str(draft.file))} THEN {draft.part.number}" for draft in drafts)
    return (
        f"SELECT * EXCLUDE (_file, file_row_number), CASE _file {numbers} END AS _part, file_row_number AS _row "
        f"FROM read_parquet([{files}], filename = '_file', file_row_number = true, hive_partitioning = false)"
    )


def _against(
    connection: DuckDBPyConnection, rows: str, columns: Sequence[str], index: Index, *, same: str, other: str | None
) -> None:
    """Give rows whose id is in the index their verdict, by content; with None for `other`, such rows may go."""
    content, ids = content_of(columns), index.ids()
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE tidepost_known AS SELECT DISTINCT {ID} AS id FROM ({rows}) "
        f"WHERE {ID} IN (SELECT id FROM ({ids.sql}))",
        dict(ids.values),
    )
    if not connection.execute("SELECT count(*) FROM tidepost_known").fetchall()[0][0]:
        return
    sent = index.contents(columns, f"{ID} IN (SELECT id FROM tidepost_known)")
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE tidepost_sent AS SELECT DISTINCT id, content FROM ({sent.sql})",
        dict(sent.values),
    )
    connection.execute(
        f"INSERT INTO tidepost_doomed SELECT * FROM (SELECT _part, _row, "
        f"CASE WHEN (id, content) IN (SELECT (id, content) FROM tidepost_sent) THEN $same ELSE $other END AS verdict "
        f"FROM (SELECT _part, _row, {ID} AS id, {content} AS content FROM ({rows}) AS r "
        f"WHERE {ID} IN (SELECT id FROM tidepost_known))) WHERE verdict IS NOT NULL "
        f"AND (_part, _row) NOT IN (SELECT (part, row) FROM tidepost_doomed)",
        {"same": same, "other": other},
    )


def _inside(connection: DuckDBPyConnection, drafts: Sequence[Draft], rows: str, columns: Sequence[str]) -> None:
    with pa.memory_map(str(drafts[0].file.parent / KEYS)) as mapped:
        keys = pa.ipc.open_file(mapped).read_all()
        connection.register("tidepost_keys", keys)
        try:
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE tidepost_repeated AS "
                "SELECT hash FROM tidepost_keys GROUP BY hash HAVING count(*) > 1"
            )
            if not connection.execute("SELECT count(*) FROM tidepost_repeated").fetchall()[0][0]:
                return
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE tidepost_suspects AS SELECT part AS _part, row AS _row, cursor "
                "FROM tidepost_keys WHERE hash IN (SELECT hash FROM tidepost_repeated) "
                "AND (part, row) NOT IN (SELECT (part, row) FROM tidepost_doomed)"
            )
        finally:
            connection.unregister("tidepost_keys")
            del keys
    connection.execute(
        f"INSERT INTO tidepost_doomed "
        f"SELECT _part, _row, CASE WHEN content = first THEN $duplicate ELSE $conflict END FROM ("
        f"SELECT _part, _row, content, first_value(content) OVER best AS first, row_number() OVER best AS place "
        f"FROM (SELECT _part, _row, s.cursor AS cursor, r.{ID} AS id, {content_of(columns)} AS content "
        f"FROM ({rows}) AS r JOIN tidepost_suspects AS s USING (_part, _row)) "
        f"WINDOW best AS (PARTITION BY id ORDER BY cursor, content, _part, _row)) WHERE place > 1",
        {"duplicate": DUPLICATE, "conflict": CONFLICT},
    )


def _rejects(connection: DuckDBPyConnection, rows: str, columns: Sequence[str]) -> pa.Table:
    found = connection.execute(
        f"SELECT lost.verdict AS reason, r.{ID}, {row_as_json(columns)} AS row FROM ({rows}) AS r "
        f"JOIN (SELECT part AS _part, row AS _row, verdict FROM tidepost_doomed "
        f"WHERE verdict NOT IN ($duplicate, $known)) AS lost USING (_part, _row) ORDER BY _part, _row",
        {"duplicate": DUPLICATE, "known": KNOWN},
    )
    return found.to_arrow_table().cast(NO_REJECTS.schema)


def without(connection: DuckDBPyConnection, draft: Draft, lost: int, time: str = TIMESTAMP) -> Draft | None:
    """The draft without the `lost` rows of it in `tidepost_doomed` (part, row), as a new file; None where none is
    left. `time` is the column of the event's time."""
    if lost == draft.part.rows:
        return None
    doomed = connection.execute(
        "SELECT row FROM tidepost_doomed WHERE part = $part", {"part": draft.part.number}
    ).to_arrow_table()
    gone = doomed.column("row").combine_chunks()
    path = draft.file.with_name(f"{draft.file.stem}-again.parquet")
    hours: dict[int, int] = {}
    ends: list[int] = []
    with pq.ParquetFile(draft.file) as old:
        new = ParquetFile(path, old.schema_arrow)
        first = 0
        for batch in old.iter_batches(batch_size=BATCH_ROWS):
            numbers = pa.arange(first, first + batch.num_rows)
            first += batch.num_rows
            kept = batch.filter(pc.invert(pc.is_in(numbers, gone)))
            if kept.num_rows:
                new.write(pa.Table.from_batches([kept]))
                times = kept.column(time).cast(pa.int64())
                ends += pc.min_max(times).as_py().values()
                for hour, rows in _by_hour(times).items():
                    hours[hour] = hours.get(hour, 0) + rows
        sha256 = new.close()
    path.replace(draft.file)
    part = replace(
        draft.part,
        rows=draft.part.rows - lost,
        size=draft.file.stat().st_size,
        sha256=sha256,
        event_min=min(ends),
        event_max=max(ends),
        hours=dict(sorted(hours.items())),
    )
    return Draft(draft.file, part)


def _by_hour(times: pa.Array) -> Mapping[int, int]:
    """Rows by hour of times in microseconds."""
    down = pc.divide(times, MICROSECONDS_AN_HOUR)  # toward zero, so one too many before 1970
    hours = pc.subtract(down, pc.cast(pc.greater(pc.multiply(down, MICROSECONDS_AN_HOUR), times), pa.int64()))
    return {counted["values"]: counted["counts"] for counted in pc.value_counts(hours).to_pylist()}
