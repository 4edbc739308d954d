"""Sending again what a platform lost: asked first, and only what is missing.

The files that are needed are brought back, the closed deliveries are opened again, with who did it and why in the
audit, and then seen through as every delivery is: the destination is asked for ids, and what does not show is sent. A
process that dies in between leaves them open; the next run goes on.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping

from tidepost.errors import Misconfigured
from tidepost.events import Notice
from tidepost.ledger.comparing import SqlComparing
from tidepost.ledger.sql import SqlLedger
from tidepost.model import Delivery, Request, ScanKind, Stream
from tidepost.ranges import Ranges
from tidepost.run import Outcome, bring_back, registered, run, send_again
from tidepost.world import World


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
