"""A job that is late: what the triggerer runs when a run has not ended in time.

The triggerer imports this by its name, `tidepost.airflow.deadline.late`, so it is part of the package.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from tidepost.airflow.world import titled
from tidepost.definition.units import duration_text
from tidepost.errors import TidepostError

if TYPE_CHECKING:
    from airflow.sdk import DeadlineAlert

    from tidepost.definition.job import Job

log: Final = logging.getLogger(__name__)
PATH: Final = f"{__name__}.late"


def deadline(job: Job, project: str | None = None, stream: str | None = None) -> DeadlineAlert | None:
    """The alert of a job with a freshness target; None for the others.

    project: the root that the DAG file names, if it names one
    stream:  the one that the DAG uploads, where that is not all of the job
    """
    from airflow.sdk import AsyncCallback, DeadlineAlert, DeadlineReference  # noqa: PLC0415 - the triggerer has none

    wanted = job.airflow.freshness
    if wanted is None:
        return None
    values = {
        "job": job.name,
        "freshness": wanted.total_seconds(),
        "to": list(job.airflow.notify),
        "project": project,
        **({} if stream is None else {"stream": stream}),
    }
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=wanted, callback=AsyncCallback(PATH, kwargs=values)
    )


async def late(
    *,
    job: str,
    freshness: float,
    to: Sequence[str] = (),
    project: str | None = None,
    stream: str | None = None,
    context: Mapping[str, Any] | None = None,
) -> str:
    """Say which job is late, where its mark stands and how far that is behind; returns the text.

    freshness: seconds
    context:   what Airflow tells of the run and of the deadline; may be missing
    """
    run = ((context or {}).get("dag_run") or {}).get("dag_run_id", "")
    text = await asyncio.to_thread(late_text, job, freshness, run, project, stream)
    log.error(text)
    if to:
        from tidepost.airflow.notify import mail  # noqa: PLC0415

        await asyncio.to_thread(mail, to, f"tidepost: {titled(job, stream or 'inferences')} is late", text)
    return text


def late_text(job: str, freshness: float, run: str, project: str | None = None, stream: str | None = None) -> str:
    """What to tell of a job that is late, with each destination's mark as far as the ledger can be read from here."""
    first = f"{titled(job, stream or 'inferences')} is late: its run {run} has not ended within {_span(freshness)}"
    return "\n  ".join([first, *_marks(job, project, stream)])


def _marks(job: str, root: str | None, stream: str | None) -> list[str]:
    from tidepost.airflow.connections import environment  # noqa: PLC0415
    from tidepost.airflow.place import the_project  # noqa: PLC0415
    from tidepost.status import read_status  # noqa: PLC0415
    from tidepost.wire import existing_ledger_of  # noqa: PLC0415

    try:
        project = the_project(root)
        with ExitStack() as stack:
            ledger = existing_ledger_of(project, environment(project))
            if ledger is not None:
                stack.enter_context(ledger)
            status = read_status(project.job(job), ledger, time.time())
    except (TidepostError, OSError) as error:
        return [f"Its mark cannot be read from here: {error}"]
    these = [of for of in status.streams if stream is None or of.name == stream]
    found = [
        (f"{one.name}, {of.name.replace('_', ' ')}" if len(these) > 1 else one.name)
        + f": the mark stands at {one.mark or 'the start'}"
        + (f", {_span(one.lag)} behind" if one.lag is not None else "")
        + (f"; {one.held} held for a person" if one.held else "")
        for of in these
        for one in of.destinations
    ]
    return [*(found or ["Nothing was uploaded yet."]), f"See:  tidepost status {job}"]


def _span(seconds: float) -> str:
    return duration_text(timedelta(seconds=max(round(seconds), 0)))
