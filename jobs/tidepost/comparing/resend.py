"""Sending again what a platform lost: asked first, and only what is missing; or, where repeats merge and a person
wants it, whole files of a platform that cannot be asked.

The files that are needed are brought back, the closed deliveries are opened again, with who did it and why in the
audit, and then seen through as every delivery is: the destination is asked for ids, and what does not show is sent. A
process that dies in between leaves them open; the next run goes on.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence

from tidepost.agenda import registered
from tidepost.definition.job import Job
from tidepost.errors import Misconfigured
from tidepost.events import Notice
from tidepost.ledger.comparing import SqlComparing
from tidepost.ledger.sql import SqlLedger
from tidepost.model import Delivery, Proof, Request, ScanKind, Stream, StreamName
from tidepost.outcome import Outcome
from tidepost.ports import Destination
from tidepost.ranges import Ranges
from tidepost.run import bring_back, run, send_again
from tidepost.world import World


def askable(job: Job, destinations: Sequence[Destination]) -> list[Destination]:
    """Those of a job's destinations that can be asked what they lost. Raises Misconfigured where none can."""
    found = [one for one in destinations if one.proof is Proof.ROWS]
    if not found:
        names = " and ".join(one.name for one in destinations)
        blind = [one.name for one in destinations if job.to(one.name).merges and job.stream is StreamName.INFERENCES]
        merging = f"Rows that come again merge there, so all can be sent:  tidepost resend {job.name} --blind"
        raise Misconfigured(
            f"{job.name}: {names} cannot be asked what is there, so nobody can tell what was lost",
            safe="Nothing was sent.",
            hint=merging + f" --destination {blind[0]}" if blind else f"Look at {names} itself.",
        )
    return found


def mergeable(job: Job, destinations: Sequence[Destination]) -> list[Destination]:
    """The destinations, all of which can be sent everything again without asking. Raises Misconfigured for one where
    repeats do not merge, and for labels, of which an older one would take the place of a newer."""
    doubling = [one.name for one in destinations if not job.to(one.name).merges]
    if doubling:
        others = [to.name for to in job.destinations if to.merges]
        only = f"tidepost resend {job.name} --blind --destination {others[0]}" if others else ""
        ask = f"Without it, only what is not there is sent:  tidepost resend {job.name}"
        raise Misconfigured(
            f"--blind is not possible: {doubling[0]} keeps both copies of a repeat, or refuses it; it does not merge "
            "them",
            safe="Nothing was sent.",
            hint=f"{ask}\n  Where repeats merge:  {only}" if only else ask,
        )
    if job.stream is StreamName.GROUND_TRUTH:
        raise Misconfigured(
            "--blind is not possible for labels: an older one would take the place of a newer",
            safe="Nothing was sent.",
        )
    return list(destinations)


def resend(
    world: World,
    ledger: SqlLedger,
    stream: Stream,
    lost: Mapping[str, Mapping[int, int]],
    *,
    who: str,
    why: str,
    notice: Notice,
    stop: threading.Event,
) -> Outcome:
    """Send what destinations lost: destination → slice → rows. Raises as `run` does, also where the job has another
    model now than it had.

    A slice whose files were purged and cannot be staged again as they were is left closed, and is among the errors.
    """
    reopened, stopped = reopen(world, ledger, stream, lost, who=who, why=why)
    outcome = send_again(world, stream, reopened, notice=notice, stop=stop)
    outcome.errors = [*stopped.errors, *outcome.errors]
    return outcome


def reopen(
    world: World, ledger: SqlLedger, stream: Stream, lost: Mapping[str, Mapping[int, int]], *, who: str, why: str
) -> tuple[list[Delivery], Outcome]:
    """Open the deliveries of what destinations lost again, for whoever settles them. Returns them, and what stopped
    others. Raises as `resend` does."""
    registered(world)
    for name in ledger.deliveries.paused(stream.job).keys() & lost.keys():
        raise Misconfigured(
            f"{stream.job}: {name} is paused, so nothing is sent there",
            safe="Nothing was sent.",
            hint=f"tidepost resume {stream.job} --destination {name}",
        )
    known = SqlComparing(ledger)
    closed = [known.delivery(stream, name, sequence) for name, of in lost.items() for sequence in of]
    ready, stopped = bring_back(world, stream, closed)
    reopened: list[Delivery] = []
    for name, of in lost.items():
        these = {one.sequence: of[one.sequence] for one in ready if one.destination == name}
        reopened += ledger.deliveries.reopen(stream, name, these, who=who, why=why)
    return reopened, stopped


def fill(world: World, missing: Ranges, *, notice: Notice, stop: threading.Event) -> list[Outcome]:
    """Scan ranges again whose rows are nowhere. Raises as `run` does."""
    outcomes: list[Outcome] = []
    for one in missing:
        if not stop.is_set():
            request = Request(f"repair/{uuid.uuid4()}", ScanKind.REPAIR, one)
            outcomes.append(run(world, request, notice=notice, stop=stop))
    return outcomes
