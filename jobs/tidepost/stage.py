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

from tidepost.engine import BATCH_ROWS, translated
from tidepost.errors import Retryable
from tidepost.index import Index, index_of
from tidepost.job import Job
from tidepost.model import Cut, Lease, Stream, Tally
from tidepost.ports import Ledger, PartRef, Records, Source, Staging
from tidepost.ranges import Range
from tidepost.rejects import NO_REJECTS
from tidepost.repeats import Resolved, resolve
from tidepost.shape import ID, REASON, ROW, Shape, shape
from tidepost.writer import Draft, Writer, staged_schema

BATCHES_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class Staged:
    """A cut's rows, ready to be published.

    version: of the stream, at which the index was looked at
    rejects: columns `reason`, `partner_inference_id`, `row`
    columns: of the staged files, name → DuckDB type
    """

    drafts: tuple[Draft, ...]
    tally: Tally
    rejects: pa.Table
    version: int
    columns: Mapping[str, str]

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

    def shape(self, stream: Stream) -> Shape:
        """The job's mapping against the source as it is now and the types as they were pinned."""
        return shape(
            self.job.mapping,
            self.source.columns(),
            pinned=stream.pinned,
            finite_only=self.job.limits.non_finite == "reject",
        )

    def stage(self, lease: Lease, stream: Stream, cut: Cut, *, null_cursors: int = 0) -> Staged:
        """Read a cut once, check each row, and write what can be sent and is not yet published.

        null_cursors: rows of the source that no cut can hold, as the run's survey counted them

        Raises Misconfigured for a source or mapping that does not fit, Retryable for a disk or a source that
        does not answer. Nothing that it leaves behind is visible or counts.
        """
        target = self.shape(stream)
        folder = self.staging.scratch(stream, cut.id, lease.fence)
        with self.told(f"staging {cut.kind} cut {cut.id}"):
            drafts, rejects = self._write(target, cut, folder)
            scanned = sum(draft.part.rows for draft in drafts) + rejects.num_rows
            plain = Staged(drafts, Tally(null_cursors=null_cursors), rejects, 0, target.staged)
            return self._resolved(stream, plain, scanned=scanned, since=None)

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

    def _write(self, target: Shape, cut: Cut, folder: Path) -> tuple[tuple[Draft, ...], pa.Table]:
        rejected: list[pa.RecordBatch] = []
        options = self.job.staging
        with ExitStack() as stack:
            relation = stack.enter_context(self.source.read(self.connection, cut.range, target.reads))
            sql, values = target.sql(relation.sql), dict(relation.values)
            reader = self.connection.execute(sql, values).to_arrow_reader(BATCH_ROWS)
            writer = stack.enter_context(
                Writer(
                    folder,
                    staged_schema(reader.schema, tuple(target.staged)),
                    partition=options.partition,
                    rows=options.file_rows,
                    size=options.file_bytes,
                )
            )
            pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="tidepost-writer"))
            waiting: deque[Future[None]] = deque()
            for batch in reader:
                waiting.append(pool.submit(writer.add, _sifted(batch, rejected)))
                if len(waiting) > BATCHES_IN_FLIGHT:
                    waiting.popleft().result()
            for one in waiting:
                one.result()
            return writer.finish(), _rejects(rejected)

    def _resolved(
        self,
        stream: Stream,
        staged: Staged,
        *,
        scanned: int,
        since: int | None,
    ) -> Staged:
        """Look every id up: in the slices published after `since` (None: all, and in the cut itself)."""
        window = staged.window
        near = None if window is None else self._near(window)
        published = self.ledger.slices.published(stream, near)
        parts = [one for one in published.parts if since is None or one.sequence > since]
        if window is None:
            parts = []
        index = self._index(stream, parts)
        result = resolve(
            self.connection, staged.drafts, columns=tuple(staged.columns), index=index, inside=since is None
        )
        rejects = pa.concat_tables([staged.rejects, result.rejects])
        return replace(
            staged,
            drafts=result.drafts,
            rejects=rejects,
            version=published.version,
            tally=_tally(staged.tally, scanned, result, rejects),
        )

    def _near(self, window: Range) -> Range:
        around = int(self.job.cursor.lookback.total_seconds()) * 1_000_000
        return Range(window.start - around, window.end + around)

    def _index(self, stream: Stream, parts: Sequence[PartRef]) -> Index | None:
        """The published rows of some parts, without those that a destination provably refused."""
        return index_of(self.connection, self.staging, self.records, stream, parts=parts)


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


def _tally(before: Tally, scanned: int, result: Resolved, rejects: pa.Table) -> Tally:
    return Tally(
        scanned=scanned,
        published=sum(draft.part.rows for draft in result.drafts),
        duplicates=before.duplicates + result.duplicates,
        rejected=dict(sorted(Counter(rejects.column("reason").to_pylist()).items())),
        null_cursors=before.null_cursors,
    )
