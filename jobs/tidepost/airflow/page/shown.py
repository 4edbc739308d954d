"""A reading as the page words it: texts, and what of them needs somebody's attention."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tidepost.airflow.page.reading import Broken, Fault, Found, Reading
from tidepost.model import DeliveryState
from tidepost.status import DestinationStatus, StreamStatus, Waiting
from tidepost.texts import count, instant, short, span

MOST: Final = 20
"""Waiting deliveries of one stream at one destination that the page lists; `tidepost status JOB` shows all."""


class Care(IntEnum):
    """How much a row needs somebody, most first; the page is in this order."""

    BROKEN = 0
    HELD = 1
    OPEN = 2
    NEVER = 3
    FINE = 4


@dataclass(frozen=True, slots=True)
class Dag:
    """A job's DAG, which Airflow has and the reader may see."""

    id: str
    paused: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant: `iso` in UTC, and how long ago that was."""

    iso: str
    ago: str


@dataclass(frozen=True, slots=True)
class Note:
    """A whole sentence, and what to type, if anything."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table: a job's stream at a destination, or a job without any.

    key:    of the row on the page, the same at every reading
    lag:    `3 h behind`; empty without a mark or for cursors that are no times
    blank:  whether there are no numbers to show
    too_late: whether rows came nearly as late as a lookback reaches
    more:   waiting deliveries that are not listed
    """

    key: str
    job: str
    care: Care
    state: str
    dag: Dag | None = None
    stream: str = ""
    destination: str = ""
    mark: str = ""
    lag: str = ""
    arrived: int = 0
    open: int = 0
    held: int = 0
    rejects: int = 0
    late: int = 0
    too_late: bool = False
    ran: Moment | None = None
    closed: Moment | None = None
    waiting: tuple[Waiting, ...] = ()
    more: int = 0
    notes: tuple[Note, ...] = ()
    fault: Fault | None = None
    blank: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """A number above the table, and whose it is; `care` where it is one that somebody should look at."""

    name: str
    value: str
    care: Care = Care.FINE
    of: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """The page.

    at:     when it was read
    folder: where job files are looked for; None without a project
    fault:  what concerns all of it
    """

    at: str
    folder: str | None
    fault: Fault | None
    tiles: tuple[Tile, ...]
    lines: tuple[Line, ...]


def shown(reading: Reading, dags: Mapping[str, Dag]) -> Shown:
    """The page of a reading; `dags` by job, and those for one stream alone by `of_stream`."""
    lines = [line for found in reading.jobs for line in _lines(found, dags, reading.at)]
    lines += [_broken(one) for one in reading.broken]
    lines.sort(key=lambda line: (line.care, line.job, line.key))
    at = instant(reading.at) or ""
    return Shown(at, reading.folder, reading.fault, tuple(_tiles(reading, lines)), tuple(lines))


def visible(reading: Reading, jobs: Collection[str], *, broken: bool) -> Reading:
    """What somebody may see of a reading who may see these jobs only, and the files that are wrong or not."""
    return Reading(
        reading.at,
        reading.folder,
        tuple(found for found in reading.jobs if found.name in jobs),
        reading.broken if broken else (),
        reading.fault,
    )


def of_stream(job: str, stream: str) -> str:
    """What a stream of a job is called among DAGs."""
    return f"{job}/{stream}"


def _lines(of: Found, dags: Mapping[str, Dag], now: float) -> Iterator[Line]:
    dag = dags.get(of.name)
    if of.status is None:
        yield Line(of.name, of.name, Care.BROKEN, "not readable", dag, fault=of.fault, blank=True)
    elif not of.status.ran:
        note = Note(f"Nothing was uploaded yet.{' Run its DAG, or' if dag else ''}", f"tidepost run {of.name}")
        yield Line(of.name, of.name, Care.NEVER, "never ran", dag, notes=(note,), blank=True)
    else:
        for stream in of.status.streams:
            for one in stream.destinations:
                yield _line(of.name, dags.get(of_stream(of.name, stream.name), dag), stream, one, now)


def _line(job: str, dag: Dag | None, stream: StreamStatus, to: DestinationStatus, now: float) -> Line:
    care, state = _state(stream, to)
    late = 0 if to.removed else stream.late_rows
    open_there = to.open + stream.open_cuts if to.sends else to.open
    held_first = sorted(to.waiting, key=lambda one: (one.state is not DeliveryState.HELD, one.sequence))
    return Line(
        key=f"{job}/{stream.name}/{to.name}",
        job=job,
        care=care,
        state=state,
        dag=dag,
        stream=stream.name.replace("_", " "),
        destination=to.name,
        mark=short(to.mark) if to.mark else "",
        lag="" if to.lag is None or to.removed else f"{span(to.lag)} behind",
        arrived=to.arrived,
        open=open_there,
        held=to.held,
        rejects=to.refused + (0 if to.removed else stream.rejects),
        late=late,
        too_late=bool(late) and stream.too_late is not None,
        ran=_moment(stream.last_run_at, now),
        closed=_moment(to.last_closed_at, now),
        waiting=tuple(held_first[:MOST]),
        more=max(0, len(to.waiting) - MOST),
        notes=tuple(_notes(job, stream, to)),
    )


def _state(stream: StreamStatus, to: DestinationStatus) -> tuple[Care, str]:
    if to.removed:
        return Care.FINE, "removed"
    if to.held:
        return Care.HELD, f"{to.held:,} held"
    if to.paused is not None:
        return Care.OPEN, "paused"
    if to.open or stream.open_cuts:
        return Care.OPEN, "on its way"
    return Care.FINE, "all arrived"


def _notes(job: str, stream: StreamStatus, to: DestinationStatus) -> Iterator[Note]:
    look = f"tidepost rejects {job}"
    if to.removed:
        yield Note(f"The job does not name {to.name} any more: nothing is sent there, and nothing waits for it.")
        return
    if to.paused is not None:
        why = f": {to.paused.why}" if to.paused.why else ""
        yield Note(
            f"Paused by {to.paused.who}, {instant(to.paused.at)}{why}.",
            f"tidepost resume {job} --destination {to.name}",
        )
    if stream.rejects:
        reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in sorted(stream.rejected.items()))
        yield Note(f"{count(stream.rejects, 'row')} rejected: {reasons}.", look)
    if to.refused:
        yield Note(f"{count(to.refused, 'row')} refused by {to.name}.", look)
    if stream.too_late:
        yield Note(f"{stream.too_late[:1].upper()}{stream.too_late[1:]}.")
    if stream.null_cursors:
        yield Note(f"{count(stream.null_cursors, 'row')} of the source without a cursor, which no scan can find.")
    if stream.open_cuts:
        yield Note(f"{count(stream.open_cuts, 'cut')} begun, which the next run finishes.")
    if to.below:
        yield Note(f"Open below the mark: {count(len(to.below), 'slice')} of backfills, late rows or repairs.")


def _broken(one: Broken) -> Line:
    return Line(one.file, one.file, Care.BROKEN, "file is wrong", fault=one.fault, blank=True)


def _moment(seconds: float | None, now: float) -> Moment | None:
    if seconds is None:
        return None
    ago = max(0, int(now - seconds))
    return Moment(instant(seconds) or "", f"{ago} s ago" if ago < 60 else f"{span(ago)} ago")


def _tiles(reading: Reading, lines: list[Line]) -> Iterator[Tile]:
    streams = [(found.name, one) for found in reading.jobs if found.status for one in found.status.streams]
    destinations = [(name, to) for name, stream in streams for to in stream.destinations]
    broken = sum(line.care is Care.BROKEN for line in lines)
    held = sum(stream.held for _, stream in streams)
    yield Tile("jobs", f"{len(reading.jobs) + len(reading.broken):,}")
    yield Tile("not readable", f"{broken:,}", Care.BROKEN if broken else Care.FINE)
    yield Tile("held for a person", f"{held:,}", Care.HELD if held else Care.FINE)
    yield Tile("open", f"{sum(stream.open for _, stream in streams):,}")
    lags = [(to.lag, name) for name, to in destinations if to.lag is not None and to.sends]
    if lags:
        lag, name = max(lags)
        yield Tile("furthest behind", span(lag), of=name)
    yield Tile("rows arrived", f"{sum(to.arrived for _, to in destinations):,}")
