"""`tidepost status`: what arrived, where the mark stands, and what waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tidepost.cli.command import Now, command
from tidepost.cli.covered import coverage_text, covered
from tidepost.cli.output import count, instant, short, size, span, table
from tidepost.cli.session import Session, clock_at, existing_ledger

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tidepost.status import DestinationStatus, JobStatus, StreamStatus

_COLUMNS = (
    "job",
    "stream",
    "destination",
    "mark",
    "#lag",
    "#published",
    "#arrived",
    "#rejected",
    "#open",
    "#held",
    "last run",
)


@command("status", example="tidepost status\ntidepost status flights --json")
def status(
    session: Session,
    *,
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="The job's name. Default: all jobs.")] = None,
    now: Now = None,
) -> int:
    """Show what arrived, how far behind it is, and what is held.

    Reads the ledger only, and of one job's labels the staging: neither source nor destination has to answer.
    """
    from tidepost.definition.project import Definitions  # noqa: PLC0415 - definitions and the ledger are heavy
    from tidepost.status import document, read_status  # noqa: PLC0415

    project, at = session.project(), clock_at(now)()
    definitions = Definitions((project.job(job),), ()) if job is not None else project.definitions()
    with existing_ledger(project) as ledger:
        jobs = [read_status(one, ledger, at) for one in definitions.jobs]
        if job is not None and ledger is not None:
            jobs = [replace(jobs[0], coverage=covered(project, definitions.jobs[0], ledger, at))]
    if job is not None:
        session.answer(document(jobs[0]), *_details(jobs[0]))
        return 0
    problems = [error.message for error in definitions.problems]
    rows = [row for one in jobs for row in _rows(one)]
    session.answer(
        {"jobs": [document(one) for one in jobs], "problems": problems},
        table(_COLUMNS, rows) if rows else f"no jobs in {project.root / 'jobs'}",
        *(f"not shown, as its file is wrong: {problem}" for problem in problems),
    )
    return 0


def _rows(of: JobStatus) -> Iterator[tuple[str, ...]]:
    if not of.ran:
        yield (of.job, "", "", "never ran", *[""] * (len(_COLUMNS) - 4))
    for stream in of.streams:
        for one in stream.destinations:
            yield (
                of.job,
                stream.name,
                f"{one.name}{_standing(one)}",
                _mark(one),
                _lag(one),
                f"{stream.rows:,}",
                f"{one.arrived:,}",
                f"{stream.rejects + one.refused:,}",
                f"{one.open + stream.open_cuts:,}",
                f"{one.held:,}",
                _at(stream.last_run_at),
            )


def _details(of: JobStatus) -> Iterator[RenderableType]:
    if not of.ran:
        yield f"{of.job} never ran\n  Upload what is there:  tidepost run {of.job}"
    for stream in of.streams:
        if stream is not of.streams[0]:
            yield ""
        yield f"{of.job}, {stream.name}"
        yield table(("", ""), list(_facts(stream)), headless=True)
        for one in stream.destinations:
            yield f"\nat {one.name}"
            yield table(("", ""), list(_arrivals(one)), headless=True)
            if one.waiting:
                rows = [
                    (str(each.sequence), each.state, f"{each.rows:,}", each.reason, each.remedy)
                    for each in one.waiting
                ]
                yield ""
                yield table(("#slice", "state", "#rows", "why", "to go on"), rows)
    if of.coverage is not None:
        yield from coverage_text(of.coverage)


def _facts(of: StreamStatus) -> Iterator[tuple[str, str]]:
    yield "published", f"{count(of.rows, 'row')} in {count(of.slices, 'slice')}, {size(of.size)}"
    yield "duplicates", f"{of.duplicates:,}"
    reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in sorted(of.rejected.items()))
    yield "rejected", f"{of.rejects:,}{f' ({reasons})' if reasons else ''}"
    if of.superseded:
        yield "superseded", f"{count(of.superseded, 'label')} older than one that is known"
    if of.waiting:
        yield "held", f"{count(of.waiting, 'label')} until the inference is there"
    if of.late_rows:
        late = f", up to {span(of.late)} below the newest within the last week" if of.late else ""
        yield "came late", f"{count(of.late_rows, 'row')}{late}"
    if of.too_late:
        yield "warning", of.too_late
    if of.null_cursors:
        yield "without cursor", f"{count(of.null_cursors, 'row')} of the source, which no scan can find"
    yield "scanned up to", short(of.frontier) if of.frontier else "nothing yet"
    if of.open_cuts:
        yield "open cuts", f"{of.open_cuts:,}, which the next run finishes"
    if of.publishing is not None:
        yield "being published", f"slice {of.publishing}"
    yield "last published", _at(of.last_published_at)
    yield "last run", _at(of.last_run_at)


def _arrivals(of: DestinationStatus) -> Iterator[tuple[str, str]]:
    if of.removed:
        yield "removed", "the job does not name it any more: nothing is sent there, and nothing waits for it"
    if of.paused is not None:
        why = f": {of.paused.why}" if of.paused.why else ""
        yield "paused", f"by {of.paused.who}, {_at(of.paused.at)}{why}"
    lag = f", {_lag(of)} behind" if of.lag is not None else ""
    yield "mark", f"{_mark(of)}{lag}"
    yield "arrived", count(of.arrived, "row")
    yield "refused", count(of.refused, "row")
    yield "open, held", f"{of.open:,}, {of.held:,}"
    if of.below:
        yield "open below the mark", f"slices {', '.join(map(str, of.below))}"
    yield "last arrival", _at(of.last_closed_at)


def _standing(of: DestinationStatus) -> str:
    return " (removed)" if of.removed else " (paused)" if of.paused is not None else ""


def _mark(of: DestinationStatus) -> str:
    return short(of.mark) if of.mark else "none yet"


def _lag(of: DestinationStatus) -> str:
    return "" if of.lag is None else span(of.lag)


def _at(seconds: float | None) -> str:
    return instant(seconds) or "never"
