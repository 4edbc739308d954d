"""`tidepost validate`: would a run of each job begin?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidepost.cli.command import command
from tidepost.cli.failures import document_of, show
from tidepost.cli.output import count
from tidepost.cli.session import Session, closing_destination, existing_ledger
from tidepost.errors import Misconfigured, TidepostError

if TYPE_CHECKING:
    from tidepost.definition.job import Job
    from tidepost.definition.project import Project
    from tidepost.ledger.sql import SqlLedger
    from tidepost.ports import Destination


@dataclass(frozen=True, slots=True)
class Checked:
    """A job, or a file that is none: what was found of it, or what is wrong."""

    name: str | None
    found: str = ""
    error: TidepostError | None = None

    def document(self) -> dict[str, Any]:
        error = None if self.error is None else document_of(self.error)
        return {"job": self.name, "valid": self.error is None, "found": self.found, "error": error}


@command("validate", example="tidepost validate\ntidepost validate flights --connect")
def validate(
    session: Session,
    *,
    jobs: Annotated[
        list[str] | None, typer.Argument(metavar="JOB…", help="The jobs' names. Default: all jobs.")
    ] = None,
    connect: Annotated[bool, typer.Option("--connect", help="Ask the destinations too; needs their keys.")] = False,
) -> int:
    """Check definitions, sources, cursors and mappings.

    One line a job; all that is wrong with any of them is shown.
    """
    project = session.project()
    checked = [_checked(project, one, connect) for one in _found(project, jobs or ())]
    wrong = [one.error for one in checked if one.error is not None]
    right = [f"{one.name}: {one.found}" for one in checked if one.error is None]
    session.answer(
        {"valid": not wrong, "jobs": [one.document() for one in checked]},
        *(right or ([] if wrong else [f"no jobs in {project.root / 'jobs'}"])),
    )
    if not session.as_json:
        for one in checked:
            if one.error is not None:
                show(document_of(one.error, about=one.name or ""), as_json=False)
    codes = {error.exit_code for error in wrong}
    return Misconfigured.exit_code if Misconfigured.exit_code in codes else max(codes, default=0)


def _found(project: Project, names: Sequence[str]) -> Iterator[Job | Checked]:
    """The jobs of that name, or all; what cannot be loaded is wrong already."""
    if not names:
        definitions = project.definitions()
        yield from definitions.jobs
        yield from (Checked(None, error=error) for error in definitions.problems)
    for name in names:
        try:
            yield project.job(name)
        except Misconfigured as error:
            yield Checked(name, error=error)


def _checked(project: Project, job: Job | Checked, connect: bool) -> Checked:
    if isinstance(job, Checked):
        return job
    try:
        with existing_ledger(project) as ledger:
            return Checked(job.name, _check(job, ledger, connect))
    except TidepostError as error:
        return Checked(job.name, error=error)


def _check(job: Job, ledger: SqlLedger | None, connect: bool) -> str:
    """What was found, in words. Raises Misconfigured for what would keep a run from beginning, and Retryable."""
    from tidepost.wire import destinations_of  # noqa: PLC0415 - these bring the whole engine along

    resolved = job.resolved()
    labels = resolved.of_labels()
    with ExitStack() as stack:
        asked = (
            [stack.enter_context(closing_destination(one)) for one in destinations_of(resolved)] if connect else []
        )
        with resolved.placed():
            found = _of_stream(resolved, ledger, asked)
        if labels is None:
            return found
        with labels.placed():
            return f"{found}; ground truth: {_of_stream(labels, ledger, asked)}"


def _of_stream(resolved: Job, ledger: SqlLedger | None, destinations: Sequence[Destination]) -> str:
    """As `_check`, of one stream; destinations that are to be asked too."""
    from tidepost.engine import Engine  # noqa: PLC0415
    from tidepost.planning.prospect import start_of  # noqa: PLC0415
    from tidepost.rows.drift import check_pinned, check_source  # noqa: PLC0415 - these bring the whole engine along
    from tidepost.rows.shape import shape  # noqa: PLC0415
    from tidepost.sourcing import source_of  # noqa: PLC0415

    stream = None if ledger is None else ledger.plans.find(resolved.name, resolved.stream)
    with TemporaryDirectory(prefix="tidepost-") as scratch:
        engine = Engine(resolved.limits.memory, resolved.limits.threads, Path(scratch))
        source = source_of(resolved, engine, stream=lambda: stream)
        columns, kind = source.columns(), source.cursor()
    start_of(resolved, kind)
    pinned = {} if stream is None else stream.pinned
    staged = shape(
        resolved.mapping,
        columns,
        pinned=pinned,
        finite_only=resolved.limits.non_finite == "reject",
        quarantine=resolved.drift == "quarantine",
        stream=resolved.stream,
    ).staged
    check_pinned(staged, pinned)
    told = () if stream is None or not pinned else check_source(resolved, stream.columns, columns)
    by = "by files alone" if resolved.source.nowhere else f"cursor {resolved.cursor.column} ({kind.type})"
    found = f"valid; {by}, {count(len(staged), 'column')} to send"
    found = "; ".join([found, *told])
    if not destinations:
        return found
    for one in destinations:
        one.check(resolved.stream, staged)
    names = " and ".join(one.name for one in destinations)
    return f"{found}, which {names} {'takes' if len(destinations) == 1 else 'take'}"
