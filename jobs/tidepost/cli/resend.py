"""`tidepost resend`: ask a platform what it holds, and send what it lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tidepost.cli.command import JobName, Now, OfStream, command
from tidepost.cli.failures import code_of, document_of, show, told
from tidepost.cli.ledger import Yes, confirmed
from tidepost.cli.output import count
from tidepost.cli.reconcile import By, ByWhat, From, OnlyAt, To, at, reconciling, scope_of
from tidepost.cli.session import Session
from tidepost.cli.stopping import stoppable
from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from tidepost.comparing.reconcile import Reconciling, Scope
    from tidepost.ledger.sql import SqlLedger
    from tidepost.model import Stream
    from tidepost.outcome import Outcome


_WHY: Final = "rows are not there any more"
_WHY_BLIND: Final = "everything goes again, without asking"


@command(
    "resend",
    example="tidepost resend flights --slice 12\n"
    "tidepost resend flights --from 2013-01-03 --to 2013-01-05 --yes\n"
    "tidepost resend flights --destination arize --blind --slice 12",
)
def resend(
    session: Session,
    *,
    job: JobName,
    sequence: Annotated[
        int | None, typer.Option("--slice", metavar="SLICE", help="One slice, by its number.")
    ] = None,
    start: From = None,
    end: To = None,
    by: ByWhat = By.CURSOR,
    destination: OnlyAt = None,
    why: Annotated[str, typer.Option(metavar="TEXT", help="For the record: why.")] = "",
    blind: Annotated[bool, typer.Option("--blind", help="Send without asking first, where repeats merge.")] = False,
    yes: Yes = False,
    now: Now = None,
    stream: OfStream = "inferences",
) -> int:
    """Send again what a platform lost.

    Asks it for the ids of what had arrived, shows what is not there, and sends exactly that: from the staged files,
    or, where these were purged, staged again from the source with the same ids and content. With --blind, everything
    that was accepted goes again, for a platform that cannot be asked.
    """
    from tidepost.comparing.resend import askable, mergeable  # noqa: PLC0415 - these bring the whole engine along

    if sequence is not None and start is not None:
        raise Misconfigured("--slice and --from, --to do not go together")
    with reconciling(session, job, "day", now, stream=stream) as found:
        if found is None:
            raise Misconfigured(f"{job} never ran", hint=f"tidepost run {job}")
        world, kind, it = found
        asked = (mergeable if blind else askable)(world.job, at(world, destination))
        scope = _scope(it.ledger, it.stream, sequence) if sequence is not None else scope_of(kind, start, end, by)
        result = it.reconcile(scope, asked, source=False)
        found_there = result.taken if blind else result.lost
        lost = {name: dict(of) for name, of in found_there.items() if of}
        rows = sum(sum(of.values()) for of in lost.values())
        if not lost:
            nothing = "nothing was accepted there yet" if blind else "everything that had arrived is there"
            session.answer(_document(job, 0, None), f"{job}: {nothing}")
            return 0
        how = "accepted by" if blind else "lost at"
        what = "\n".join(
            f"{job}: {count(sum(of.values()), 'row')} of {count(len(of), 'slice')} {how} {name} would be sent again"
            for name, of in lost.items()
        )
        if not confirmed(what, "Send them?", yes=yes):
            session.answer(_document(job, rows, None), "nothing was sent")
            return 0
        outcome = _sent(session, it, lost, why or (_WHY_BLIND if blind else _WHY))
    for error in outcome.errors:
        show(told(error, verbose=session.verbose), as_json=False)
    worst = outcome.worst()
    became = "went again" if blind else "were lost"
    session.answer(
        {**_document(job, rows, outcome), **({} if worst is None else {"error": document_of(worst)})},
        f"{job}: {count(rows, 'row')} {became}; all of their slices have arrived again"
        if worst is None and not outcome.held
        else f"{job}: not everything has arrived again; tidepost status {job} shows what is left",
    )
    return 3 if worst is None and outcome.held else 0 if worst is None else code_of(worst)


def _scope(ledger: SqlLedger, stream: Stream, sequence: int) -> Scope:
    from tidepost.comparing.reconcile import Scope  # noqa: PLC0415
    from tidepost.ledger.comparing import SqlComparing  # noqa: PLC0415 - these bring the whole engine along

    if sequence not in {one.sequence for one in SqlComparing(ledger).slices(stream)}:
        raise Misconfigured(f"{stream.job} has published no slice {sequence}", hint=f"tidepost status {stream.job}")
    return Scope(slices=frozenset({sequence}))


def _sent(session: Session, it: Reconciling, lost: dict[str, dict[int, int]], why: str) -> Outcome:
    from tidepost.cli.progress import teller  # noqa: PLC0415
    from tidepost.comparing.resend import resend as send  # noqa: PLC0415
    from tidepost.ledger.owner import this_person  # noqa: PLC0415

    kind = it.world.source.cursor()
    with stoppable(session.log_format) as stop, teller(kind, session.log_format) as notice:
        return send(it.world, it.ledger, it.stream, lost, who=this_person(), why=why, notice=notice, stop=stop)


def _document(job: str, lost: int, outcome: Outcome | None) -> dict[str, Any]:
    return {
        "job": job,
        "lost": lost,
        "held": 0 if outcome is None else outcome.held,
        "sent": outcome is not None,
    }
