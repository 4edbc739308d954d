"""Reconciling: every row of the source, every row that was published, and every row that a destination shows.

    source + gone = published + duplicates + conflicts + rejected + waiting + missing
                    + superseded + unmatched + orphans                                 of labels
    published     = arrived + taken + in flight + held + refused + skipped + lost      at each destination
                    + replaced                                                         of labels

by hour or day of event time. Nothing is written, not even to the ledger. The comparison is DuckDB's, within the
memory limit of the job; ids never become Python's but to be shown.

The order makes it right beside live runs: what the ledger knows is read first, then the source, then the index as far
as the ledger knew it, then the destinations. What was published meanwhile is waiting, not missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import duckdb

from tidepost.comparing.compare import Comparison
from tidepost.comparing.labels import LabelComparison
from tidepost.comparing.results import DIFFERING, NUMBERS, Difference, Results
from tidepost.engine import translated
from tidepost.errors import Misconfigured
from tidepost.labels.dropping import LANE as FILES
from tidepost.labels.holding import LANE as HELD
from tidepost.labels.holding import held_now
from tidepost.ledger.comparing import SqlComparing
from tidepost.ledger.sql import SqlLedger
from tidepost.model import MICROSECONDS_AN_HOUR, Proof, Stream, StreamName
from tidepost.ports import Destination, OfLanes, PartRef
from tidepost.ranges import Range, Ranges
from tidepost.rows.shape import shape
from tidepost.world import World

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Every = Literal["hour", "day"]
_WIDTHS: Final = {"hour": MICROSECONDS_AN_HOUR, "day": 24 * MICROSECONDS_AN_HOUR}


@dataclass(frozen=True, slots=True)
class Scope:
    """What to compare. All that was scanned, unless one of these says less.

    cursor: a range of the cursor, which is widened to whole slices
    events: a range of event times, in microseconds; the source is read as far as it was scanned
    slices: these published slices; the source is not read
    """

    cursor: Range | None = None
    events: Range | None = None
    slices: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers that can be added."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(one.name for one in fields(cls))


@dataclass(frozen=True, slots=True)
class There(Numbers):
    """Published rows at one destination, each in exactly one of these but the last two: further rows there.

    arrived:   shown by the destination
    taken:     accepted by one that cannot be asked, so that nobody can say whether they are there
    in_flight: not there, and the delivery is open
    held:      not there, and the delivery waits for a person
    refused:   refused by the destination, and kept
    skipped:   given up by a person
    lost:      not there, and the delivery is closed
    replaced:  labels that had arrived, in whose place a newer one of their inference was sent
    doubled:   further copies of rows that are there
    others:    rows with ids that were never published here
    """

    arrived: int = 0
    taken: int = 0
    in_flight: int = 0
    held: int = 0
    refused: int = 0
    skipped: int = 0
    lost: int = 0
    replaced: int = 0
    doubled: int = 0
    others: int = 0

    @property
    def published(self) -> int:
        unsettled = self.in_flight + self.held + self.refused + self.skipped
        return self.arrived + self.taken + unsettled + self.lost + self.replaced


@dataclass(frozen=True, slots=True)
class Here(Numbers):
    """Rows of the source, each in exactly one of the others.

    gone:       published, and not in the source any more, or labels of files (these are in `published` too)
    duplicates: repeat a row of the same id with the same content
    conflicts:  repeat an id with other content
    rejected:   cannot be sent, or could not be when they were scanned
    waiting:    not scanned yet, or published since the comparison began
    missing:    scanned, and nowhere
    superseded: labels older than one of their inference that is known
    unmatched:  labels that are held until their inference is published
    orphans:    those that are held for longer than the job bears
    """

    source: int = 0
    gone: int = 0
    published: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    waiting: int = 0
    missing: int = 0
    superseded: int = 0
    unmatched: int = 0
    orphans: int = 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """One hour or day of event time.

    start: in microseconds; None for rows that have no event time
    """

    start: int | None
    here: Here
    there: Mapping[str, There]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison found. The ids that differ stay in the connection, see `Results.differences`.

    cursor:  the range of the source that was read; None where it was not read
    reasons: why rows were rejected → rows
    lost:    destination → slice → rows that are lost there
    taken:   destination that cannot be asked → slice → rows that it accepted
    unnamed: destination that cannot be asked → of those, rows that it refused without saying which
    missing: where in the cursor missing rows are, within what was scanned
    """

    cursor: Range | None
    buckets: tuple[Bucket, ...]
    total: Bucket
    reasons: Mapping[str, int]
    lost: Mapping[str, Mapping[int, int]]
    taken: Mapping[str, Mapping[int, int]]
    unnamed: Mapping[str, int]
    missing: Ranges

    @property
    def agrees(self) -> bool:
        """Whether nothing is lost, missing, or there more than once."""
        return not self.total.here.missing and not any(one.lost or one.doubled for one in self.total.there.values())


