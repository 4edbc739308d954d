"""What the tasks do, without Airflow: each is given a world, and a teller for its log."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from tidepost import steps
from tidepost.airflow.asked import Asked, Mode
from tidepost.airflow.telling import Teller, compared, cut_line, planned_lines, summary
from tidepost.airflow.world import Opened
from tidepost.cursor import CursorKind, CursorType
from tidepost.errors import Differs, Misconfigured, Refused, Retryable
from tidepost.leases import LEASE_SECONDS
from tidepost.ledger.owner import this_person
from tidepost.model import Request, ScanKind
from tidepost.prospect import prospect
from tidepost.ranges import Range
from tidepost.reconcile import Reconciled, Reconciling, Scope
from tidepost.resend import reopen
from tidepost.run import registered
from tidepost.status import JobStatus, read_status
from tidepost.steps import Begun, Standing, Uploaded
from tidepost.texts import count, short, span

CLOSED: Final = (
    "this request was done before: nothing is sent. To look at its range again, trigger a run with mode range"
)
LEAST_DEADLINE: Final = 3_600.0


def begin(it: Opened, what: Asked, *, most: int, tell: Teller) -> Begun:
    """What a run has to do. With a dry run, it is only told. Raises as `steps.begin` does."""
    if what.mode is Mode.RECONCILE:
        return Begun()
    if what.mode is Mode.RESEND:
        return Begun(done=_reopen(it, what, tell))
    kind = it.world.source.cursor()
    window = what.window(kind)
    request = Request(what.key, ScanKind.INCREMENTAL if window is None else ScanKind.BACKFILL, window)
    if what.dry_run:
        return Begun(rows=_foretell(it, request, kind, most, tell))
    begun = steps.begin(it.world, request, notice=tell, most=most)
    if begun.closed:
        tell.tell(CLOSED)
    else:
        edge = "" if begun.edge is None else f", up to {short(begun.edge)}"
        more = "; more remain, for the next run" if begun.more else ""
        tell.tell(f"{it.job.name}: {count(len(begun.cuts), 'cut')}, about {count(begun.rows, 'row')}{edge}{more}")
    if begun.deliveries:
        tell.tell(f"{count(begun.deliveries, 'delivery', 'deliveries')} of before are open, and are finished too")
    if begun.null_cursors:
        tell.tell(f"{count(begun.null_cursors, 'row')} of the source have no cursor (NULL) and cannot be found by it")
    return begun


def announced(begun: Begun) -> dict[str, Any]:
    """What a plan leaves for the tasks behind it, beside its cuts. `more`, with `rest` for a range: a run is to be
    triggered that takes what remains; never after a request that was closed, which was followed then."""
    return {
        "done": list(begun.done),
        "deliveries": begun.deliveries,
        "rows": begun.rows,
        "null_cursors": begun.null_cursors,
        "more": begun.more and not begun.closed,
        "rest": None if begun.rest is None else list(begun.rest),
        "closed": begun.closed,
    }


def following(what: Asked, begun: Begun, number: int) -> Asked:
    """The request for what was too much for one before, the `number`th after the first."""
    key = f"{what.key.partition('#')[0]}#{number}"
    if begun.rest is None:
        return replace(what, key=key)
    return replace(what, key=key, start=begun.rest[0], end=begun.rest[1])


def upload(it: Opened, cut: int, null_cursors: int, *, tell: Teller, stop: threading.Event) -> Uploaded:
    """One cut. Raises as `steps.upload` does."""
    return steps.upload(it.world, cut, notice=tell, stop=stop, null_cursors=null_cursors)


def counted(done: Uploaded) -> dict[str, Any]:
    """A cut's ids and counts."""
    return {
        "cut": done.cut,
        "slice": done.slice,
        "rows": done.rows,
        "bytes": done.size,
        "duplicates": done.duplicates,
        "known": done.known,
        "rejected": sum(done.rejected.values()),
        "held": done.held,
        "seconds": round(done.seconds, 3),
        "elsewhere": done.elsewhere is not None,
    }


def settle(it: Opened, cuts: Sequence[int], *, since: float, tell: Teller, stop: threading.Event) -> Standing:
    """Look what has arrived of some cuts. One that a process left is done on the way; one that another process
    works on is told of, and waited for only as long as it takes to know that the process lives."""
    standing = steps.settle(it.world, notice=tell, stop=stop, cuts=cuts)
    if not standing.unfinished or stop.is_set():
        return standing
    alive = time.time() - since > LEASE_SECONDS
    left: list[int] = []
    for cut in standing.unfinished:
        done = steps.upload(it.world, cut, notice=tell, stop=stop)
        tell.tell(cut_line(done))
        if done.elsewhere is None or alive:
            left.append(cut)
    again = steps.settle(it.world, notice=tell, stop=stop, cuts=cuts)
    return replace(again, unfinished=tuple(cut for cut in again.unfinished if cut not in left))


