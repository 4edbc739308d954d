"""Comparing labels: as `compare.py` does for inferences, but by versions and values, as an id tells of neither.

A row of the source is known by its id, its values and when it became known. What a destination shows of an id is one
label, the last that it loaded: so of the versions of an id only the newest has to be there.

| table    | rows                                                                                       |
|----------|--------------------------------------------------------------------------------------------|
| versions | all that were published: id, event, content, known, origin, sequence, inside               |
| last     | of each id, the newest label that is published or held: id, content, known, origin         |
| held     | labels that wait for their inference: id, content, known, what (unmatched, orphans)        |
| equal    | (sequence, id) of the versions whose values the destination shows                          |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from tidepost.comparing.compare import Comparison, unshown
from tidepost.comparing.tables import T
from tidepost.cursor import DAY as NANOSECONDS_A_DAY
from tidepost.cursor import CursorType
from tidepost.delivery.labelled import equal_to
from tidepost.labels.holding import Held
from tidepost.labels.joining import values_of
from tidepost.labels.versions import load_versions, value_of
from tidepost.model import DeliveryState, Proof, Stream
from tidepost.planning.lookback import labelled
from tidepost.ports import CURSOR, Destination, PartRef, Records, Relation, Staging
from tidepost.ranges import Range, Ranges
from tidepost.rows.index import SEQUENCE
from tidepost.rows.shape import ID, Shape
from tidepost.sql import quote_identifier

if TYPE_CHECKING:
    from tidepost.definition.job import Job

_TABLES: Final = (
    "versions (id VARCHAR, event BIGINT, content UBIGINT, known HUGEINT, origin INTEGER, sequence BIGINT, "
    "inside BOOLEAN)",
    "held (id VARCHAR, content UBIGINT, known HUGEINT, what VARCHAR)",
    "equal (sequence BIGINT, id VARCHAR)",
)


@dataclass(frozen=True, slots=True)
class LabelComparison(Comparison):
    """
    job:  as the stream of its labels sees it
    cuts: cut → sequence of the published slices that hold labels
    held: what waits for its inference, and whether it waits for too long
    """

    job: Job
    cuts: Mapping[int, int]
    held: Sequence[tuple[Held, bool]]

    def begin(self) -> None:
        super(LabelComparison, self).begin()
        for table in _TABLES:
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {T}{table}")

    @property
    def _known(self) -> str:
        """SQL of when a row of the source became known, as versions have it."""
        return f"cursor * {NANOSECONDS_A_DAY if self.kind.type is CursorType.DATE else 1}"

    def content(self, columns: Sequence[str]) -> str:
        return value_of(values_of(columns, self.job))

    def rows(self, relation: Relation, target: Shape) -> str:
        return labelled(relation.sql, [one for one in self.job.labels if one.column in target.reads])

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
        load_versions(self.connection, staging, records, stream, self.cuts)
        chosen = "true" if inside is None else f"list_contains({sorted(inside)}::BIGINT[], sequence)"
        if events is not None:
            chosen += f" AND label_at >= {events.start:d} AND label_at < {events.end:d}"
        self._run(
            f"INSERT INTO {T}versions SELECT id, label_at, hash(content), known, source, sequence, {chosen} "
            f"FROM tidepost_versions WHERE sent"
        )
        self._run(f"INSERT INTO {T}published SELECT id, event, content, sequence, inside FROM {T}versions")
        self._read_refused(records, stream)
        for held, orphans in self.held:
            self.connection.register(f"{T}waiting", held.rows)
            what = "orphans" if orphans else "unmatched"
            self._run(
                f"INSERT INTO {T}held SELECT {ID}, hash({self.content(columns)}), {quote_identifier(CURSOR)}, "
                f"'{what}' FROM {T}waiting AS r"
            )
        self._run(f"CREATE OR REPLACE TEMP TABLE {T}staged (sequence BIGINT, {ID} VARCHAR)")
        kept = [one.part for one in parts if not one.part.purged and (inside is None or one.sequence in inside)]
        if kept:
            found = staging.relation(self.connection, stream, kept)
            self.connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {T}staged AS SELECT {SEQUENCE} AS sequence, "
                f"* EXCLUDE (_part, _row, {stream.name.time}) FROM ({found.sql})",
                dict(found.values),
            )

    def match(self, scanned: Ranges) -> None:
        numbered = "row_number() OVER (PARTITION BY id, content, known ORDER BY"
        source = (
            f"(SELECT *, {numbered} cursor) AS n FROM "
            f"(SELECT *, {self._known} AS known FROM {T}source WHERE reason IS NULL))"
        )
        published = f"(SELECT *, {numbered} sequence) AS n FROM {T}versions WHERE inside)"
        waiting = f"(SELECT *, {numbered} what) AS n FROM {T}held)"
        same = "USING (id, content, known, n)"
        self._run(f"INSERT INTO {T}gone SELECT id, event, sequence FROM {published} ANTI JOIN {source} {same}")
        self._run(
            f"CREATE OR REPLACE TEMP TABLE {T}left AS SELECT * EXCLUDE n FROM {source} ANTI JOIN {published} {same}"
        )
        self._run(
            f"CREATE OR REPLACE TEMP TABLE {T}last AS SELECT id, content, known, origin FROM ("
            f"SELECT id, content, known, origin, sequence FROM {self._standing} "
            f"UNION ALL SELECT id, content, known, 0, 0 FROM {T}held) "
            f"QUALIFY row_number() OVER (PARTITION BY id ORDER BY known DESC, origin DESC, sequence DESC) = 1"
        )
        self._scanned(scanned)
        self._run(
            f"INSERT INTO {T}verdicts SELECT a.id, a.event, a.content, a.cursor, CASE "
            f"WHEN h.id IS NOT NULL THEN h.what WHEN l.id IS NULL THEN NULL "
            f"WHEN a.content = l.content THEN 'duplicates' "
            f"WHEN a.known < l.known OR (a.known = l.known AND l.origin > 0) THEN 'superseded' "
            f"WHEN a.known = l.known THEN 'conflicts' END, '' "
            f"FROM (SELECT *, {numbered} cursor) AS n FROM {T}left) AS a "
            f"LEFT JOIN {waiting} AS h {same} LEFT JOIN {T}last AS l ON l.id = a.id"
        )
        self._run(
            f"CREATE OR REPLACE TEMP TABLE {T}fresh AS SELECT id, event, content, cursor, CASE "
            f"WHEN place > 1 AND content = first THEN 'duplicates' WHEN place > 1 AND cursor = newest "
            f"THEN 'conflicts' WHEN place > 1 THEN 'superseded' "
            f"WHEN EXISTS (SELECT 1 FROM {T}scanned AS s WHERE v.cursor >= s.first AND v.cursor < s.last) "
            f"THEN 'missing' ELSE 'waiting' END AS what, '' AS reason FROM ("
            f"SELECT *, first_value(content) OVER best AS first, first_value(cursor) OVER best AS newest, "
            f"row_number() OVER best AS place FROM {T}verdicts WHERE what IS NULL "
            f"WINDOW best AS (PARTITION BY id ORDER BY cursor DESC, content)) AS v"
        )
        self._run(f"DELETE FROM {T}verdicts WHERE what IS NULL")
        self._run(f"INSERT INTO {T}verdicts SELECT * FROM {T}fresh")

    @property
    def _standing(self) -> str:
        """SQL of the versions that no destination refused, those that were not sent as they are equal included."""
        return (
            f"(SELECT id, hash(content) AS content, CAST(known AS HUGEINT) AS known, source AS origin, sequence "
            f"FROM tidepost_versions WHERE (sequence, id) NOT IN (SELECT (sequence, id) FROM {T}refused))"
        )

    def ask(self, destination: Destination, stream: Stream, states: dict[int, str], *, events: Range | None) -> None:
        """Ask a destination for its labels, if it shows any, and say what became of each version there. Of purged
        files the values are not known: there an id that is shown counts."""
        self._run(f"CREATE OR REPLACE TEMP TABLE {T}ids (id VARCHAR, start BIGINT)")
        self._run(f"DELETE FROM {T}equal")
        described = self._all(f"DESCRIBE {T}staged")
        names = [str(row[0]) for row in described if row[0] not in (ID, "sequence")]
        for window in self._windows(events) if destination.proof is Proof.ROWS else ():
            for table in destination.labels(window):
                self._shown(table, names, window)
        self._run(f"CREATE OR REPLACE TEMP TABLE {T}shown AS SELECT id, min(start) AS start FROM {T}ids GROUP BY id")
        self._run(
            f"INSERT INTO {T}equal SELECT sequence, id FROM {T}versions SEMI JOIN {T}shown USING (id) "
            f"WHERE inside AND sequence NOT IN (SELECT sequence FROM {T}staged)"
        )
        known = {"sequence": pa.array(states.keys(), pa.int64()), "state": pa.array(states.values(), pa.string())}
        self.connection.register(f"{T}states", pa.table(known))
        name = {"destination": destination.name}
        closed = f"state = '{DeliveryState.CLOSED}' AND NOT refused"
        self.connection.execute(
            f"INSERT INTO {T}outcomes SELECT $destination, id, event, sequence, CASE WHEN refused THEN 'refused' "
            f"WHEN equal AND place >= coalesce(max(place) FILTER ({closed}) OVER every, 0) THEN 'arrived' "
            f"WHEN state = '{DeliveryState.HELD}' THEN 'held' WHEN state = 'skipped' THEN 'skipped' "
            f"WHEN state = '{DeliveryState.CLOSED}' AND place < max(place) FILTER (({closed}) OR equal) OVER every "
            f"THEN 'replaced' WHEN state = '{DeliveryState.CLOSED}' THEN '{unshown(destination)}' "
            f"ELSE 'in_flight' END, "
            f"CASE WHEN id IN (SELECT id FROM {T}shown) THEN 1 ELSE 0 END FROM ("
            f"SELECT v.*, s.state, (v.sequence, v.id) IN (SELECT (sequence, id) FROM {T}equal) AS equal, "
            f"(v.sequence, v.id) IN (SELECT (sequence, id) FROM {T}refused WHERE destination = $destination) "
            f"AS refused, row_number() OVER (PARTITION BY v.id ORDER BY known, origin, v.sequence) AS place "
            f"FROM {T}versions AS v LEFT JOIN {T}states AS s ON s.sequence = v.sequence) "
            f"WINDOW every AS (PARTITION BY id) QUALIFY inside",
            name,
        )
        self.connection.execute(
            f"INSERT INTO {T}outcomes SELECT $destination, id, start, NULL, 'others', 1 FROM {T}shown "
            f"WHERE id NOT IN (SELECT id FROM {T}versions)",
            name,
        )

    def _shown(self, table: pa.Table, names: Sequence[str], window: Range) -> None:
        """Remember the ids that a table of labels shows, and the staged rows that have its values."""
        self.connection.register(f"{T}table", table)
        self.connection.execute(f"INSERT INTO {T}ids SELECT {ID}, {window.start:d} FROM {T}table")
        types = {str(row[0]): str(row[1]) for row in self._all(f"DESCRIBE {T}table")}
        equal = " AND ".join(equal_to(name, types[name]) for name in names) or "true"
        self._run(
            f"INSERT INTO {T}equal SELECT p.sequence, p.{ID} FROM {T}staged AS p "
            f"JOIN {T}table AS s ON p.{ID} = s.{ID} AND {equal}"
        )
