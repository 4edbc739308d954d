"""`tidepost release`: a person lets a held slice go."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tidepost.cli.command import JobName, OfStream, command
from tidepost.cli.ledger import written_by_hand
from tidepost.cli.output import count, write
from tidepost.cli.session import Session, existing_ledger
from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from tidepost.ledger.sql import SqlLedger
    from tidepost.ledger.summary import SliceRow
    from tidepost.model import Stream


@command("release", example='tidepost release flights 3 --why "the carrier is new, and right"')
def release(
    session: Session,
    *,
    job: JobName,
    sequence: Annotated[int, typer.Argument(metavar="SLICE", help="The slice's number, as status shows it.")],
    why: Annotated[str, typer.Option(metavar="TEXT", help="For the record: why its rows may go.")],
    arrived: Annotated[
        bool,
        typer.Option("--arrived", help="What was sent without an answer did arrive: it is not sent again."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed without a terminal.")] = False,
    stream: OfStream = "inferences",
) -> int:
    """Let a held slice go.

    What of it can be sent is sent by the next run. Who did it and why is recorded.
    """
    from tidepost.model import StreamName  # noqa: PLC0415
    from tidepost.publishing.publish import agree  # noqa: PLC0415
    from tidepost.recovery.acts import release as let_go  # noqa: PLC0415 - the ledger's database is heavy
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
        row = _held(ledger, known, sequence)
        if not (yes or _confirmed(job, row)):
            session.answer({"job": job, "slice": sequence, "released": []}, "nothing was released")
            return 0
        freed = let_go(ledger, staging, known, sequence, word, arrived=arrived)
    session.answer(
        {"job": job, "slice": sequence, "rows": row.rows, "released": [one.destination for one in freed]},
        f"slice {sequence} ({count(row.rows, 'row')}) may go to {', '.join(one.destination for one in freed)}\n"
        f"  Send it:  tidepost run {job}",
    )
    return 0


def _held(ledger: SqlLedger, stream: Stream, sequence: int) -> SliceRow:
    """The held slice. Raises Misconfigured where it is not held, naming those that are."""
    rows = ledger.reports.slices(stream, limit=max(1, stream.published))
    held = {row.sequence: row for row in rows if row.held is not None or "held" in row.states.values()}
    if sequence not in held:
        names = ", ".join(map(str, sorted(held))) or "none is"
        raise Misconfigured(
            f"slice {sequence} of {stream.job} is not held", safe="Nothing was changed.", hint=f"Held: {names}"
        )
    return held[sequence]


def _confirmed(job: str, row: SliceRow) -> bool:
    """Ask on the terminal. Raises Misconfigured where there is nobody to ask."""
    if not sys.stdin.isatty():
        raise Misconfigured(
            "there is no terminal to ask on", safe="Nothing was released.", hint="Say that you mean it:  --yes"
        )
    held = f", held as {row.held}" if row.held else ""
    write(f"slice {row.sequence} of {job}: {count(row.rows, 'row')}{held}", sys.stderr)
    return typer.confirm("Let it go?", err=True)