def in_time(it: Opened, standing: Standing, *, since: float, deadline: float | None) -> None:
    """Raises Retryable, telling what is missing, where the deadline is over."""
    waited = time.time() - since
    loading = it.job.destination.loading.total_seconds()
    if waited < (max(LEAST_DEADLINE, 4 * loading) if deadline is None else deadline):
        return
    missing = standing.rows - standing.arrived - standing.refused
    raise Retryable(
        f"{it.job.name}: {count(missing, 'row')} of {count(standing.waiting, 'delivery', 'deliveries')} and "
        f"{count(len(standing.unfinished), 'cut')} are missing after {span(waited)}",
        safe="What was sent is recorded; nothing is sent again before the platform was asked.",
        hint=f"See them:  tidepost status {it.job.name}",
    )


def report(it: Opened, standing: Standing, cuts: int, *, tell: Teller) -> dict[str, Any]:
    """Tell what became of a run, once nothing is waited for, and return its counts.

    Raises Refused, naming the command that lets it go, where too many rows were rejected.
    """
    status = read_status(it.job, it.ledger, it.world.clock())
    marks = {where.name: where.mark for one in status.streams for where in one.destinations}
    lag = max((where.lag or 0.0 for one in status.streams for where in one.destinations), default=0.0)
    tell.tell(f"{it.job.name}\n{summary(standing, cuts, marks)}")
    if standing.held:
        raise _held(status, standing.held)
    return {
        "cuts": cuts,
        "rows": standing.tally.published,
        "arrived": standing.arrived,
        "refused": standing.refused,
        "duplicates": standing.tally.duplicates,
        "rejected": standing.tally.rejects,
        "lag": round(lag, 3),
    }


def compare(it: Opened, start: str | None, end: str | None, *, by_event: bool, tell: Teller) -> dict[str, Any]:
    """Compare all sides and return the counts. Raises Differs where rows are lost, missing or doubled."""
    result = _reconciled(it, scope_of(it.world.source.cursor(), start, end, by_event=by_event), source=True)
    tell.tell(f"{it.job.name}: compared\n{compared(result)}")
    total = result.total
    there = {
        name: {each: getattr(one, each) for each in ("arrived", "in_flight", "held", "lost", "doubled")}
        for name, one in total.there.items()
    }
    if not result.agrees:
        parts = [f"{one['lost']:,} lost at {name}" for name, one in there.items() if one["lost"]]
        parts += [f"{one['doubled']:,} doubled at {name}" for name, one in there.items() if one["doubled"]]
        parts += [f"{total.here.missing:,} missing here"] if total.here.missing else []
        raise Differs(
            f"{it.job.name}: of {count(total.here.source, 'row')} {', '.join(parts)}",
            safe="Nothing was changed.",
            hint=f"Send what is not there: mode resend, or  tidepost reconcile {it.job.name} --repair",
        )
    return {"source": total.here.source, "published": total.here.published, "at": there}


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


def _reopen(it: Opened, what: Asked, tell: Teller) -> tuple[int, ...]:
    """Open again what a platform lost; with a dry run only tell of it. Returns the cuts of what was opened."""
    scope = scope_of(it.world.source.cursor(), what.start, what.end, by_event=what.by_event)
    result = _reconciled(it, scope, source=False)
    lost = {name: dict(of) for name, of in result.lost.items() if of}
    for name, of in lost.items():
        would = "would be" if what.dry_run else "are"
        tell.tell(f"{count(sum(of.values()), 'row')} of {count(len(of), 'slice')} lost at {name} {would} sent again")
    if not lost:
        tell.tell(f"{it.job.name}: everything that had arrived is there")
    stream = it.stream
    if what.dry_run or not lost or stream is None:
        return ()
    why = f"run {what.key.rpartition('/')[0]}: rows are not there any more"
    reopened, stopped = reopen(it.world, it.ledger, stream, lost, who=this_person(), why=why)
    worst = stopped.worst()
    if worst is not None and not reopened:
        raise worst
    return tuple(sorted({it.ledger.deliveries.contents(one)[0].cut for one in reopened}))


def _reconciled(it: Opened, scope: Scope, *, source: bool) -> Reconciled:
    stream = it.stream
    if stream is None:
        raise Misconfigured(f"{it.job.name} never ran", hint=f"Trigger a run of {it.job.name} first.")
    registered(it.world)
    with it.world.engine.connect() as connection:
        comparing = Reconciling(it.world, it.ledger, stream, connection)
        return comparing.reconcile(scope, it.world.destinations, source=source)


def _foretell(it: Opened, request: Request, kind: CursorKind, most: int, tell: Teller) -> int:
    """Tell what a request would do. Returns the rows, about."""
    found = prospect(it.world, it.stream, request)
    for line in planned_lines(found.cuts[:most], kind):
        tell.tell(line)
    rows = sum(cut.estimated or 0 for cut in found.cuts)
    runs = -(-len(found.cuts) // most)
    tell.tell(f"{it.job.name}: {count(len(found.cuts), 'cut')} in {count(runs, 'run')}, about {count(rows, 'row')}")
    return rows


def _held(status: JobStatus, held: int) -> Refused:
    first = next(
        (where.name, one)
        for stream in status.streams
        for where in stream.destinations
        for one in where.waiting
        if one.state == "held"
    )
    name, one = first
    return Refused(
        f"{status.job}: slice {one.sequence} is held at {name}: {one.reason}"
        + (f"; and {held - 1} more" if held > 1 else ""),
        safe="Nothing was lost: its rows are kept, and everything else was delivered.",
        hint=f"See them:  tidepost rejects {status.job} --show-rows   Let it go:  {one.remedy}",
    )
