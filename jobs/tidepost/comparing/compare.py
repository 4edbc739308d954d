"""The joins of reconciling: each row of the source and of the index, and what a destination shows of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from tidepost.comparing.lanes import Lane
from tidepost.comparing.tables import TABLES, T, Tables, floor
from tidepost.cursor import UUIDS, CursorType
from tidepost.ledger.comparing import SKIPPED
from tidepost.model import MICROSECONDS_AN_HOUR, DeliveryState, Proof, Stream
from tidepost.ports import CURSOR, Destination, PartRef, Records, Relation, Staging
from tidepost.ranges import Range, Ranges
from tidepost.rows.index import content_of, index_of
from tidepost.rows.rejects import read_refused, read_rejects
from tidepost.rows.repeats import CHANGED, CONFLICT
from tidepost.rows.shape import EVENT, ID, REASON, Shape
from tidepost.sql import quote_identifier

_CONFLICTS: Final = (CHANGED, CONFLICT)


@dataclass(frozen=True, slots=True)
class Comparison(Tables):
    """Fills the tables."""

    def _cursor(self, carried: str) -> str:
        """SQL of a relation's `CURSOR` as the tables have it."""
        if self.kind.type is not CursorType.UUID:
            return carried
        digits = f"replace({carried}, '-', '')"
        high, low = (f"CAST(CAST('0x' || {digits}[{part}] AS UBIGINT) AS HUGEINT)" for part in ("1:16", "17:32"))
        return f"(({high} - 9223372036854775808) * 18446744073709551616 + {low})"

    def begin(self) -> None:
        for table in TABLES:
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {T}{table}")

    # ---------------------------------------------------------------------------------------------- reading

    def read_source(self, target: Shape, relation: Relation, *, events: Range | None, base: int = 0) -> None:
        """base: what is added to each position"""
        own = {name: quote_identifier(name) for name in (EVENT, CURSOR, REASON)}
        within = "true" if events is None else f"r.{own[EVENT]} >= $first AND r.{own[EVENT]} < $last"
        cursor = self._cursor(f"r.{own[CURSOR]}")
        self.connection.execute(
            f"INSERT INTO {T}source SELECT r.{ID}, r.{own[EVENT]}, "
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
        ((first, last),) = self._all(f"SELECT min(event), max(event) FROM {T}source WHERE reason IS NULL")
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
                self.connection.register(f"{T}inside", pa.table({"sequence": pa.array(sorted(inside), pa.int64())}))
                chosen = f"sequence IN (SELECT sequence FROM {T}inside)"
            if events is not None:
                chosen += " AND event >= $first AND event < $last"
            self.connection.execute(
                f"INSERT INTO {T}published SELECT id, event, hash(content), sequence, {chosen} FROM ({rows.sql})",
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
            f"FROM {T}source WHERE reason IS NULL)"
        )
        published = (
            f"(SELECT *, row_number() OVER (PARTITION BY id, content ORDER BY sequence) AS n "
            f"FROM {T}published WHERE inside)"
        )
        live = f"(SELECT id FROM {T}published WHERE (sequence, id) NOT IN (SELECT (sequence, id) FROM {T}refused))"
        self._run(
            f"INSERT INTO {T}gone SELECT id, event, sequence FROM {published} ANTI JOIN {source} "
            f"USING (id, content, n)"
        )
        self._run(
            f"CREATE OR REPLACE TEMP TABLE {T}left AS SELECT id, event, content, cursor FROM {source} "
            f"ANTI JOIN {published} USING (id, content, n)"
        )
        self._run(
            f"INSERT INTO {T}verdicts SELECT id, event, content, cursor, CASE "
            f"WHEN (id, content) IN (SELECT (id, content) FROM {T}published) THEN 'duplicates' "
            f"WHEN id IN {live} THEN 'conflicts' END, '{CHANGED}' FROM {T}left"
        )
        self._scanned(scanned)
        self._run(
            f"CREATE OR REPLACE TEMP TABLE {T}fresh AS SELECT id, event, content, cursor, CASE "
            f"WHEN place > 1 AND content = first THEN 'duplicates' WHEN place > 1 THEN 'conflicts' "
            f"WHEN EXISTS (SELECT 1 FROM {T}scanned AS s WHERE v.cursor >= s.first AND v.cursor < s.last) "
            f"THEN 'missing' ELSE 'waiting' END AS what, '{CONFLICT}' AS reason FROM ("
            f"SELECT *, first_value(content) OVER best AS first, row_number() OVER best AS place "
            f"FROM {T}verdicts WHERE what IS NULL "
            f"WINDOW best AS (PARTITION BY id ORDER BY cursor, content)) AS v"
        )
        self._run(f"DELETE FROM {T}verdicts WHERE what IS NULL")
        self._run(f"INSERT INTO {T}verdicts SELECT * FROM {T}fresh")

    def tell_missing(self, staging: Staging, records: Records, stream: Stream, since: Sequence[PartRef]) -> None:
        """Of what seems missing, tell what was published since, and what was set aside when it was scanned."""
        index = index_of(self.connection, staging, records, stream, parts=since, which="all")
        if index is not None:
            ids = index.ids()
            self.connection.execute(
                f"UPDATE {T}verdicts SET what = 'waiting' WHERE what = 'missing' AND id IN ({ids.sql})",
                dict(ids.values),
            )
        if not self._count(f"{T}verdicts WHERE what = 'missing'"):
            return
        for key in records.list(f"{stream.prefix}/_tidepost/rejects"):
            found = read_rejects(records, key)
            self.connection.register(f"{T}rejects", found)
            self._run(
                f"UPDATE {T}verdicts AS v SET what = 'rejected', reason = r.reason FROM {T}rejects AS r "
                f"WHERE v.what = 'missing' AND v.id = r.{ID} AND r.reason NOT IN {_CONFLICTS}"
            )

    # ------------------------------------------------------------------------------------------ destinations

    def ask(self, destination: Destination, stream: Stream, states: dict[int, str], *, events: Range | None) -> None:
        """Ask a destination for its ids, if it shows any, and say what became of each published row there."""
        self._run(f"CREATE OR REPLACE TEMP TABLE {T}ids (id VARCHAR, start BIGINT)")
        for window in self._windows(events) if destination.proof is Proof.ROWS else ():
            for ids in destination.ids(stream.name, window):
                self._insert("ids", {"id": list(ids), "start": window.start // self.width * self.width})
        self._run(
            f"CREATE OR REPLACE TEMP TABLE {T}shown AS SELECT id, min(start) AS start, count(*) AS copies "
            f"FROM {T}ids GROUP BY id"
        )
        known = pa.table(
            {"sequence": pa.array(states.keys(), pa.int64()), "state": pa.array(states.values(), pa.string())}
        )
        self.connection.register(f"{T}states", known)
        name = {"destination": destination.name}
        refused = f"(SELECT (sequence, id) FROM {T}refused WHERE destination = $destination)"
        self.connection.execute(
            f"INSERT INTO {T}outcomes SELECT $destination, p.id, p.event, p.sequence, CASE "
            f"WHEN (p.sequence, p.id) IN {refused} THEN 'refused' WHEN t.id IS NOT NULL THEN 'arrived' "
            f"WHEN s.state = '{DeliveryState.HELD}' THEN 'held' WHEN s.state = '{SKIPPED}' THEN 'skipped' "
            f"WHEN s.state = '{DeliveryState.CLOSED}' THEN '{unshown(destination)}' ELSE 'in_flight' END, "
            f"coalesce(t.copies, 0) "
            f"FROM {T}published AS p LEFT JOIN {T}shown AS t ON p.id = t.id "
            f"LEFT JOIN {T}states AS s ON p.sequence = s.sequence WHERE p.inside",
            name,
        )
        self.connection.execute(
            f"INSERT INTO {T}outcomes SELECT $destination, id, start, NULL, 'others', copies FROM {T}shown "
            f"WHERE id NOT IN (SELECT id FROM {T}published WHERE (sequence, id) NOT IN {refused})",
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
            f"SELECT DISTINCT {floor('event', hour)} FROM (SELECT event FROM {T}published WHERE inside "
            f"UNION ALL SELECT event FROM {T}source WHERE reason IS NULL)"
        )
        days: dict[int, list[Range]] = {}
        for (start,) in found:
            days.setdefault(int(start) // self.width, []).append(Range(int(start), int(start) + hour))
        for _, hours in sorted(days.items()):
            yield from Ranges.of(hours)

    def _scanned(self, scanned: Ranges) -> None:
        """Positions may be greater than any Arrow integer: they go as text."""
        ends = {
            "first": [str(one.start - self._zero) for one in scanned],
            "last": [str(min(one.end - self._zero, UUIDS // 2 - 1)) for one in scanned],
        }
        texts = pa.table({name: pa.array(values, pa.string()) for name, values in ends.items()})
        self.connection.register(f"{T}texts", texts)
        self._run(
            f"CREATE OR REPLACE TEMP TABLE {T}scanned AS "
            f"SELECT first::HUGEINT AS first, last::HUGEINT AS last FROM {T}texts"
        )


def unshown(destination: Destination) -> str:
    """What a row is that a destination does not show, though its delivery is closed."""
    return "lost" if destination.proof is Proof.ROWS else "taken"


def _ends(events: Range | None) -> dict[str, object]:
    return {} if events is None else {"first": events.start, "last": events.end}
