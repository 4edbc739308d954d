"""`tidepost skip`: a person gives a held slice up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from tidepost.cli.command import JobName, OfStream, command
from tidepost.cli.ledger import Why, Yes, confirmed, written_by_hand
from tidepost.cli.output import count
from tidepost.cli.session import Session, existing_ledger
from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from tidepost.ledger.sql import SqlLedger
    from tidepost.model import Delivery, Stream


@command("skip", example='tidepost skip flights 3 --why "the carrier sent nonsense that day"')
def skip(
    session: Session,
    *,
    job: JobName,
    sequence: Annotated[int, typer.Argument(metavar="SLICE", help="The slice's number, as status shows it.")],
    why: Why,
    yes: Yes = False,
    stream: OfStream = "inferences",
) -> int:
    """Give a held slice up, so that the mark can move.

    Its rows that have not arrived are never sent. Who did it and why is recorded.
    """
    from tidepost.model import StreamName  # noqa: PLC0415
    from tidepost.publishing.publish import agree  # noqa: PLC0415
    from tidepost.recovery.acts import skip as give_up  # noqa: PLC0415 - the ledger's database is heavy
    from tidepost.wire import staging_of  # noqa: PLC0415

    word = written_by_hand(why, time.time())
    project = session.project()
    project.job(job)
    staging = staging_of(project)
    with existing_ledger(project) as ledger:
        known = None if ledger is None else ledger.plans.find(job, StreamName(stream))
        if ledger is None or known is None:
            raise Misconfigured(f"{job} never ran", hint=f"tidepost run {job}")
        agree(ledger, staging, known)
        held = _held(ledger, known, sequence)
        left = sum(one.rows - one.arrived - one.refused for one in held)
        where = ", ".join(one.destination for one in held)
        asked = f"slice {sequence} of {job}: {count(left, 'row')} would never be sent to {where}"
        if not confirmed(asked, "Skip it?", yes=yes):
            session.answer({"job": job, "slice": sequence, "skipped": []}, "nothing was skipped")
            return 0
        for one in held:
            give_up(ledger, staging, known, one, word)
    session.answer(
        {"job": job, "slice": sequence, "rows": left, "skipped": [one.destination for one in held]},
        f"slice {sequence} was skipped at {where}: {count(left, 'row')} will not be sent",
    )
    return 0


def _held(ledger: SqlLedger, stream: Stream, sequence: int) -> list[Delivery]:
    """The slice's held deliveries. Raises Misconfigured where there are none, naming the slices that are held."""
    names = [
        each.destination
        for one in ledger.reports.summary(stream.job)
        if one.name == stream.name
        for each in one.destinations
    ]
    held = [one for name in names for one in ledger.deliveries.held(stream, name)]
    chosen = [one for one in held if one.sequence == sequence]
    if not chosen:
        others = ", ".join(map(str, sorted({one.sequence for one in held}))) or "none is"
        raise Misconfigured(
            f"slice {sequence} of {stream.job} is not held", safe="Nothing was changed.", hint=f"Held: {others}"
        )
    return chosen
