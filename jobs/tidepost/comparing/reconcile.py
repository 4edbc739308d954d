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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import duckdb

from tidepost.comparing.compare import Comparison
from tidepost.comparing.labels import LabelComparison
from tidepost.comparing.lanes import STRETCH, Lane, in_the_lane, lanes_of, on_the_line
from tidepost.comparing.numbers import Bucket, Here, LaneNumbers, Numbers, Reconciled, There
from tidepost.comparing.results import DIFFERING, NUMBERS, Difference, Results
from tidepost.engine import translated
from tidepost.labels.dropping import LANE as FILES
from tidepost.labels.holding import LANE as HELD
from tidepost.labels.holding import held_now
from tidepost.ledger.comparing import SliceAt, SqlComparing
from tidepost.ledger.sql import SqlLedger
from tidepost.model import MICROSECONDS_AN_HOUR, Proof, Stream, StreamName
from tidepost.ports import Destination, OfLanes, PartRef, lane_of
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
        scanned = self.ledger.plans.coverage(self.stream).scanned
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
        windows, inside = self._reach(scope, scanned, [one for one in slices if one.lane not in (HELD, FILES)])
        comparison.begin()
        lanes = lanes_of(self.world.source, windows, scanned, slices) if source else ()
        comparison.place(lanes)
        for lane in lanes:
            of = lane_of(self.world.source, lane.name, again=True) if lane.reads else self.world.source
            for part in lane.reads:
                with of.read(self.connection, part, target.reads) as relation:
                    comparison.read_source(target, relation, events=scope.events, base=lane.base)
        line = _line(lanes, scanned)
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
        comparison.match(line)
        newer = self.ledger.slices.published(self.stream, near).parts
        since = [one for one in newer if one.sequence > published.version]
        comparison.tell_missing(self.world.staging, self.world.records, self.stream, since)
        for one in destinations:
            comparison.ask(one, self.stream, states[one.name], events=scope.events)
        result = self._result(windows.get(""), destinations, lanes, line)
        self._results.keep_numbers(
            [_row(one, name, there) for one in result.buckets for name, there in one.there.items()]
        )
        return result

    def _reach(
        self, scope: Scope, scanned: Mapping[str, Ranges], slices: Sequence[SliceAt]
    ) -> tuple[dict[str, Range], frozenset[int] | None]:
        """What to compare of each lane, and the slices that are compared, as `_within` has them."""
        names = {*scanned, *(one.lane for one in slices)} - {HELD, FILES}
        windows: dict[str, Range] = {}
        chosen: list[frozenset[int] | None] = []
        for name in names if isinstance(self.world.source, OfLanes) else ("",):
            of = {one.sequence: one.range for one in slices if one.lane == name}
            window, inside = self._within(scope, scanned.get(name, Ranges()), of)
            chosen.append(inside)
            if window is not None:
                windows[name] = window
        every = [one for one in chosen if one is not None]
        return windows, frozenset[int]().union(*every) if every else None

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

    def _result(
        self, cursor: Range | None, destinations: Sequence[Destination], lanes: Sequence[Lane], line: Ranges
    ) -> Reconciled:
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
            self._missing(lanes, line),
            self._by_lane([one for one in lanes if one.name], names),
        )

    def _unnamed(self, destination: str, slices: Mapping[int, int]) -> int:
        """Rows of closed slices that a destination refused by number alone."""
        refused = SqlComparing(self.ledger).left_out(self.stream, destination)
        return sum(rows for sequence, rows in refused.items() if sequence in slices)

    def _missing(self, lanes: Sequence[Lane], line: Ranges) -> Ranges:
        if not any(one.name for one in lanes):
            return self._results.missing(line)
        found = Ranges()
        for one in lanes:
            stretch = Range(one.base, one.base + STRETCH)
            found = found.union(in_the_lane(one, self._results.missing(line.within(stretch), stretch)))
        return found

    def _by_lane(self, lanes: Sequence[Lane], names: Sequence[str]) -> tuple[LaneNumbers, ...]:
        if not lanes:
            return ()
        here = self._results.counted_here(by_lane=True)
        there = {name: self._results.counted_there(name, by_lane=True) for name in names}
        return tuple(
            LaneNumbers(
                one.name,
                one.window,
                one.held,
                Here(**here.get(one.number, {})),
                {name: There(**each.get(one.number, {})) for name, each in there.items()},
            )
            for one in lanes
        )


def _line(lanes: Sequence[Lane], scanned: Mapping[str, Ranges]) -> Ranges:
    """What was scanned, on the line of positions that the joins know."""
    if not lanes:
        return Ranges()
    return Ranges(tuple(part for one in lanes for part in on_the_line(one, scanned.get(one.name, Ranges()))))


def _row(one: Bucket, name: str, there: There) -> dict[str, object]:
    """A row of the numbers as they are written to files."""
    return {"start": one.start, **asdict(one.here), "destination": name, **asdict(there)}


def _meets(ref: PartRef, window: Range) -> bool:
    return ref.part.event_min < window.end and ref.part.event_max >= window.start


def _summed(names: Sequence[str], of: Sequence[Numbers]) -> dict[str, int]:
    return {name: sum(getattr(one, name) for one in of) for name in names}
