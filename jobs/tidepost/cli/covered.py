"""How many inferences have a label, as text: of `tidepost status` and `tidepost reconcile`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tidepost.cli.output import span, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tidepost.definition.job import Job
    from tidepost.definition.project import Project
    from tidepost.labels.coverage import Coverage
    from tidepost.ledger.sql import SqlLedger


def covered(project: Project, job: Job, ledger: SqlLedger, now: float) -> Coverage | None:
    """What is known of a job's labels; None where it has none."""
    from tidepost.engine import Engine  # noqa: PLC0415
    from tidepost.labels.coverage import JoinWindow, coverage  # noqa: PLC0415 - this brings the engine along
    from tidepost.ledger.comparing import SqlComparing  # noqa: PLC0415
    from tidepost.model import StreamName  # noqa: PLC0415
    from tidepost.wire import join_windows_of, staging_of  # noqa: PLC0415

    stream = None if job.ground_truth is None else ledger.plans.find(job.name, StreamName.GROUND_TRUTH)
    if stream is None:
        return None
    area = staging_of(project)
    engine = Engine(job.limits.memory, job.limits.threads, area.spill)
    inferences = ledger.plans.find(job.name, StreamName.INFERENCES)
    windows = {
        name: JoinWindow(seconds, SqlComparing(ledger).closed(inferences, name))
        for name, seconds in join_windows_of(job).items()
        if inferences is not None
    }
    return coverage(job, engine, area, ledger, stream, now=now, windows=windows)


def coverage_text(of: Coverage) -> Iterator[RenderableType]:
    """Days of inferences, and what waits."""
    yield "\nlabels"
    rows = [
        (
            day.day,
            f"{day.inferences:,}",
            f"{day.labelled:,}",
            f"{day.labelled * 100 // day.inferences}%" if day.inferences else "",
            "" if day.median is None else span(day.median),
            "" if day.late is None else span(day.late),
        )
        for day in of.days
    ]
    yield table(("day of inference", "#inferences", "#labelled", "#share", "#median age", "#95th"), rows)
    for name in dict.fromkeys(each for day in of.days for each in day.too_late):
        late = ", ".join(day.day for day in of.days if name in day.too_late)
        yield f"\nfurther labels come too late at {name} for: {late}"
    waiting = f"{of.held:,}" + (f", of which {of.orphans:,} are orphans" if of.orphans else "")
    yield f"\nwaiting for their inference: {waiting}"
    if of.named:
        more = f", and {of.orphans - len(of.named):,} more" if of.orphans > len(of.named) else ""
        yield f"orphans: {', '.join(of.named)}{more}"
    yield from (f"set aside: {one.path}: {one.error}" for one in of.aside)
