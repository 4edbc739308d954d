"""Joining: what becomes of a cut's labels, by the inferences that are published and the labels that were.

| of a label of one inference                                     | so it is                                       |
|------------------------------------------------------------------|------------------------------------------------|
| the cut holds a newer one                                        | superseded, or a duplicate if it is equal, or  |
|                                                                  | was published itself                           |
| the cut holds another one, known at the same time                | `conflicting_label`, but for the one that was  |
|                                                                  | published, or else the smallest                |
| its inference is not published                                   | held (see `holding.py`)                        |
| its inference was refused by a destination                       | `no_inference`                                 |
| an equal one was published last                                  | a duplicate; if it is newer, that is remembered |
| it was published itself, and replaced since                      | a duplicate                                    |
| one that became known later was published                        | superseded                                     |
| another one, known at the same time, was published               | `conflicting_label`: what was sent stands      |
| none was published, or another one that became known before it   | published                                      |

Where several inferences have its id, a label belongs to the newest that is not after its ground-truth timestamp, or
else to the oldest, of those within the smallest of `REACHES`. A platform knows ids alone, so the labels of all that
are found there are its history.

Works on the finished files in the scratch folder, as `repeats.py` does for inferences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from tidepost.cursor import DAY as NANOSECONDS_A_DAY
from tidepost.cursor import CursorType
from tidepost.labels.dropping import LANE as FILES
from tidepost.labels.holding import LANE, Held, inferences_of, read_held
from tidepost.labels.versions import BY_FILE, BY_QUERY, DAY, NO_VERSIONS, day_of, load_history, value_of
from tidepost.model import Cut, Part, ScanKind, Stream
from tidepost.ports import CURSOR, Ledger, PartRef, Records, Staging
from tidepost.ranges import Range
from tidepost.rows.index import Index, Which, index_of, row_as_json
from tidepost.rows.rejects import NO_REJECTS
from tidepost.rows.repeats import DUPLICATE, KNOWN, rows_of, without
from tidepost.rows.shape import ID
from tidepost.rows.writer import KEYS, Draft
from tidepost.sql import quote_identifier

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from tidepost.cursor import CursorKind
    from tidepost.definition.job import Job

SUPERSEDED, WAITING, SEEN = "superseded", "waiting", "seen"
CONFLICT, NO_INFERENCE = "conflicting_label", "no_inference"
LATEST: Final = 2**62
"""An event time, in microseconds, that none is after."""
REACHES: Final = (2 * DAY, 16 * DAY, 128 * DAY)
"""How far from its label an inference is looked for first, in microseconds: most are near, and nobody wants to open a
year's files for them. What is not found is looked for in all that the horizon allows."""
_TABLES: Final[Mapping[str, Which]] = {"tidepost_sent": "sent", "tidepost_refused": "refused"}


def values_of(columns: Sequence[str], job: Job) -> tuple[str, ...]:
    """Those of the staged columns that are a label's values."""
    return tuple(name for name in columns if name not in (ID, job.stream.time))


@dataclass(frozen=True, slots=True)
class Joined:
    """What is left of the drafts, and what became of the other rows.

    version: of the stream, at which its labels were looked at
    """

    drafts: tuple[Draft, ...]
    duplicates: int
    known: int
    superseded: int
    rejects: pa.Table
    versions: pa.Table
    held: Held | None
    version: int


NOTHING_JOINED: Final = Joined((), 0, 0, 0, NO_REJECTS, NO_VERSIONS, None, 0)


