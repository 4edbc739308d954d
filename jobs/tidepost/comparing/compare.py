"""The joins of reconciling, in DuckDB: tables of ids that spill to disk, and the questions put to them.

| table     | rows                                                                            |
|-----------|---------------------------------------------------------------------------------|
| source    | of the source: id, event, content, cursor, reason                               |
| published | of the index: id, event, content, sequence; `inside`: to be compared            |
| refused   | ids that destinations refused, by slice and destination                         |
| verdicts  | rows of the source that have no published row of their own, and what they are   |
| gone      | published rows that have no row in the source                                   |
| shown     | ids that a destination shows, with the number of copies                         |
| outcomes  | for each destination, what became of each published row; doubled, others        |
| dropped   | slices of which the source has let go rows, which is no difference then         |
| places    | where slices were read: sequence, the number of the lane                        |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from tidepost.comparing.lanes import STRETCH, Lane
from tidepost.cursor import UUIDS, CursorKind, CursorType
from tidepost.ledger.comparing import SKIPPED
from tidepost.model import MICROSECONDS_AN_HOUR, DeliveryState, Proof, Stream
from tidepost.ports import CURSOR, Destination, PartRef, Records, Relation, Staging
from tidepost.ranges import Range, Ranges
from tidepost.rows.index import content_of, index_of
from tidepost.rows.rejects import read_refused, read_rejects
from tidepost.rows.repeats import CHANGED, CONFLICT
from tidepost.rows.shape import EVENT, ID, REASON, Shape
from tidepost.sql import quote_identifier, quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_RANGES: Final = 16
"""Of missing rows: ranges that are close to each other become one."""
_T: Final = "tidepost_r_"
_TABLES: Final = (
    "source (id VARCHAR, event BIGINT, content UBIGINT, cursor HUGEINT, reason VARCHAR)",
    "published (id VARCHAR, event BIGINT, content UBIGINT, sequence BIGINT, inside BOOLEAN)",
    "refused (sequence BIGINT, destination VARCHAR, id VARCHAR)",
    "verdicts (id VARCHAR, event BIGINT, content UBIGINT, cursor HUGEINT, what VARCHAR, reason VARCHAR)",
    "gone (id VARCHAR, event BIGINT, sequence BIGINT)",
    "outcomes (destination VARCHAR, id VARCHAR, event BIGINT, sequence BIGINT, what VARCHAR, copies BIGINT)",
    "dropped (sequence BIGINT)",
    "places (sequence BIGINT, lane BIGINT)",
)
_AT_CURSOR: Final = f"CAST(cursor // {STRETCH} AS BIGINT)"
_AT_SLICE: Final = f"(SELECT map_from_entries(list((p.sequence, p.lane))) FROM {_T}places AS p)[sequence]"
"""SQL of the number of a row's lane, by its position or its slice."""
_CONFLICTS: Final = (CHANGED, CONFLICT)