@dataclass(frozen=True, slots=True)
class Reconciling:
    """A comparison of one stream. `connection`: DuckDB's, in which the ids that differ stay until it is closed."""

    world: World
    ledger: SqlLedger
    stream: Stream
    connection: DuckDBPyConnection
    every: Every = "day"

    def reconcile(self, scope: Scope, destinations: Sequence[Destination], *, source: bool = True) -> Reconciled:
        """Compare; without `source`, only what was published with what destinations show. Of one that cannot be
        asked, what it accepted counts as taken.

        Raises Misconfigured for a source, mapping or destination that does not fit, Retryable for one that does not
        answer, and where a file of the index is not there.
        """
        try:
            return self._reconcile(scope, destinations, source=source)
        except duckdb.Error as error:
            raise translated(error, f"{self.stream.job}: reconciling") from error

    def differences(self, limit: int | None = None) -> Iterator[Difference]:
        """The ids that differ, of the last comparison: by what they are, then by event time."""
        return self._results.differences(limit)

    def differing(self) -> int:
        """How many differences the last comparison has."""
        return self._results.counted_differences()

    def write_numbers(self, path: Path, form: str) -> None:
        """Write the numbers of the last comparison, a row for each hour or day and destination, to a new file; `form`
        is that of DuckDB's COPY."""
        self._results.write(NUMBERS, path, form)

    def write_differences(self, path: Path, form: str) -> None:
        """Write all ids that differ to a new file."""
        self._results.write(DIFFERING, path, form)

    @property
    def _results(self) -> Results:
        return Results(self.connection, _WIDTHS[self.every], self.world.source.cursor())

    def _comparison(self, newest: int = 0) -> Comparison:
        """newest: the slice up to which labels are compared"""
        width, kind = _WIDTHS[self.every], self.world.source.cursor()
        job = self.world.job
        if job.ground_truth is None or self.stream.name is StreamName.INFERENCES:
            return Comparison(self.connection, width, kind)
        late = self.world.clock() - job.ground_truth.orphan_after.total_seconds()
        held = [(one, one.since < late) for _, one in held_now(self.world.records, self.ledger, self.stream)]
        _, known = self.ledger.slices.cuts(self.stream, None)
        cuts = {cut: sequence for cut, sequence in known.items() if sequence <= newest}
        return LabelComparison(self.connection, width, kind, job, cuts, held)

    def _reconcile(self, scope: Scope, destinations: Sequence[Destination], *, source: bool) -> Reconciled:
        known = SqlComparing(self.ledger)
        scanned = self.ledger.plans.coverage(self.stream).scanned.get("", Ranges())
        published = self.ledger.slices.published(self.stream, None)
        slices = known.slices(self.stream)
        states = {one.name: known.states(self.stream, one.name) for one in destinations}
        comparison = self._comparison(published.version)

        job, columns = self.world.job, self.world.source.columns()
        target = shape(
            job.mapping,
            columns,
            pinned=self.stream.pinned,
            finite_only=job.limits.non_finite == "reject",
            quarantine=job.drift == "quarantine",
            stream=job.stream,
        )
        ranges = {one.sequence: one.range for one in slices if one.lane not in (HELD, FILES)}
        cursor, inside = self._within(scope, scanned, ranges)
        comparison.begin()
        if cursor is not None and source:
            if isinstance(self.world.source, OfLanes):
                raise Misconfigured(
                    f"{job.name}: a source of lanes cannot be read again by event time",
                    safe="Nothing was changed.",
                    hint=f"What a platform lost is found and sent by:  tidepost resend {job.name}",
                )
            with self.world.source.read(self.connection, cursor, target.reads) as relation:
                comparison.read_source(target, relation, events=scope.events)
        parts = published.parts
        near = self._near(parts, inside, scope, comparison.events())
        comparison.read_index(
            self.world.staging,
            self.world.records,
            self.stream,
            parts=[one for one in parts if near is not None and _meets(one, near)],
            columns=tuple(target.staged),
            inside=inside,
            events=scope.events,
        )
        comparison.match(scanned)
        newer = self.ledger.slices.published(self.stream, near).parts
        since = [one for one in newer if one.sequence > published.version]
        comparison.tell_missing(self.world.staging, self.world.records, self.stream, since)
        for one in destinations:
            comparison.ask(one, self.stream, states[one.name], events=scope.events)
        result = self._result(cursor, destinations, scanned)
        self._results.keep_numbers(
            [_row(one, name, there) for one in result.buckets for name, there in one.there.items()]
        )
        return result

    def _within(
        self, scope: Scope, scanned: Ranges, slices: Mapping[int, Range]
    ) -> tuple[Range | None, frozenset[int] | None]:
        """The range of the source to read, and the slices that are compared with it; None for all of them, of which
        the event times decide."""
        if scope.slices is not None:
            return None, scope.slices
        ends = [*scanned, *slices.values()]
        whole = Range(min(one.start for one in ends), max(one.end for one in ends)) if ends else None
        if scope.events is not None or scope.cursor is None:
            return whole, None
        window = scope.cursor
        while True:
            met = [one for one in slices.values() if one.clamp(window) is not None]
            wider = Range(
                min([window.start, *(one.start for one in met)]), max([window.end, *(one.end for one in met)])
            )
            if wider == window:
                inside = frozenset(sequence for sequence, one in slices.items() if one.clamp(window) is not None)
                return window, inside
            window = wider

    def _near(
        self, parts: Sequence[PartRef], inside: frozenset[int] | None, scope: Scope, source: Range | None
    ) -> Range | None:
        """The event times, in microseconds and whole hours, whose published rows matter; None where none do."""
        ends = [one for one in (scope.events or source,) if one is not None]
        if scope.events is None:
            chosen = [one.part for one in parts if inside is None or one.sequence in inside]
            ends += [Range(one.event_min, one.event_max + 1) for one in chosen]
        if not ends:
            return None
        lookback = int(self.world.job.cursor.lookback.total_seconds()) * 1_000_000
        around = 0 if scope.slices is not None else lookback
        start = min(one.start for one in ends) - around
        end = max(one.end for one in ends) + around
        hour = MICROSECONDS_AN_HOUR
        return Range(start // hour * hour, -(-end // hour) * hour)

    def _result(self, cursor: Range | None, destinations: Sequence[Destination], scanned: Ranges) -> Reconciled:
        found, names = self._results, [one.name for one in destinations]
        here = found.counted_here()
        there = {name: found.counted_there(name) for name in names}
        starts = {*here, *(start for each in there.values() for start in each)}
        buckets = tuple(
            Bucket(
                start,
                Here(**here.get(start, {})),
                {name: There(**each.get(start, {})) for name, each in there.items()},
            )
            for start in sorted(starts, key=lambda one: (one is None, one))
        )
        total = Bucket(
            None,
            Here(**_summed(Here.names(), [one.here for one in buckets])),
            {name: There(**_summed(There.names(), [one.there[name] for one in buckets])) for name in names},
        )
        silent = [one.name for one in destinations if one.proof is not Proof.ROWS]
        taken = {name: found.by_slice(name, "taken") for name in silent}
        return Reconciled(
            cursor,
            buckets,
            total,
            found.reasons(),
            {name: found.by_slice(name, "lost") for name in names},
            taken,
            {name: self._unnamed(name, slices) for name, slices in taken.items()},
            found.missing(scanned),
        )

    def _unnamed(self, destination: str, slices: Mapping[int, int]) -> int:
        """Rows of closed slices that a destination refused by number alone."""
        refused = SqlComparing(self.ledger).left_out(self.stream, destination)
        return sum(rows for sequence, rows in refused.items() if sequence in slices)


def _row(one: Bucket, name: str, there: There) -> dict[str, object]:
    """A row of the numbers as they are written to files."""
    return {"start": one.start, **asdict(one.here), "destination": name, **asdict(there)}


def _meets(ref: PartRef, window: Range) -> bool:
    return ref.part.event_min < window.end and ref.part.event_max >= window.start


def _summed(names: Sequence[str], of: Sequence[Numbers]) -> dict[str, int]:
    return {name: sum(getattr(one, name) for one in of) for name in names}
