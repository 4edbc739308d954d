"""`tidepost pause` and `tidepost resume`: nothing is sent to one destination for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from tidepost.cli.command import JobName, command
from tidepost.cli.ledger import written_by_hand
from tidepost.cli.output import count
from tidepost.cli.session import Session, existing_ledger
from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from tidepost.ledger.sql import SqlLedger
    from tidepost.model import Stream
    from tidepost.ports import StagingArea

Where = Annotated[str, typer.Option("--destination", metavar="NAME", help="The destination's name.")]
ForTheRecord = Annotated[str, typer.Option("--why", metavar="TEXT", help="For the record.")]


@command("pause", example='tidepost pause flights --destination arize --why "its key is renewed on Monday"')
def pause(session: Session, *, job: JobName, destination: Where, why: ForTheRecord = "") -> int:
    """Send nothing to a destination until it is resumed.

    The others go on. What it misses is kept, however long that takes. A run that is under way ends as it began.
    """
    from tidepost.recovery.acts import pause as act  # noqa: PLC0415 - the ledger's database is heavy

    word = written_by_hand(why or "not said", time.time())
    with _opened(session, job, destination) as (ledger, staging, stream):
        act(ledger, staging, stream, destination, word)
    session.answer(
        {"job": job, "destination": destination, "paused": True},
        f"{job} sends nothing to {destination} from its next run on\n"
        f"  Go on:  tidepost resume {job} --destination {destination}",
    )
    return 0


@command("resume", example="tidepost resume flights --destination arize")
def resume(session: Session, *, job: JobName, destination: Where, why: ForTheRecord = "") -> int:
    """Send to a destination again that was paused.

    The next run sends what it missed.
    """
    from tidepost.model import StreamName  # noqa: PLC0415
    from tidepost.recovery.acts import resume as act  # noqa: PLC0415 - the ledger's database is heavy

    word = written_by_hand(why or "not said", time.time())
    with _opened(session, job, destination) as (ledger, staging, stream):
        act(ledger, staging, stream, destination, word)
        streams = [found for name in StreamName if (found := ledger.plans.find(job, name)) is not None]
        missed = sum(len(ledger.deliveries.open(one, destination)) for one in streams)
    session.answer(
        {"job": job, "destination": destination, "paused": False, "deliveries": missed},
        f"{destination} is sent to again; it missed {count(missed, 'slice')}\n  Send them:  tidepost run {job}",
    )
    return 0


@contextmanager
def _opened(session: Session, job: str, destination: str) -> Iterator[tuple[SqlLedger, StagingArea, Stream]]:
    """The ledger, the staging, and the job's inferences. Raises Misconfigured where the job never ran, or has no such
    destination."""
    from tidepost.model import StreamName  # noqa: PLC0415
    from tidepost.publishing.publish import agree  # noqa: PLC0415
    from tidepost.wire import staging_of  # noqa: PLC0415

    project = session.project()
    names = [to.name for to in project.job(job).destinations]
    if destination not in names:
        raise Misconfigured(f"{job} has no destination {destination!r}", hint=f"It has: {', '.join(names)}")
    staging = staging_of(project)
    with existing_ledger(project) as ledger:
        stream = None if ledger is None else ledger.plans.find(job, StreamName.INFERENCES)
        if ledger is None or stream is None:
            raise Misconfigured(f"{job} never ran", hint=f"tidepost run {job}")
        agree(ledger, staging, stream)
        yield ledger, staging, stream
