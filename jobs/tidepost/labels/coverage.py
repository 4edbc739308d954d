"""Coverage: how many inferences have a label by now, how old labels are, and what waits for its inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tidepost.cursor import HOUR, format_instant
from tidepost.engine import Engine
from tidepost.labels.dropping import SetAside, aside
from tidepost.labels.holding import held_now, inferences_of
from tidepost.labels.versions import day_of, load_labelled
from tidepost.model import MICROSECONDS_AN_HOUR, Stream
from tidepost.ports import Ledger, StagingArea
from tidepost.ranges import Range

if TYPE_CHECKING:
    from tidepost.definition.job import Job

HOURS_A_DAY: Final = 24
MOST_ORPHANS: Final = 20
"""Orphans that are named."""


@dataclass(frozen=True, slots=True)
class Day:
    """A day of inferences, in UTC.

    inferences: published
    labelled:   of these, how many a label was published of
    median:     of the ages of these labels, in seconds: from the inference to what the label tells of; None without
    late:       their 95th percentile
    too_late:   the destinations at which no further label joins: the newest receipt there is too long ago
    """

    day: str
    inferences: int
    labelled: int
    median: float | None
    late: float | None
    too_late: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JoinWindow:
    """How long labels join at a destination.

    seconds:  after an inference was received
    received: slice of inferences → when its delivery there closed, in seconds since 1970
    """

    seconds: float
    received: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of a job's labels.

    held:    labels that wait for their inference
    orphans: those of them that wait longer than the job bears
    named:   some of the orphans' ids
    days:    the newest days of inferences, newest first
    aside:   files of labels that could not be read
    """

    held: int
    orphans: int
    named: tuple[str, ...]
    days: tuple[Day, ...]
    aside: tuple[SetAside, ...] = ()


def coverage(
    job: Job,
    engine: Engine,
    area: StagingArea,
    ledger: Ledger,
    stream: Stream,
    *,
    now: float,
    days: int = 14,
    windows: Mapping[str, JoinWindow] = MappingProxyType({}),
) -> Coverage:
    """What is known of a job's labels by now; `now` in seconds since 1970, `windows` by destination.
    Raises Retryable and Misconfigured where the staging cannot be read."""
    bears = job.ground_truth.orphan_after if job.ground_truth is not None else timedelta()
    held = [one for _, one in held_now(area, ledger, stream)]
    orphans = [one for one in held if one.since + bears.total_seconds() < now]
    named = sorted(str(id_) for one in orphans for id_ in one.ids.to_pylist()[:MOST_ORPHANS])[:MOST_ORPHANS]
    late = {name: _too_late(ledger, stream, window, now) for name, window in windows.items()}
    return Coverage(
        sum(one.rows.num_rows for one in held),
        sum(one.rows.num_rows for one in orphans),
        tuple(named),
        tuple(
            replace(day, too_late=tuple(name for name, each in late.items() if day.day in each))
            for day in _days(engine, area, ledger, stream, days)
        ),
        tuple(aside(area, stream)),
    )


def _days(engine: Engine, area: StagingArea, ledger: Ledger, stream: Stream, most: int) -> list[Day]:
    inferences = ledger.plans.find(stream.job, inferences_of(stream).name)
    counted = _by_day(ledger, inferences) if inferences is not None else {}
    newest = sorted(counted, reverse=True)[:most]
    if not newest:
        return []
    window = Range(newest[-1] * HOURS_A_DAY, (newest[0] + 1) * HOURS_A_DAY)
    micros = Range(window.start * MICROSECONDS_AN_HOUR, window.end * MICROSECONDS_AN_HOUR)
    with engine.connect() as connection:
        cuts = ledger.slices.cuts(stream, frozenset(range(newest[-1], newest[0] + 1)))[1]
        load_labelled(connection, area, stream, cuts, window=micros)
        found = connection.execute(
            f"SELECT {day_of('event')}, count(*), quantile_cont(age, 0.5), "
            f"quantile_cont(age, 0.95) FROM (SELECT any_value(event) AS event, min(label_at - event) / 1e6 AS age "
            f"FROM tidepost_labelled GROUP BY id) GROUP BY 1"
        ).fetchall()
    labelled = {int(day): (int(number), float(median), float(late)) for day, number, median, late in found}
    return [Day(_told(day), counted[day], *labelled.get(day, (0, None, None))) for day in newest]


def _too_late(ledger: Ledger, stream: Stream, window: JoinWindow, now: float) -> set[str]:
    """The days of inferences whose labels join no more."""
    inferences = ledger.plans.find(stream.job, inferences_of(stream).name)
    newest: dict[int, float] = {}
    for ref in () if inferences is None else ledger.slices.published(inferences, None).parts:
        received = window.received.get(ref.sequence, now)  # what is still on its way comes to join its labels
        for hour in ref.part.hours:
            newest[hour // HOURS_A_DAY] = max(newest.get(hour // HOURS_A_DAY, 0.0), received)
    return {_told(day) for day, received in newest.items() if received + window.seconds < now}


def _told(day: int) -> str:
    return format_instant(day * HOURS_A_DAY * HOUR)[:10]


def _by_day(ledger: Ledger, inferences: Stream) -> Mapping[int, int]:
    """Published inferences by day since 1970."""
    found: Counter[int] = Counter()
    for ref in ledger.slices.published(inferences, None).parts:
        for hour, rows in ref.part.hours.items():
            found[hour // HOURS_A_DAY] += rows
    return found
