"""`tidepost ground-truth`: upload files of labels by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidepost.cli.command import JobName, Now, command
from tidepost.cli.session import Session, clock_at, world_of
from tidepost.cli.upload import carry_out, finish, incremental

if TYPE_CHECKING:
    from tidepost.definition.job import Job
    from tidepost.definition.project import Project


@command("ground-truth", example="tidepost ground-truth flights week-1.csv s3://bucket/labels/week-2.parquet")
def ground_truth(
    session: Session,
    *,
    job: JobName,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files of labels: paths, or addresses in S3.")
    ],
    now: Now = None,
) -> int:
    """Upload labels from files.

    Each file once, by the job's section ground_truth; what else is new of its labels goes too.
    """
    clock, project = clock_at(now), session.project()
    definition = project.job(job)
    _register(project, definition, files, clock())
    return finish(session, carry_out(session, project, definition, incremental, clock=clock, stream="ground_truth"))


def _register(project: Project, job: Job, files: list[str], now: float) -> None:
    """Remember the files as ones to take up. Raises Misconfigured where one is not there, and remembers none."""
    from tidepost.agenda import registered  # noqa: PLC0415
    from tidepost.labels.dropping import by_hand, register  # noqa: PLC0415 - these bring the whole engine along
    from tidepost.wire import ledger_of  # noqa: PLC0415
    from tidepost.world import labels_of  # noqa: PLC0415

    with ledger_of(project) as ledger, world_of(project, job, ledger, clock=lambda: now) as world:
        labels = labels_of(world)
        if labels.drops is not None:
            found = by_hand(labels.drops, [name if "://" in name else str(Path(name).resolve()) for name in files])
            stream = registered(labels)
            for drop in found:
                register(labels.records, stream, drop)
