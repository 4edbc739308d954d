"""Intake: a cut's rows as they are staged: from the source; of labels also what is held, and what was dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tidepost.engine import translated
from tidepost.errors import Misconfigured, Retryable, TidepostError
from tidepost.labels.dropping import LANE as FILES
from tidepost.labels.dropping import registered, set_aside
from tidepost.labels.holding import LANE as HELD
from tidepost.labels.holding import relation as held_rows
from tidepost.planning.lookback import labelled
from tidepost.ports import CURSOR, Drops, Records, Relation, Source, Staging, lane_of
from tidepost.rows.drift import check_files, misfits
from tidepost.rows.shape import instant, shape
from tidepost.sql import quote_identifier

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from tidepost.definition.job import Job
    from tidepost.model import Cut, Stream
    from tidepost.rows.shape import Shape

TAKEN_ONCE: Final = (HELD, FILES)
"""The lanes whose ranges are numbers of files, each of which is taken up once: the source is not read for them."""


@dataclass(frozen=True, slots=True)
class Intake:
    """Where rows come from, wired once a run. For one thread: it shares the stage's connection to DuckDB."""

    job: Job
    source: Source
    staging: Staging
    records: Records
    connection: DuckDBPyConnection
    drops: Drops | None

    @property
    def quarantine(self) -> bool:
        """Whether rows whose types do not fit are set aside one by one."""
        return self.job.drift == "quarantine"

    @contextmanager
    def rows(self, target: Shape, stream: Stream, cut: Cut) -> Iterator[Relation]:
        """A cut's rows, to be read once before the block ends. Raises Misconfigured, Retryable, `duckdb.Error`."""
        if cut.lane in TAKEN_ONCE:
            yield self.of_file(target, stream, cut)
            return
        source = lane_of(self.source, cut.lane, empty=cut.estimated == 0)
        with source.read(self.connection, cut.range, target.reads) as relation:
            found = misfits(target, relation.layouts, row_by_row=self.quarantine)
            check_files(self.job, found)  # a file may have come since the run began
            rows = labelled(relation.sql, [one for one in self.job.labels if one.column in target.reads])
            aside = {one.reason: [*one.files] for one in found}
            yield Relation(target.sql(rows, aside, judged=relation.judged), relation.values)

    def of_file(self, target: Shape, stream: Stream, cut: Cut) -> Relation:
        """The rows of a cut of a lane that is taken up once. Raises Misconfigured, `duckdb.Error`."""
        if cut.lane == HELD:
            return held_rows(self.connection, self.staging, stream, cut, tuple(target.staged))
        return self._dropped(target, stream, cut)

    def _dropped(self, target: Shape, stream: Stream, cut: Cut) -> Relation:
        """The rows of a file of labels. Raises Misconfigured, `duckdb.Error` for a bad one."""
        of = self.job.ground_truth
        drop = registered(self.records, stream, cut.range.start)
        there = None if self.drops is None else self.drops.now(drop.path)
        if self.drops is None or of is None or there is None or there.version != drop.version:
            raise Misconfigured(f"{drop.path} is gone, or has changed since it was found")
        rows, columns = self.drops.rows(self.connection, drop)
        own = shape(
            self.job.mapping,
            columns,
            pinned=target.staged,
            finite_only=self.job.limits.non_finite == "reject",
            stream=self.job.stream,
        )
        modified = int(drop.modified * 1_000_000) * 1_000
        known = str(modified)
        if of.files is not None and of.files.known_at is not None:
            at = instant("ground_truth.files.known_at", of.files.known_at, columns)
            known = f"coalesce(epoch_us({at}) * 1000, {modified})"
        names = ", ".join(quote_identifier(name) for name in own.reads)
        positions = f"SELECT {names}, CAST({known} AS BIGINT) AS {quote_identifier(CURSOR)} FROM ({rows})"
        return Relation(own.sql(labelled(positions, [one for one in self.job.labels if one.column in own.reads])), {})

    def set_aside(self, stream: Stream, cut: Cut, error: Exception) -> None:
        """Leave a broken file alone. Raises Retryable where it may be read another time."""
        told = error if isinstance(error, TidepostError) else translated(error, "reading it")
        if isinstance(told, Retryable):
            raise told from error
        set_aside(self.records, stream, cut.range.start, told.message)