@dataclass(frozen=True, slots=True)
class Difference:
    """One id that differs.

    what:   missing, lost, doubled, others, conflicts, rejected, orphans or gone
    event:  its event time in microseconds; of others, the hour or day in which it is; None where it has none
    detail: why it was rejected, or how many copies there are
    """

    what: str
    id: str | None
    event: int | None
    destination: str | None
    sequence: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    width: microseconds in an hour or a day, by which rows are counted
    kind:  of the source's cursor
    """

    connection: DuckDBPyConnection
    width: int
    kind: CursorKind

    @property
    def _zero(self) -> int:
        """What is 0 among the cursors of the tables: UUIDs are halved into negative and positive integers."""
        return UUIDS // 2 if self.kind.type is CursorType.UUID else 0

    def _cursor(self, carried: str) -> str:
        """SQL of a relation's `CURSOR` as the tables have it."""
        if self.kind.type is not CursorType.UUID:
            return carried
        digits = f"replace({carried}, '-', '')"
        high, low = (f"CAST(CAST('0x' || {digits}[{part}] AS UBIGINT) AS HUGEINT)" for part in ("1:16", "17:32"))
        return f"(({high} - 9223372036854775808) * 18446744073709551616 + {low})"

    def begin(self) -> None:
        for table in _TABLES:
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {_T}{table}")

    # ---------------------------------------------------------------------------------------------- reading

    def read_source(self, target: Shape, relation: Relation, *, events: Range | None, base: int = 0) -> None:
        """base: what is added to each position"""
        own = {name: quote_identifier(name) for name in (EVENT, CURSOR, REASON)}
        within = "true" if events is None else f"r.{own[EVENT]} >= $first AND r.{own[EVENT]} < $last"
        cursor = self._cursor(f"r.{own[CURSOR]}")
        self.connection.execute(
            f"INSERT INTO {_T}source SELECT r.{ID}, r.{own[EVENT]}, "
            f"CASE WHEN r.{own[REASON]} IS NULL THEN hash({self.content(tuple(target.staged))}) END, "
            f"{cursor} + {base}::HUGEINT, r.{own[REASON]} "
            f"FROM ({target.sql(self.rows(relation, target), judged=relation.judged)}) AS r WHERE {within}",
            {**relation.values, **_ends(events)},
        )

    def content(self, columns: Sequence[str]) -> str:
        """SQL of what has to be equal of a row `r`, besides its id."""
        return content_of(columns)

    def rows(self, relation: Relation, target: Shape) -> str:
        """SQL of the rows of the source that count."""
        return relation.sql

    def place(self, lanes: Sequence[Lane]) -> None:
        """Remember where slices were read, and which of them the source has not whole any more."""
        for one in lanes:
            self._insert("places", {"sequence": [each.sequence for each in one.slices], "lane": one.number})
            self._insert("dropped", {"sequence": sorted(one.dropped)})

    def events(self) -> Range | None:
        """The event times of the source's rows that can be sent; None where there are none."""
        ((first, last),) = self._all(f"SELECT min(event), max(event) FROM {_T}source WHERE reason IS NULL")
        return None if first is None else Range(int(first), int(last) + 1)

    def read_index(
        self,
        staging: Staging,
        records: Records,
        stream: Stream,
        *,
        parts: Sequence[PartRef],
        columns: Sequence[str],
        inside: frozenset[int] | None,
        events: Range | None,
    ) -> None:
        """inside: the slices that are compared, or None for all; of these, the rows with `events`."""
        index = index_of(self.connection, staging, records, stream, parts=parts, which="all")
        if index is not None:
            rows = index.contents(columns)
            chosen = "true"
            if inside is not None:
                self.connection.register(f"{_T}inside", pa.table({"sequence": pa.array(sorted(inside), pa.int64())}))
                chosen = f"sequence IN (SELECT sequence FROM {_T}inside)"
            if events is not None:
                chosen += " AND event >= $first AND event < $last"
            self.connection.execute(
                f"INSERT INTO {_T}published SELECT id, event, hash(content), sequence, {chosen} FROM ({rows.sql})",
                {**rows.values, **_ends(events)},
            )
        self._read_refused(records, stream)

    def _read_refused(self, records: Records, stream: Stream) -> None:
        for sequence, destination, ids in read_refused(records, stream):
            self._insert("refused", {"sequence": sequence, "destination": destination, "id": ids})

    # --------------------------------------------------------------------------------------------- matching

    def match(self, scanned: Ranges) -> None:
        """Find for each row of the source its published row, and say what the others are."""
        source = (
            f"(SELECT *, row_number() OVER (PARTITION BY id, content ORDER BY cursor) AS n "
            f"FROM {_T}source WHERE reason IS NULL)"
        )
        published = (
            f"(SELECT *, row_number() OVER (PARTITION BY id, content ORDER BY sequence) AS n "
            f"FROM {_T}published WHERE inside)"
        )
        live = f"(SELECT id FROM {_T}published WHERE (sequence, id) NOT IN (SELECT (sequence, id) FROM {_T}refused))"
        self._run(
            f"INSERT INTO {_T}gone SELECT id, event, sequence FROM {published} ANTI JOIN {source} "
            f"USING (id, content, n)"
        )
        self._run(
            f"CREATE OR REPLACE TEMP TABLE {_T}left AS SELECT id, event, content, cursor FROM {source} "
            f"ANTI JOIN {published} USING (id, content, n)"
        )
        self._run(
            f"INSERT INTO {_T}verdicts SELECT id, event, content, cursor, CASE "
            f"WHEN (id, content) IN (SELECT (id, content) FROM {_T}published) THEN 'duplicates' "
            f"WHEN id IN {live} THEN 'conflicts' END, '{CHANGED}' FROM {_T}left"
        )
        self._scanned(scanned)
        self._run(
            f"CREATE OR REPLACE TEMP TABLE {_T}fresh AS SELECT id, event, content, cursor, CASE "
            f"WHEN place > 1 AND content = first THEN 'duplicates' WHEN place > 1 THEN 'conflicts' "
            f"WHEN EXISTS (SELECT 1 FROM {_T}scanned AS s WHERE v.cursor >= s.first AND v.cursor < s.last) "
            f"THEN 'missing' ELSE 'waiting' END AS what, '{CONFLICT}' AS reason FROM ("
            f"SELECT *, first_value(content) OVER best AS first, row_number() OVER best AS place "
            f"FROM {_T}verdicts WHERE what IS NULL "
            f"WINDOW best AS (PARTITION BY id ORDER BY cursor, content)) AS v"
        )
        self._run(f"DELETE FROM {_T}verdicts WHERE what IS NULL")
        self._run(f"INSERT INTO {_T}verdicts SELECT * FROM {_T}fresh")

    def tell_missing(self, staging: Staging, records: Records, stream: Stream, since: Sequence[PartRef]) -> None:
        """Of what seems missing, tell what was published since, and what was set aside when it was scanned."""
        index = index_of(self.connection, staging, records, stream, parts=since, which="all")
        if index is not None:
            ids = index.ids()
            self.connection.execute(
                f"UPDATE {_T}verdicts SET what = 'waiting' WHERE what = 'missing' AND id IN ({ids.sql})",
                dict(ids.values),
            )
        if not self._count(f"{_T}verdicts WHERE what = 'missing'"):
            return
        for key in records.list(f"{stream.prefix}/_tidepost/rejects"):
            found = read_rejects(records, key)
            self.connection.register(f"{_T}rejects", found)
            self._run(
                f"UPDATE {_T}verdicts AS v SET what = 'rejected', reason = r.reason FROM {_T}rejects AS r "
                f"WHERE v.what = 'missing' AND v.id = r.{ID} AND r.reason NOT IN {_CONFLICTS}"
            )

    # ------------------------------------------------------------------------------------------ destinations

    def ask(self, destination: Destination, stream: Stream, states: dict[int, str], *, events: Range | None) -> None:
        """Ask a destination for its ids, if it shows any, and say what became of each published row there."""
        self._run(f"CREATE OR REPLACE TEMP TABLE {_T}ids (id VARCHAR, start BIGINT)")
        for window in self._windows(events) if destination.proof is Proof.ROWS else ():
            for ids in destination.ids(stream.name, window):
                self._insert("ids", {"id": list(ids), "start": window.start // self.width * self.width})
        self._run(
            f"CREATE OR REPLACE TEMP TABLE {_T}shown AS SELECT id, min(start) AS start, count(*) AS copies "
            f"FROM {_T}ids GROUP BY id"
        )
        known = pa.table(
            {"sequence": pa.array(states.keys(), pa.int64()), "state": pa.array(states.values(), pa.string())}
        )
        self.connection.register(f"{_T}states", known)
        name = {"destination": destination.name}
        refused = f"(SELECT (sequence, id) FROM {_T}refused WHERE destination = $destination)"
        self.connection.execute(
            f"INSERT INTO {_T}outcomes SELECT $destination, p.id, p.event, p.sequence, CASE "
            f"WHEN (p.sequence, p.id) IN {refused} THEN 'refused' WHEN t.id IS NOT NULL THEN 'arrived' "
            f"WHEN s.state = '{DeliveryState.HELD}' THEN 'held' WHEN s.state = '{SKIPPED}' THEN 'skipped' "
            f"WHEN s.state = '{DeliveryState.CLOSED}' THEN '{unshown(destination)}' ELSE 'in_flight' END, "
            f"coalesce(t.copies, 0) "
            f"FROM {_T}published AS p LEFT JOIN {_T}shown AS t ON p.id = t.id "
            f"LEFT JOIN {_T}states AS s ON p.sequence = s.sequence WHERE p.inside",
            name,
        )
        self.connection.execute(
            f"INSERT INTO {_T}outcomes SELECT $destination, id, start, NULL, 'others', copies FROM {_T}shown "
            f"WHERE id NOT IN (SELECT id FROM {_T}published WHERE (sequence, id) NOT IN {refused})",
            name,
        )

    def _windows(self, events: Range | None) -> Iterator[Range]:
        """The event times to ask for, in microseconds, each within one hour or day: those that rows of the source or
        of the index have, or all of a range that was asked for."""
        hour = MICROSECONDS_AN_HOUR
        if events is not None:
            starts = range(events.start // self.width, -(-events.end // self.width))
            cut = (Range(one * self.width, (one + 1) * self.width).clamp(events) for one in starts)
            yield from (one for one in cut if one is not None)
            return
        found = self._all(
            f"SELECT DISTINCT {_floor('event', hour)} FROM (SELECT event FROM {_T}published WHERE inside "
            f"UNION ALL SELECT event FROM {_T}source WHERE reason IS NULL)"
        )
        days: dict[int, list[Range]] = {}
        for (start,) in found:
            days.setdefault(int(start) // self.width, []).append(Range(int(start), int(start) + hour))
        for _, hours in sorted(days.items()):
            yield from Ranges.of(hours)

    # ---------------------------------------------------------------------------------------------- results

    def counted_here(self, *, by_lane: bool = False) -> dict[int | None, dict[str, int]]:
        """Rows by hour or day, or by the number of their lane, as `reconcile.Here` names them."""
        found: dict[int | None, dict[str, int]] = {}
        for name, rows, at in (
            ("source", f"{_T}source", _AT_CURSOR),
            ("rejected", f"{_T}source WHERE reason IS NOT NULL", _AT_CURSOR),
            ("gone", f"{_T}gone", _AT_SLICE),
            ("published", f"{_T}published WHERE inside", _AT_SLICE),
        ):
            for key, count in self._counted(rows, at if by_lane else self._start):
                found.setdefault(key, {})[name] = count
        for name in (
            "duplicates",
            "conflicts",
            "rejected",
            "waiting",
            "missing",
            "superseded",
            "unmatched",
            "orphans",
        ):
            at = _AT_CURSOR if by_lane else self._start
            for key, count in self._counted(f"{_T}verdicts WHERE what = '{name}'", at):
                one = found.setdefault(key, {})
                one[name] = one.get(name, 0) + count
        return found

    def counted_there(self, destination: str, *, by_lane: bool = False) -> dict[int | None, dict[str, int]]:
        """The same at one destination, as `reconcile.There` names them."""
        found: dict[int | None, dict[str, int]] = {}
        key = _AT_SLICE if by_lane else self._start
        sql = (
            f"SELECT {key}, what, count(*), sum(copies), sum(greatest(copies - 1, 0)) "
            f"FROM {_T}outcomes WHERE destination = $destination GROUP BY ALL"
        )
        for at, what, rows, copies, more in self._all(sql, destination=destination):
            one = found.setdefault(at, {})
            one[what] = int(copies) if what == "others" else int(rows)
            if what == "arrived":
                one["doubled"] = int(more)
        return found

    def reasons(self) -> dict[str, int]:
        """Why rows were rejected → rows."""
        sql = (
            f"SELECT reason, count(*) FROM (SELECT reason FROM {_T}source WHERE reason IS NOT NULL UNION ALL "
            f"SELECT reason FROM {_T}verdicts WHERE what = 'rejected') GROUP BY reason ORDER BY reason"
        )
        return {str(reason): int(rows) for reason, rows in self._all(sql)}

    def by_slice(self, destination: str, what: str) -> dict[int, int]:
        """Slice → rows of it of which something, such as lost, became at a destination."""
        sql = (
            f"SELECT sequence, count(*) FROM {_T}outcomes WHERE destination = $destination AND what = $what "
            f"GROUP BY sequence ORDER BY sequence"
        )
        return {int(one): int(rows) for one, rows in self._all(sql, destination=destination, what=what)}

    def missing(self, scanned: Ranges, window: Range | None = None) -> Ranges:
        """Where in the cursor missing rows are: few ranges, within what was scanned.
        window: only those with positions in it"""
        within = "" if window is None else f"AND cursor >= {window.start} AND cursor < {window.end}"
        ((first, last),) = self._all(
            f"SELECT min(cursor), max(cursor) FROM {_T}verdicts WHERE what = 'missing' {within}"
        )
        if first is None:
            return Ranges()
        first, last = int(first), int(last) + 1
        step = -(-(last - first) // MOST_RANGES)
        sql = (
            f"SELECT min(cursor), max(cursor) FROM {_T}verdicts WHERE what = 'missing' {within} "
            f"GROUP BY (cursor - $first::HUGEINT) // $step::HUGEINT"
        )
        ends = self._all(sql, first=first, step=step)
        found = Ranges.of(Range(int(low) + self._zero, int(high) + self._zero + 1) for low, high in ends)
        return Ranges.of(part for one in found for part in scanned.within(one))

    def differences(self, limit: int | None = None) -> Iterator[Difference]:
        """The ids that differ: by what they are, then by event time."""
        reader = self.connection.execute(
            f"SELECT * FROM ({DIFFERENCES}) ORDER BY weight, event, id {'' if limit is None else f'LIMIT {limit:d}'}"
        ).to_arrow_reader(10_000)
        for batch in reader:
            for one in batch.drop_columns(["weight"]).to_pylist():
                yield Difference(**one)

    def counted_differences(self) -> int:
        return self._count(f"({DIFFERENCES})")

    def keep_numbers(self, numbers: Sequence[dict[str, object]]) -> None:
        """Keep the rows that `NUMBERS` selects."""
        kept = pa.Table.from_pylist(list(numbers)) if numbers else pa.table({"start": pa.array([], pa.int64())})
        self.connection.register(f"{_T}numbers", kept)

    def write(self, sql: str, path: Path, form: str) -> None:
        """Write what a query selects to a new file, in a form as DuckDB's COPY has it."""
        self._run(f"COPY ({sql}) TO {quote_literal(str(path))} ({form})")

    # ---------------------------------------------------------------------------------------------- helpers

    def _scanned(self, scanned: Ranges) -> None:
        """Positions may be greater than any Arrow integer: they go as text."""
        ends = {
            "first": [str(one.start - self._zero) for one in scanned],
            "last": [str(min(one.end - self._zero, UUIDS // 2 - 1)) for one in scanned],
        }
        texts = pa.table({name: pa.array(values, pa.string()) for name, values in ends.items()})
        self.connection.register(f"{_T}texts", texts)
        self._run(
            f"CREATE OR REPLACE TEMP TABLE {_T}scanned AS "
            f"SELECT first::HUGEINT AS first, last::HUGEINT AS last FROM {_T}texts"
        )

    @property
    def _start(self) -> str:
        """SQL of the start of the hour or day that a row's event lies in."""
        return _floor("event", self.width)

    def _counted(self, rows: str, by: str) -> list[tuple[int | None, int]]:
        return [(key, int(count)) for key, count in self._all(f"SELECT {by}, count(*) FROM {rows} GROUP BY 1")]

    def _insert(self, table: str, values: dict[str, Any]) -> None:
        """Rows whose columns are lists of one length, or one value for all of them."""
        rows = next(len(each) for each in values.values() if isinstance(each, list))
        columns = {name: each if isinstance(each, list) else [each] * rows for name, each in values.items()}
        self.connection.register(f"{_T}batch", pa.table(columns))
        if rows:
            self._run(f"INSERT INTO {_T}{table} SELECT {', '.join(columns)} FROM {_T}batch")

    def _run(self, sql: str) -> None:
        self.connection.execute(sql).fetchall()

    def _count(self, rows: str) -> int:
        return int(self._all(f"SELECT count(*) FROM {rows}")[0][0])

    def _all(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, values).fetchall()


DIFFERENCES: Final = (
    f"SELECT what, id, event, NULL::VARCHAR AS destination, NULL::BIGINT AS sequence, "
    f"CASE WHEN what IN ('missing', 'orphans') THEN '' ELSE reason END AS detail, CASE what WHEN 'missing' THEN 0 "
    f"WHEN 'conflicts' THEN 4 ELSE 5 END AS weight FROM {_T}verdicts "
    f"WHERE what IN ('missing', 'conflicts', 'rejected', 'orphans') "
    f"UNION ALL SELECT 'rejected', id, event, NULL, NULL, reason, 5 FROM {_T}source WHERE reason IS NOT NULL "
    f"UNION ALL SELECT 'gone', id, event, NULL, sequence, '', 6 FROM {_T}gone "
    f"WHERE sequence NOT IN (SELECT sequence FROM {_T}dropped) "
    f"UNION ALL SELECT 'lost', id, event, destination, sequence, "
    f"CASE WHEN copies > 0 THEN 'another value is there' ELSE '' END, 1 FROM {_T}outcomes WHERE what = 'lost' "
    f"UNION ALL SELECT 'doubled', id, event, destination, sequence, copies || ' copies', 2 FROM {_T}outcomes "
    f"WHERE what = 'arrived' AND copies > 1 "
    f"UNION ALL SELECT 'others', id, event, destination, NULL, copies || ' copies', 3 FROM {_T}outcomes "
    f"WHERE what = 'others'"
)
"""SQL of the ids that differ, as `Difference` names the columns, with `weight`: what should be looked at first."""

DIFFERING: Final = (
    f"SELECT what, id, make_timestamptz(event) AS inference_timestamp, destination, sequence AS slice, detail "
    f"FROM ({DIFFERENCES}) ORDER BY weight, event, id"
)
NUMBERS: Final = f"SELECT * REPLACE (make_timestamptz(start) AS start) FROM {_T}numbers"
"""What is written to files."""


def unshown(destination: Destination) -> str:
    """What a row is that a destination does not show, though its delivery is closed."""
    return "lost" if destination.proof is Proof.ROWS else "taken"


def _floor(column: str, width: int) -> str:
    """SQL of the start of the hour or day that a column of microseconds lies in, before 1970 too."""
    return f"{column} - ((({column} % {width}) + {width}) % {width})"


def _ends(events: Range | None) -> dict[str, object]:
    return {} if events is None else {"first": events.start, "last": events.end}
