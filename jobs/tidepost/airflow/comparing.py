"""What the tasks do that compare all sides, and open again what a platform lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidepost.agenda import registered
from tidepost.airflow.asked import Asked
from tidepost.airflow.telling import Teller, compared
from tidepost.airflow.world import Opened
from tidepost.comparing.numbers import Reconciled
from tidepost.comparing.reconcile import Reconciling, Scope
from tidepost.comparing.resend import askable, reopen
from tidepost.cursor import CursorKind, CursorType
from tidepost.errors import Differs, Misconfigured
from tidepost.ledger.owner import this_person
from tidepost.model import StreamName
from tidepost.ports import Destination
from tidepost.ranges import Range
from tidepost.texts import count


def compare(it: Opened, start: str | None, end: str | None, *, by_event: bool, tell: Teller) -> dict[str, Any]:
    """Compare all sides of a stream and return the counts; of labels that were never uploaded there are none. Raises
    Differs where rows are lost, missing or doubled."""
    if _no_labels_yet(it, tell):
        return {}
    scope = scope_of(it.world.source.cursor(), start, end, by_event=by_event)
    result = _reconciled(it, scope, it.world.destinations, source=True)
    tell.tell(f"{it.title}: compared\n{compared(result)}")
    total = result.total
    counts = ("arrived", "taken", "in_flight", "held", "lost", "doubled", "replaced")
    there = {name: {each: getattr(one, each) for each in counts} for name, one in total.there.items()}
    if not result.agrees:
        option = " --stream ground_truth" if it.world.job.stream is StreamName.GROUND_TRUTH else ""
        parts = [f"{one['lost']:,} lost at {name}" for name, one in there.items() if one["lost"]]
        parts += [f"{one['doubled']:,} doubled at {name}" for name, one in there.items() if one["doubled"]]
        parts += [f"{total.here.missing:,} missing here"] if total.here.missing else []
        raise Differs(
            f"{it.title}: of {count(total.here.source or total.here.published, 'row')} {', '.join(parts)}",
            safe="Nothing was changed.",
            hint=f"Send what is not there: mode resend, or  tidepost reconcile {it.job.name}{option} --repair",
        )
    return {"source": total.here.source, "published": total.here.published, "at": there}


def open_again(it: Opened, what: Asked, tell: Teller) -> tuple[int, ...]:
    """Open again what a platform lost; with a dry run only tell of it. Returns the cuts of what was opened."""
    if _no_labels_yet(it, tell):
        return ()
    scope = scope_of(it.world.source.cursor(), what.start, what.end, by_event=what.by_event)
    result = _reconciled(it, scope, askable(it.job, it.world.destinations), source=False)
    lost = {name: dict(of) for name, of in result.lost.items() if of}
    for name, of in lost.items():
        would = "would be" if what.dry_run else "are"
        tell.tell(f"{count(sum(of.values()), 'row')} of {count(len(of), 'slice')} lost at {name} {would} sent again")
    if not lost:
        tell.tell(f"{it.title}: everything that had arrived is there")
    stream = it.stream
    if what.dry_run or not lost or stream is None:
        return ()
    why = f"run {what.key.rpartition('/')[0]}: rows are not there any more"
    reopened, stopped = reopen(it.world, it.ledger, stream, lost, who=this_person(), why=why)
    worst = stopped.worst()
    if worst is not None and not reopened:
        raise worst
    return tuple(sorted({it.ledger.deliveries.contents(one)[0].cut for one in reopened}))


def scope_of(kind: CursorKind, start: str | None, end: str | None, *, by_event: bool) -> Scope:
    """What two texts ask to compare; all that was scanned where there are none. Raises Misconfigured."""
    if not start and not end:
        return Scope()
    if not start or not end:
        raise Misconfigured("a range needs both its start and its end", safe="Nothing was compared.")
    of = CursorKind(CursorType.TIMESTAMP, zone=kind.zone or "UTC") if by_event else kind
    first, last = of.parse(start), of.parse(end)
    if last <= first:
        raise Misconfigured(f"the range from {start} to {end} is empty", safe="Nothing was compared.")
    if by_event:
        return Scope(events=Range(first // 1000, -(-last // 1000)))
    return Scope(cursor=Range(first, last))


def _no_labels_yet(it: Opened, tell: Teller) -> bool:
    """Whether the world's stream is one of labels that never ran, which is told: inferences come first."""
    if it.stream is not None or it.world.job.stream is not StreamName.GROUND_TRUTH:
        return False
    tell.tell(f"{it.title}: no labels were uploaded yet")
    return True


def _reconciled(it: Opened, scope: Scope, destinations: Sequence[Destination], *, source: bool) -> Reconciled:
    stream = it.stream
    if stream is None:
        raise Misconfigured(f"{it.job.name} never ran", hint=f"Trigger a run of {it.job.name} first.")
    registered(it.world)
    with it.world.engine.connect() as connection:
        comparing = Reconciling(it.world, it.ledger, stream, connection)
        return comparing.reconcile(scope, destinations, source=source)
