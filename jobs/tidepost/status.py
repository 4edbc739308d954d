"""Where a job stands, derived from what the ledger holds. Values only: commands and pages render them.

Nothing here opens a source or a platform, so a job's status can be had while both are down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, time, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from tidepost.cursor import EPOCH, SECOND, CursorKind, CursorType
from tidepost.definition.fields import parse_moment
from tidepost.ledger.summary import DestinationSummary, OpenSlice, StreamSummary
from tidepost.model import OPEN_DELIVERIES, Delivery, DeliveryState, Pause, StreamName
from tidepost.planning.lookback import late_warning
from tidepost.planning.plan import frontier, high_water_mark
from tidepost.publishing.intake import TAKEN_ONCE
from tidepost.texts import instant

if TYPE_CHECKING:
    from tidepost.definition.job import Job
    from tidepost.labels.coverage import Coverage
    from tidepost.ledger.sql import SqlLedger
    from tidepost.ranges import Ranges

LAST_DAY: Final = 10_000_000
"""No date is so many days after 1970, and no instant so few nanoseconds, that anything was logged at."""
_INSTANTS: Final = ("at", "last_published_at", "last_run_at", "last_closed_at")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delivery that is not closed.

    reason: why it is held, or what its last attempt learnt; may be empty
    remedy: the command that moves it on; empty where nothing is sent any more
    """

    sequence: int
    state: DeliveryState
    rows: int
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """A stream at one destination.

    mark:    the high-water mark as text, per lane where there are several; None before anything was scanned
    lag:     seconds from the mark to now; None without a mark, and for cursors that are no times
    open:    deliveries that are neither closed nor held
    below:   open or held slices of other scans that begin below the mark, by sequence
    waiting: the open and the held deliveries, by sequence
    paused:  who said that nothing is to be sent there for now, or None
    removed: the job does not name it any more, so that nothing is sent there
    """

    name: str
    mark: str | None
    lag: float | None
    arrived: int
    refused: int
    open: int
    held: int
    below: tuple[int, ...]
    waiting: tuple[Waiting, ...]
    last_closed_at: float | None
    paused: Pause | None = None
    removed: bool = False

    @property
    def sends(self) -> bool:
        """Whether a run sends there."""
        return self.paused is None and not self.removed


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream of a job; numbers as in `StreamSummary`.

    frontier: as text, or None
    too_late: a warning, where rows came nearly as late as a lookback reaches
    """

    name: StreamName
    frontier: str | None
    open_cuts: int
    slices: int
    rows: int
    size: int
    duplicates: int
    rejected: Mapping[str, int]
    late_rows: int
    late: float
    too_late: str | None
    null_cursors: int
    publishing: int | None
    last_published_at: float | None
    last_run_at: float | None
    destinations: tuple[DestinationStatus, ...]
    superseded: int = 0
    waiting: int = 0

    @property
    def rejects(self) -> int:
        return sum(self.rejected.values())

    @property
    def held(self) -> int:
        """Deliveries that wait for a person, at the job's destinations."""
        return sum(destination.held for destination in self.destinations if not destination.removed)

    @property
    def open(self) -> int:
        """Deliveries and cuts that the next run finishes."""
        return self.open_cuts + sum(one.open for one in self.destinations if one.sends)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job; `streams` is empty where it never ran. `coverage` is of its labels, where somebody looked."""

    job: str
    streams: tuple[StreamStatus, ...]
    coverage: Coverage | None = None

    @property
    def ran(self) -> bool:
        return bool(self.streams)


def job_status(
    job: Job,
    summaries: Sequence[StreamSummary],
    waiting: Mapping[StreamName, Sequence[Delivery]],
    now: float,
    paused: Mapping[str, Pause] = MappingProxyType({}),
) -> JobStatus:
    """A job's status from its summary and its deliveries that are not closed; `now` is in seconds since 1970."""
    return JobStatus(job.name, tuple(_stream(job, one, waiting.get(one.name, ()), now, paused) for one in summaries))


def _stream(
    job: Job, of: StreamSummary, waiting: Sequence[Delivery], now: float, paused: Mapping[str, Pause]
) -> StreamStatus:
    job = (job if of.name is StreamName.INFERENCES else job.of_labels()) or job
    of = replace(of, scanned={lane: found for lane, found in of.scanned.items() if lane not in TAKEN_ONCE})
    kind = cursor_kind(job, of.scanned)
    start = _start(job, kind)
    fronts = {lane: frontier(start, of.scanned, lane) for lane in of.scanned}
    known = {one.destination: one for one in of.destinations}
    own = [to.name for to in job.destinations]
    return StreamStatus(
        name=of.name,
        frontier=positions_text(kind, {lane: front for lane, front in fronts.items() if front > start}),
        open_cuts=of.open_cuts,
        slices=of.slices,
        rows=of.rows,
        size=of.size,
        duplicates=of.duplicates,
        rejected=dict(of.rejected),
        late_rows=of.late_rows,
        late=of.late,
        too_late=late_warning(of.late, job.cursor.lookback),
        null_cursors=of.null_cursors,
        publishing=of.publishing,
        last_published_at=of.last_published_at,
        last_run_at=of.last_run_at,
        destinations=tuple(
            _destination(
                f"{job.name} --stream {of.name}" if of.name is StreamName.GROUND_TRUTH else job.name,
                kind,
                known.get(name) or DestinationSummary(name, {}, {}, 0, 0, {}, (), None),
                {lane: front for lane, front in fronts.items() if front > start},
                [one for one in waiting if one.destination == name],
                now=now,
                paused=paused.get(name),
                removed=name not in own,
            )
            for name in dict.fromkeys([*own, *known])
        ),
        superseded=of.superseded,
        waiting=of.waiting,
    )


