"""`tidepost purge`: drop data files that every destination has closed, once `staging.keep` is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidepost.cli.command import command
from tidepost.cli.output import count, size
from tidepost.cli.session import Session, existing_ledger

if TYPE_CHECKING:
    from tidepost.definition.job import Job
    from tidepost.definition.project import Project
    from tidepost.ledger.sql import SqlLedger
    from tidepost.model import Stream
    from tidepost.publishing.purge import Purged


@command("purge", example="tidepost purge --dry-run\ntidepost purge flights")
def purge(
    session: Session,
    *,
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="The job's name. Default: all jobs.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be dropped.")] = False,
) -> int:
    """Drop data files that are not needed any more.

    A file goes once every destination has closed it, staging.keep ago. The ids of its rows stay, so that they are
    never sent twice, and tidepost resend stages it again if need be.
    """
    project = session.project()
    definitions = project.definitions()
    jobs = [project.job(job)] if job is not None else list(definitions.jobs)
    problems = [] if job is not None else [error.message for error in definitions.problems]
    with existing_ledger(project) as ledger:
        done = [
            (stream, found) for each in jobs for stream, found in _streams(project, each, ledger, dry_run=dry_run)
        ]
    documents = [_document(stream, found) for stream, found in done]
    session.answer(
        {"dry_run": dry_run, "purged": documents, "problems": problems},
        *_text(done, dry_run=dry_run),
        *(f"not looked at, as its file is wrong: {problem}" for problem in problems),
    )
    return 0


def _streams(project: Project, job: Job, ledger: SqlLedger | None, *, dry_run: bool) -> list[tuple[Stream, Purged]]:
    """What was dropped, or would be, of each of a job's streams."""
    from tidepost.engine import Engine  # noqa: PLC0415 - these bring the whole engine along
    from tidepost.ledger.owner import this_process  # noqa: PLC0415
    from tidepost.model import StreamName  # noqa: PLC0415
    from tidepost.publishing.purge import Purge  # noqa: PLC0415
    from tidepost.wire import staging_of  # noqa: PLC0415

    staging, found = staging_of(project), []
    for name in StreamName:
        stream = None if ledger is None else ledger.plans.find(job.name, name)
        if ledger is None or stream is None:
            continue
        keep = job.staging.keep.total_seconds()
        purge = Purge(stream, ledger, staging, staging, [to.name for to in job.destinations], keep)
        if dry_run:
            found.append((stream, purge.look()))
        else:
            engine = Engine(job.limits.memory, job.limits.threads, staging.spill)
            found.append((stream, purge.purge(engine, this_process())))
    return found


def _document(stream: Stream, found: Purged) -> dict[str, Any]:
    return {
        "job": stream.job,
        "stream": stream.name,
        "slices": found.slices,
        "files": found.parts,
        "rows": found.rows,
        "bytes": found.size,
        "bytes_left": found.left,
        "busy": found.busy,
    }


def _text(done: Sequence[tuple[Stream, Purged]], *, dry_run: bool) -> list[str]:
    lines = []
    for stream, found in done:
        if not found.slices and not found.busy:
            continue
        files, of = count(found.parts, "file"), count(found.rows, "row")
        if dry_run:
            lines.append(f"{stream.job}: {files} of {of} would be dropped, {size(found.size)}")
        else:
            lines.append(f"{stream.job}: {files} of {of} dropped, {size(found.size)}; ids kept in {size(found.left)}")
        if found.busy:
            lines.append(f"  {count(found.busy, 'slice')} left, as another process works on them")
    return lines or ["nothing may be dropped yet"]
