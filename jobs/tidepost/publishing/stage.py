"""Staging: a cut's rows, read once, checked, and written as finished files that nobody sees yet."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tidepost.definition.job import Job
from tidepost.engine import BATCH_ROWS, translated
from tidepost.errors import Misconfigured, Retryable
from tidepost.labels.dropping import LANE as FILES
from tidepost.labels.dropping import mended, registered
from tidepost.labels.holding import Held
from tidepost.labels.joining import NOTHING_JOINED, Joiner
from tidepost.model import Cut, Lease, ScanKind, Stream, Tally
from tidepost.planning.lookback import lateness, told_sum
from tidepost.ports import Drops, Ledger, OfFiles, PartRef, Records, Source, Staging
from tidepost.publishing.intake import TAKEN_ONCE, Intake
from tidepost.ranges import Range, Ranges
from tidepost.rows.drift import check_files, check_pinned, check_source, misfits
from tidepost.rows.index import Index, Which, index_of
from tidepost.rows.rejects import NO_REJECTS, read_rejects, rejects_key
from tidepost.rows.repeats import Resolved, earliest, resolve
from tidepost.rows.shape import HASH, ID, REASON, ROW, Shape, shape
from tidepost.rows.writer import Draft, Writer, staged_schema

BATCHES_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class Staged:
    """A cut's rows, ready to be published.

    cut:     what was staged
    version: of the stream, at which the index was looked at
    rejects: columns `reason`, `partner_inference_id`, `row`
    columns: of the staged files, name → DuckDB type
    versions, held: of labels, see `versions.py` and `holding.py`
    """

    cut: Cut
    drafts: tuple[Draft, ...]
    tally: Tally
    rejects: pa.Table
    version: int
    columns: Mapping[str, str]
    versions: pa.Table | None = None
    held: Held | None = None

    @property
    def window(self) -> Range | None:
        """The event times of its rows, in microseconds; None without rows."""
        if not self.drafts:
            return None
        parts = [draft.part for draft in self.drafts]
        return Range(min(part.event_min for part in parts), max(part.event_max for part in parts) + 1)


@dataclass(frozen=True, slots=True)
class Stage:
    """What staging needs, wired once a run. For one thread: its cuts share one connection to DuckDB."""

    job: Job
    source: Source
    staging: Staging
    records: Records
    ledger: Ledger
    connection: duckdb.DuckDBPyConnection
    joiner: Joiner | None = None
    drops: Drops | None = None

    @property
    def intake(self) -> Intake:
        """Where rows come from."""
        return Intake(self.job, self.source, self.staging, self.records, self.connection, self.drops)

    def shape(self, stream: Stream) -> Shape:
        """The job's mapping against the source as it is now and the types as they were pinned."""
        target = shape(
            self.job.mapping,
            self.source.columns(),
            pinned=stream.pinned,
            finite_only=self.job.limits.non_finite == "reject",
            quarantine=self.intake.quarantine,
            stream=self.job.stream,
        )
        check_pinned(target.staged, stream.pinned)
        return target

    def drifted(self, stream: Stream, cuts: Sequence[Cut]) -> tuple[str, ...]:
        """What changed of the source's columns since the run before, and is to be told once.

        Raises Misconfigured for what no row may be staged with: of the source, and of the files that `cuts` read.
        """
        target = self.shape(stream)
        # What was seen before the first slice binds nothing.
        before = stream.columns if stream.pinned else {}
        told = check_source(self.job, before, self.source.columns())
        if isinstance(self.source, OfFiles):
            row_by_row = self.intake.quarantine
            for window in Ranges.of([cut.range for cut in cuts if cut.lane not in TAKEN_ONCE]):
                check_files(self.job, misfits(target, self.source.layouts(window), row_by_row=row_by_row))
        return told

    def stage(self, lease: Lease, stream: Stream, cut: Cut, *, null_cursors: int = 0) -> Staged:
        """Read a cut once, check each row, and write what can be sent and is not yet published.

        null_cursors: rows of the source that no cut can hold, as the run's survey counted them

        Raises Misconfigured for a source or mapping that does not fit, Retryable for a disk or a source that
        does not answer. Nothing that it leaves behind is visible or counts.
        """
        target = self.shape(stream)
        folder = self.staging.scratch(stream, cut.id, lease.fence)
        with self.told(f"staging {cut.kind} cut {cut.id}"):
            try:
                drafts, rejects, ids = self._write(target, stream, cut, folder)
            except (duckdb.Error, Misconfigured) as error:
                if cut.lane != FILES:
                    raise
                self.intake.set_aside(stream, cut, error)
                drafts, rejects, ids = (), NO_REJECTS, ""
            else:
                if cut.lane == FILES:
                    mended(self.records, stream, registered(self.records, stream, cut.range.start).path)
            scanned = sum(draft.part.rows for draft in drafts) + rejects.num_rows
            nothing_yet = Tally(null_cursors=null_cursors, ids=ids)
            staged = Staged(cut, drafts, nothing_yet, rejects, 0, target.staged)
            staged = self._resolved(stream, staged, scanned=scanned, since=None)
            if cut.kind is ScanKind.LOOKBACK and staged.drafts:
                late = self._lateness(stream, earliest(self.connection, folder))
                staged = replace(staged, tally=replace(staged.tally, late=late))
            return staged

    def look_again(self, stream: Stream, staged: Staged) -> Staged:
        """The same rows after somebody else published: looked up once more, in what is new since."""
        with self.told("looking again for repeats"):
            return self._resolved(stream, staged, scanned=staged.tally.scanned, since=staged.version)

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """An error of DuckDB or of the disk as one of ours."""
        try:
            yield
        except duckdb.Error as error:
            raise translated(error, f"{self.job.name}: {what}") from error
        except OSError as error:
            raise Retryable(
                f"{self.job.name}: {what}: {error.strerror or error}",
                safe="Nothing was lost: the next run stages the cut again.",
                hint="Free or mend the disk, then run again.",
            ) from error

    def _write(
        self, target: Shape, stream: Stream, cut: Cut, folder: Path
    ) -> tuple[tuple[Draft, ...], pa.Table, str]:
        """The files of a cut's rows, those that cannot be sent, and the sum of all their ids."""
        rejected: list[pa.RecordBatch] = []
        options = self.job.staging
        with ExitStack() as stack:
            mapped = stack.enter_context(self.intake.rows(target, stream, cut))
            sql, values = mapped.sql, dict(mapped.values)
            reader = self.connection.execute(sql, values).to_arrow_reader(BATCH_ROWS)
            writer = stack.enter_context(
                Writer(
                    folder,
                    staged_schema(reader.schema, tuple(target.staged)),
                    partition=options.partition,
                    rows=self.job.file_rows,
                    size=options.file_bytes,
                )
            )
            pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="tidepost-writer"))
            waiting: deque[Future[None]] = deque()
            ids = 0
            for batch in reader:
                ids += pc.sum(batch.column(HASH)).as_py()
                waiting.append(pool.submit(writer.add, _sifted(batch, rejected)))
                if len(waiting) > BATCHES_IN_FLIGHT:
                    waiting.popleft().result()
            for one in waiting:
                one.result()
            told = told_sum(ids) if cut.lane not in TAKEN_ONCE else ""  # their files are taken up once
            return writer.finish(), _rejects(rejected), told

    def _resolved(
        self,
        stream: Stream,
        staged: Staged,
        *,
        scanned: int,
        since: int | None,
    ) -> Staged:
        """Look every id up: in the slices published after `since` (None: all, and in the cut itself)."""
        if self.joiner is not None:
            return self._joined(self.joiner, stream, staged, scanned=scanned, fresh=since is None)
        again = staged.cut.kind is not ScanKind.INCREMENTAL
        window = staged.window
        near = None if window is None else self._near(window)
        published = self.ledger.slices.published(stream, near)
        parts = [one for one in published.parts if since is None or one.sequence > since]
        if window is None:
            parts = []
        # A backfill sends what was refused once more, a lookback finds it every time.
        refused = self._index(stream, parts, "refused") if staged.cut.kind is ScanKind.LOOKBACK else None
        result = resolve(
            self.connection,
            staged.drafts,
            columns=tuple(staged.columns),
            index=self._index(stream, parts),
            refused=refused,
            inside=since is None,
            again=again,
        )
        aside = pa.concat_tables([staged.rejects, result.rejects])
        rejects = self._new(stream, staged.cut, aside) if again else aside
        known = result.known + aside.num_rows - rejects.num_rows
        return replace(
            staged,
            drafts=result.drafts,
            rejects=rejects,
            version=published.version,
            tally=_tally(staged.tally, scanned, result, rejects, known),
        )

    def _joined(self, joiner: Joiner, stream: Stream, staged: Staged, *, scanned: int, fresh: bool) -> Staged:
        """Of labels: look their inferences and the labels before them up."""
        columns = tuple(staged.columns)
        if fresh and staged.drafts:
            result = joiner.join(stream, staged.cut, staged.drafts, columns)
        elif staged.versions is not None:
            result = joiner.join_again(stream, staged.cut, staged.drafts, columns, staged.versions)
        else:
            result = replace(NOTHING_JOINED, version=self.ledger.slices.cuts(stream, frozenset())[0])
        aside = pa.concat_tables([staged.rejects, result.rejects])
        rejects = self._new(stream, staged.cut, aside) if staged.cut.kind is not ScanKind.INCREMENTAL else aside
        held = staged.held if result.held is None else result.held
        before = staged.tally
        tally = replace(
            before,
            scanned=scanned,
            published=sum(draft.part.rows for draft in result.drafts),
            duplicates=before.duplicates + result.duplicates,
            known=before.known + result.known + aside.num_rows - rejects.num_rows,
            rejected=_by_reason(rejects),
            superseded=before.superseded + result.superseded,
            waiting=0 if held is None else held.rows.num_rows,
        )
        return replace(
            staged,
            drafts=result.drafts,
            rejects=rejects,
            version=result.version,
            tally=tally,
            versions=result.versions,
            held=held,
        )

    def _lateness(self, stream: Stream, first: int | str | None) -> float:
        """How late a row is, given its `CURSOR`, in seconds."""
        kind = self.source.cursor()
        position = kind.parse(first) if isinstance(first, str) else first
        if position is None:
            return 0.0
        scanned = self.ledger.plans.coverage(stream).scanned.get("", Ranges())
        return lateness(position, scanned, kind, stream=stream, reports=self.ledger.reports)

    def _near(self, window: Range) -> Range:
        around = int(self.job.cursor.lookback.total_seconds()) * 1_000_000
        return Range(window.start - around, window.end + around)

    def _new(self, stream: Stream, cut: Cut, rejects: pa.Table) -> pa.Table:
        """The rejects that no earlier scan of the cut's range has set aside."""
        before = [
            read_rejects(self.records, rejects_key(stream, other))
            for other in (self.ledger.plans.rejected(stream, cut.range) if rejects.num_rows else ())
        ]
        known = pa.concat_tables([NO_REJECTS, *before]).column("row").combine_chunks()
        return rejects.filter(pc.invert(pc.is_in(rejects.column("row"), known)))

    def _index(self, stream: Stream, parts: Sequence[PartRef], which: Which = "sent") -> Index | None:
        """The published rows of some parts."""
        names = [to.name for to in self.job.destinations]
        return index_of(
            self.connection, self.staging, self.records, stream, parts=parts, which=which, destinations=names
        )


def _sifted(batch: pa.RecordBatch, rejected: list[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows without fault; the others, as rejects, are added to the list."""
    reasons = batch.column(REASON)
    if reasons.null_count == batch.num_rows:
        return batch
    bad = batch.filter(reasons.is_valid())
    rejected.append(pa.record_batch({"reason": bad.column(REASON), ID: bad.column(ID), "row": bad.column(ROW)}))
    return batch.filter(reasons.is_null())


def _rejects(rejected: Sequence[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(rejected, NO_REJECTS.schema) if rejected else NO_REJECTS


def _tally(before: Tally, scanned: int, result: Resolved, rejects: pa.Table, known: int) -> Tally:
    return replace(
        before,
        scanned=scanned,
        published=sum(draft.part.rows for draft in result.drafts),
        duplicates=before.duplicates + result.duplicates,
        known=before.known + known,
        rejected=_by_reason(rejects),
    )


def _by_reason(rejects: pa.Table) -> dict[str, int]:
    return dict(sorted(Counter(rejects.column("reason").to_pylist()).items()))