@dataclass(frozen=True, slots=True)
class Joiner:
    """What joining needs, wired once a run. For one thread: it shares the stage's connection to DuckDB."""

    job: Job
    kind: CursorKind
    staging: Staging
    records: Records
    ledger: Ledger
    connection: DuckDBPyConnection
    now: float

    def join(self, stream: Stream, cut: Cut, drafts: Sequence[Draft], columns: Sequence[str]) -> Joined:
        """Look every label of a cut up. Raises Retryable where a file of either index is not readable."""
        before = read_held(self.records, stream, cut.range.start) if cut.lane == LANE else None
        by_file = cut.lane == FILES
        source = before.source if before is not None else BY_FILE if by_file else BY_QUERY
        looked = self._inferences(stream, drafts, columns, source, scaled=before is not None or by_file)
        joined = self._decided(stream, cut)
        rows = self._rows(drafts, columns, WAITING)
        since = self.now if before is None else before.since
        held = Held(rows, source, looked, since) if rows.num_rows else None
        return self._finished(joined, drafts, columns, held)

    def join_again(
        self, stream: Stream, cut: Cut, drafts: Sequence[Draft], columns: Sequence[str], before: pa.Table
    ) -> Joined:
        """The same labels after somebody else published: what is left of them, looked up among the labels that are
        published by now. `before`: their versions."""
        self.connection.register("tidepost_before", before)
        rows = f"SELECT _part AS part, _row AS row, {ID} AS id FROM ({rows_of(drafts)})" if drafts else _NO_ROWS
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE tidepost_labels AS SELECT part, row, b.id, known, source, content, "
            f"inference, event, label_at, false AS refused FROM tidepost_before AS b "
            f"LEFT JOIN ({rows}) AS r ON r.id = b.id"
        )
        return self._finished(self._decided(stream, cut), drafts, columns, None)

    def _inferences(
        self, stream: Stream, drafts: Sequence[Draft], columns: Sequence[str], source: int, *, scaled: bool
    ) -> int:
        """Fill `tidepost_labels` with the drafts' labels and the inferences that they belong to. Returns the newest
        slice of inferences that was looked at."""
        execute = self.connection.execute
        factor = NANOSECONDS_A_DAY if self.kind.type is CursorType.DATE and not scaled else 1
        keys = drafts[0].file.parent / KEYS
        with pa.memory_map(str(keys)) as mapped:
            self.connection.register("tidepost_keys", pa.ipc.open_file(mapped).read_all())
            execute(
                f"CREATE OR REPLACE TEMP TABLE tidepost_read AS SELECT r._part AS part, r._row AS row, r.{ID} AS id, "
                f"CAST(k.cursor AS DECIMAL(38, 0)) * {factor} AS known, CAST({source} AS INTEGER) AS source, "
                f"{value_of(values_of(columns, self.job))} AS content, "
                f"epoch_us(r.{self.job.stream.time}) AS label_at "
                f"FROM ({rows_of(drafts)}) AS r "
                f"JOIN tidepost_keys AS k ON k.part = r._part AND k.row = r._row"
            )
            self.connection.unregister("tidepost_keys")
        looked = self._look_up(stream, [draft.part for draft in drafts])
        execute(
            "CREATE OR REPLACE TEMP TABLE tidepost_labels AS SELECT r.*, s.sequence AS inference, s.event, "
            "s.sequence IS NULL AND x.id IS NOT NULL AS refused FROM tidepost_read AS r "
            f"LEFT JOIN ({_BELONGS}) AS s USING (part, row) "
            "LEFT JOIN (SELECT DISTINCT id FROM tidepost_refused) AS x USING (id)"
        )
        return looked

    def _look_up(self, stream: Stream, of: Sequence[Part]) -> int:
        """Find the inferences of `tidepost_read`, nearest first: fill `tidepost_sent` and `tidepost_refused` with
        those that the index holds. Returns the newest slice that was looked at."""
        for name in _TABLES:
            self.connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {name} (id VARCHAR, sequence BIGINT, event BIGINT)"
            )
        inferences = self.ledger.plans.find(stream.job, inferences_of(stream).name)
        if inferences is None or self.job.ground_truth is None:
            return 0
        first, last = min(part.event_min for part in of), max(part.event_max for part in of)
        horizon = self.job.ground_truth.horizon // timedelta(microseconds=1)
        near = [(reach, Range(first - reach, last + reach)) for reach in REACHES if reach < horizon]
        looked: int | None = None
        seen: set[tuple[int, int]] = set()
        wanted = "SELECT id FROM tidepost_read"
        for reach, window in (*near, (LATEST, Range(first - horizon, LATEST))):
            published = self.ledger.slices.published(inferences, window)
            looked = published.version if looked is None else looked
            parts = [one for one in published.parts if (one.sequence, one.part.number) not in seen]
            seen |= {(one.sequence, one.part.number) for one in parts}
            for name, which in _TABLES.items():
                self._find(name, self._index(inferences, parts, which), wanted)
            wanted = farther(reach)
            if self.connection.execute(f"SELECT count(*) = 0 FROM ({wanted})").fetchall() == [(True,)]:
                break
        return looked or 0

    def _index(self, stream: Stream, parts: Sequence[PartRef], which: Which) -> Index | None:
        names = [to.name for to in self.job.destinations]
        return index_of(
            self.connection, self.staging, self.records, stream, parts=parts, which=which, destinations=names
        )

    def _find(self, name: str, index: Index | None, wanted: str) -> None:
        """Add to a table what an index holds of the ids that some SQL gives."""
        if index is None:
            return
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE tidepost_wanted_ids AS {wanted}")
        there = index.slices(f"{ID} IN (SELECT id FROM tidepost_wanted_ids)")
        self.connection.execute(
            f"INSERT INTO {name} SELECT id, sequence, event FROM ({there.sql})", dict(there.values)
        )

    def _decided(self, stream: Stream, cut: Cut) -> int:
        """Give each of `tidepost_labels` its verdict, in `tidepost_verdicts`. Returns the stream's version.

        The history of an id is in the days of its inferences; of a label whose inference is not found none counts, as
        none is published without its inference.
        """
        days = self.connection.execute(
            f"SELECT DISTINCT {day_of('event')} FROM (SELECT id, event FROM tidepost_labels UNION ALL "
            "SELECT id, event FROM tidepost_sent) WHERE event IS NOT NULL AND id IN (SELECT id FROM tidepost_labels)"
        ).fetchall()
        version, published = self.ledger.slices.cuts(stream, frozenset(day for (day,) in days))
        load_history(
            self.connection,
            self.staging,
            self.records,
            stream,
            published,
            ids="SELECT id FROM tidepost_labels WHERE event IS NOT NULL",
        )
        again = KNOWN if cut.kind is not ScanKind.INCREMENTAL else DUPLICATE
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE tidepost_verdicts AS SELECT part, row, a.id, a.known, a.source, a.content, "
            "a.inference, a.event, a.label_at, "
            "l.holder AS after, CASE "
            "WHEN place > 1 AND (a.content = best OR a.published) THEN $again "
            "WHEN place > 1 AND a.known = newest THEN $conflict "
            "WHEN place > 1 THEN $superseded "
            "WHEN a.refused THEN $no_inference "
            "WHEN a.inference IS NULL THEN $waiting "
            "WHEN l.id IS NULL THEN NULL "
            "WHEN (a.known, a.source) > (l.known, l.source) AND a.content = l.content THEN $seen "
            "WHEN (a.known, a.source) > (l.known, l.source) THEN NULL "
            "WHEN a.content = l.content OR a.published THEN $again "
            "WHEN (a.known, a.source) = (l.known, l.source) THEN $conflict "
            "ELSE $superseded END AS verdict "
            "FROM (SELECT b.*, (b.id, b.known, b.content) IN (SELECT (id, known, content) FROM tidepost_history) "
            "AS published, row_number() OVER best AS place, first_value(b.content) OVER best AS best, "
            "first_value(b.known) OVER best AS newest FROM tidepost_labels AS b "
            "LEFT JOIN tidepost_last AS s ON s.id = b.id WINDOW best AS (PARTITION BY b.id "
            "ORDER BY b.known DESC, b.content IS DISTINCT FROM s.content, b.content, part, row)) AS a "
            "LEFT JOIN tidepost_last AS l ON l.id = a.id",
            {
                "conflict": CONFLICT,
                "superseded": SUPERSEDED,
                "no_inference": NO_INFERENCE,
                "waiting": WAITING,
                "seen": SEEN,
                "again": again,
            },
        )
        return version

    def _finished(self, version: int, drafts: Sequence[Draft], columns: Sequence[str], held: Held | None) -> Joined:
        execute = self.connection.execute
        counts: dict[str, int] = dict(
            execute(
                "SELECT verdict, count(*) FROM tidepost_verdicts WHERE verdict IS NOT NULL AND part IS NOT NULL "
                "GROUP BY verdict"
            ).fetchall()
        )
        rejects = [self._rejects(drafts, columns, reason) for reason in (CONFLICT, NO_INFERENCE) if reason in counts]
        versions = execute(
            f"SELECT id, known, source, content, verdict IS NULL AS sent, inference, after, event, label_at "
            f"FROM tidepost_verdicts WHERE verdict IS NULL OR verdict = '{SEEN}' ORDER BY id"
        ).to_arrow_table()
        execute(
            "CREATE OR REPLACE TEMP TABLE tidepost_doomed AS SELECT CAST(part AS INTEGER) AS part, row, verdict "
            "FROM tidepost_verdicts WHERE verdict IS NOT NULL AND part IS NOT NULL"
        )
        lost: dict[int, int] = dict(execute("SELECT part, count(*) FROM tidepost_doomed GROUP BY part").fetchall())
        time = self.job.stream.time
        left = [
            draft if draft.part.number not in lost else without(self.connection, draft, lost[draft.part.number], time)
            for draft in drafts
        ]
        return Joined(
            tuple(draft for draft in left if draft is not None),
            counts.get(DUPLICATE, 0) + counts.get(SEEN, 0),
            counts.get(KNOWN, 0),
            counts.get(SUPERSEDED, 0),
            pa.concat_tables([NO_REJECTS, *rejects]),
            versions.cast(NO_VERSIONS.schema),
            held,
            version,
        )

    def _rows(self, drafts: Sequence[Draft], columns: Sequence[str], verdict: str) -> pa.Table:
        """The staged rows of a verdict, and when each became known."""
        names = ", ".join(f"r.{quote_identifier(name)}" for name in columns)
        return self.connection.execute(
            f"SELECT {names}, v.known AS {quote_identifier(CURSOR)} FROM ({rows_of(drafts)}) AS r "
            f"JOIN tidepost_verdicts AS v ON v.part = r._part AND v.row = r._row WHERE v.verdict = $verdict "
            f"ORDER BY r.{ID}",
            {"verdict": verdict},
        ).to_arrow_table()

    def _rejects(self, drafts: Sequence[Draft], columns: Sequence[str], reason: str) -> pa.Table:
        found = self.connection.execute(
            f"SELECT v.verdict AS reason, r.{ID}, {row_as_json(columns)} AS row FROM ({rows_of(drafts)}) AS r "
            f"JOIN tidepost_verdicts AS v ON v.part = r._part AND v.row = r._row WHERE v.verdict = $reason "
            f"ORDER BY r._part, r._row",
            {"reason": reason},
        )
        return found.to_arrow_table().cast(NO_REJECTS.schema)


def farther(reach: int) -> str:
    """SQL of the ids of `tidepost_read` that have no inference in `tidepost_sent` within a reach, in microseconds.

    Two joins on equal values: in one that has another condition too, DuckDB compares each row with each.
    """
    return (
        "SELECT r.id FROM tidepost_read AS r ANTI JOIN (SELECT n.part, n.row FROM tidepost_read AS n "
        f"JOIN tidepost_sent AS s USING (id) WHERE abs(s.event - n.label_at) <= {reach}) USING (part, row)"
    )


_BELONGS: Final = (
    "SELECT r.part, r.row, s.sequence, s.event FROM tidepost_read AS r JOIN tidepost_sent AS s USING (id) "
    "QUALIFY row_number() OVER (PARTITION BY r.part, r.row ORDER BY "
    + "".join(f"abs(s.event - r.label_at) > {reach}, " for reach in REACHES)
    + "s.event > r.label_at, abs(s.event - r.label_at), s.sequence DESC) = 1"
)
"""SQL of the inference that each label belongs to."""
_NO_ROWS: Final = "SELECT 0 AS part, CAST(0 AS BIGINT) AS row, '' AS id WHERE false"