def _destination(
    job: str,
    kind: CursorKind,
    of: DestinationSummary,
    fronts: Mapping[str, int],
    waiting: Sequence[Delivery],
    *,
    now: float,
    paused: Pause | None,
    removed: bool,
) -> DestinationStatus:
    marks = {lane: high_water_mark(front, of.oldest.get(lane)) for lane, front in fronts.items()}
    again = f"tidepost run {job.partition(' ')[0]}"
    if paused is not None:
        again = f"tidepost resume {job.partition(' ')[0]} --destination {of.destination}"
    ordered = sorted(waiting, key=lambda one: one.sequence)
    return DestinationStatus(
        name=of.destination,
        mark=positions_text(kind, marks),
        lag=max(
            (now - instant for mark in marks.values() if (instant := _instant(kind, mark)) is not None), default=None
        ),
        arrived=of.arrived,
        refused=of.refused,
        open=sum(of.deliveries.get(state, 0) for state in OPEN_DELIVERIES),
        held=of.deliveries.get(DeliveryState.HELD, 0),
        below=tuple(one.sequence for one in of.others if _below(one, marks)),
        waiting=tuple(_waiting(one, "" if removed else _release(job, one) or again) for one in ordered),
        last_closed_at=of.last_closed_at,
        paused=paused,
        removed=removed,
    )


def _below(one: OpenSlice, marks: Mapping[str, int]) -> bool:
    return one.lane in marks and one.range.start < marks[one.lane]


def _waiting(of: Delivery, remedy: str) -> Waiting:
    return Waiting(of.sequence, of.state, of.rows, of.reason, remedy)


def _release(job: str, of: Delivery) -> str:
    return f'tidepost release {job} {of.sequence} --why "…"' if of.state is DeliveryState.HELD else ""


def cursor_kind(job: Job, scanned: Mapping[str, Ranges]) -> CursorKind:
    """The cursor's type as far as a text of a position needs it, without asking the source.

    It is what the job declares, else what its `start` says. A start that is a date fits two types, whose
    positions are so far apart that what was scanned tells them from each other.
    """
    start, declared = job.cursor.start, job.cursor.type
    if declared is not None:
        return CursorKind(CursorType(declared), zone=job.cursor.timezone)
    if isinstance(start, int):
        return CursorKind(CursorType.INTEGER)
    if isinstance(parse_moment(start), UUID):
        return CursorKind(CursorType.UUID)
    positions = [one.end for ranges in scanned.values() for one in ranges]
    dates = len(start) == len("2013-01-01") and positions and max(map(abs, positions)) < LAST_DAY
    return CursorKind(CursorType.DATE if dates else CursorType.TIMESTAMP, zone=job.cursor.timezone)


def _start(job: Job, kind: CursorKind) -> int:
    start = job.cursor.start_for(kind.type.value)
    return kind.parse(str(start) if isinstance(start, int | UUID) else start.isoformat())


def positions_text(kind: CursorKind, positions: Mapping[str, int]) -> str | None:
    """A position for each lane as text; None where there is none."""
    if not positions:
        return None
    if list(positions) == [""]:
        return kind.format(positions[""])
    return ", ".join(f"{lane} {kind.format(position)}" for lane, position in sorted(positions.items()))


def _instant(kind: CursorKind, position: int) -> float | None:
    """Seconds since 1970 of a position; of a date, its midnight. None for what is no time."""
    if not kind.timed:
        return None
    if kind.type is CursorType.TIMESTAMP:
        return position / SECOND
    day = EPOCH.date() + timedelta(days=position)
    return datetime.combine(day, time.min, ZoneInfo(kind.zone or "UTC")).timestamp()


def read_status(job: Job, ledger: SqlLedger | None, now: float) -> JobStatus:
    """A job's status from the ledger; None is a ledger that was not created yet. Raises as the ledger's reads do."""
    if ledger is None:
        return JobStatus(job.name, ())
    summaries, paused = ledger.reports.summary(job.name), ledger.deliveries.paused(job.name)
    return job_status(job, summaries, {one.name: _not_closed(ledger, one) for one in summaries}, now, paused)


def _not_closed(ledger: SqlLedger, of: StreamSummary) -> list[Delivery]:
    stream = ledger.plans.find(of.job, of.name)
    names = [each.destination for each in of.destinations] if stream is not None else []
    return [
        one
        for name in names
        if stream is not None
        for one in (*ledger.deliveries.open(stream, name), *ledger.deliveries.held(stream, name))
    ]


def document(status: JobStatus) -> dict[str, Any]:
    """A job's status as JSON values: positions and instants as text, lag in seconds."""
    return {"ran": status.ran, **_with_instants(asdict(status))}


def _with_instants(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: instant(one) if key in _INSTANTS else _with_instants(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_instants(one) for one in value]
    return value
