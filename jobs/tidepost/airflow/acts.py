"""What the tasks do, without Airflow: each is given a world, and a teller for its log."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tidepost import steps
from tidepost.agenda import registered
from tidepost.airflow import lineage
from tidepost.airflow.asked import Asked, Mode
from tidepost.airflow.comparing import open_again
from tidepost.airflow.lineage import Flow
from tidepost.airflow.telling import Teller, cut_line, planned_lines, summary
from tidepost.airflow.world import Opened
from tidepost.cursor import CursorKind
from tidepost.definition.job import absolute
from tidepost.definition.reference import resolve
from tidepost.errors import Misconfigured, Refused, Retryable
from tidepost.labels import dropping
from tidepost.leases import LEASE_SECONDS
from tidepost.model import DeliveryState, Request, ScanKind, Stream, StreamName
from tidepost.planning.lanes import lane_marks
from tidepost.planning.prospect import prospect, start_of
from tidepost.ports import OfLanes
from tidepost.status import StreamStatus, positions_text, read_status
from tidepost.steps import Begun, Standing, Uploaded
from tidepost.texts import count, short, span

CLOSED: Final = (
    "this request was done before: nothing is sent. To look at its range again, trigger a run with mode range"
)
LEAST_DEADLINE: Final = 3_600.0


def begin(it: Opened, what: Asked, *, most: int, tell: Teller) -> Begun:
    """What a run has to do in the world's stream. With a dry run, it is only told. Raises as `steps.begin` does, and
    Misconfigured where a file that was named is not there."""
    if what.mode is Mode.RECONCILE:
        return Begun()
    if what.mode is Mode.RESEND:
        return Begun(done=open_again(it, what, tell))
    kind = it.world.source.cursor()
    window = what.window(kind)
    key = what.key_for(it.world.job.stream)
    request = Request(key, ScanKind.INCREMENTAL if window is None else ScanKind.BACKFILL, window)
    if what.files:
        _take_up(it, what, key, tell)
    if what.dry_run:
        return Begun(rows=_foretell(it, request, kind, most, tell))
    begun = steps.begin(it.world, request, notice=tell, most=most)
    if it.world.job.stream is StreamName.GROUND_TRUTH and not begun.closed:
        # Labels of earlier runs that waited for their turn arrive in this one.
        begun = replace(begun, done=tuple(dict.fromkeys((*begun.done, *_behind(it)))))
    if begun.closed:
        tell.tell(CLOSED)
    else:
        edge = "" if begun.edge is None else f", up to {short(begun.edge)}"
        more = "; more remain, for the next run" if begun.more else ""
        tell.tell(f"{it.title}: {count(len(begun.cuts), 'cut')}, about {count(begun.rows, 'row')}{edge}{more}")
    if begun.deliveries:
        tell.tell(f"{count(begun.deliveries, 'delivery', 'deliveries')} of before are open, and are finished too")
    if begun.null_cursors:
        tell.tell(f"{count(begun.null_cursors, 'row')} of the source have no cursor (NULL) and cannot be found by it")
    return begun


def dropped(it: Opened, *, tell: Teller) -> tuple[int, float | None]:
    """How many files of labels are to be taken up, which are told of, and in how many seconds the next one is, if any
    is only to be quiet still. Raises Misconfigured where the job names none."""
    labels, drops, now = it.world.job.ground_truth, it.world.drops, it.world.clock()
    if labels is None or labels.files is None or drops is None:
        raise Misconfigured(
            f"{it.job.name} names no files of labels",
            safe="Nothing was done.",
            hint=f"Add ground_truth.files to {it.job.path}.",
        )
    stream, quiet = it.stream or Stream(0, it.job.name, StreamName.GROUND_TRUTH), labels.files.quiet.total_seconds()
    records, ledger = it.world.records, it.world.ledger
    ready = [drop for drop, _ in dropping.due(drops, records, ledger, stream, now=now, quiet=quiet)]
    for one in ready:
        tell.tell(f"{one.path} is to be taken up")
    if ready:
        return len(ready), None
    unquiet = dropping.due(drops, records, ledger, stream, now=now + quiet, quiet=quiet)
    return 0, min((max(1.0, drop.modified + quiet - now) for drop, _ in unquiet), default=None)


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
    loading = max(one.loading for one in it.world.destinations)
    if waited < (max(LEAST_DEADLINE, 4 * loading) if deadline is None else deadline):
        return
    missing = standing.rows - standing.arrived - standing.refused
    raise Retryable(
        f"{it.title}: {count(missing, 'row')} of {count(standing.waiting, 'delivery', 'deliveries')} and "
        f"{count(len(standing.unfinished), 'cut')} are missing after {span(waited)}",
        safe="What was sent is recorded; nothing is sent again before the platform was asked.",
        hint=f"See them:  tidepost status {it.job.name}",
    )


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a run.

    counts:  as its XCom has them
    hours:   rows that arrived, by hour of event time
    retries: requests that were made again
    mark:    the least of the destinations' marks, as text; of lanes, of each
    lag:     seconds from there to now; None where the mark is no time
    flow:    where the rows that arrived came from and went to
    held:    what to do about slices that are held, or None
    """

    counts: Mapping[str, Any]
    hours: Mapping[int, int]
    retries: int
    mark: str | None
    lag: float | None
    flow: Flow
    held: Refused | None


def report(it: Opened, standing: Standing, cuts: Sequence[int], *, tell: Teller) -> Report:
    """Tell what became of a run, once nothing is waited for."""
    status = read_status(it.job, it.ledger, it.world.clock())
    own = [one for one in status.streams if one.name is it.world.job.stream]
    places = [where for one in own for where in one.destinations if where.sends]
    marks = {where.name: where.mark for where in places}
    lag = max((where.lag for where in places if where.lag is not None), default=None)
    tell.tell(f"{it.title}\n{summary(standing, len(cuts), marks)}")
    hours, size, retries = _arrived(it, cuts)
    counts = {
        "cuts": len(cuts),
        "rows": standing.tally.published,
        "arrived": standing.arrived,
        "refused": standing.refused,
        "duplicates": standing.tally.duplicates,
        "rejected": standing.tally.rejects,
        "lag": None if lag is None else round(lag, 3),
    }
    if it.world.job.stream is StreamName.GROUND_TRUTH:
        counts |= {
            "superseded": standing.tally.superseded,
            "waiting": standing.tally.waiting,
            "behind": standing.behind,
        }
    held = _held(it.title, own, standing.held) if standing.held else None
    moved = _flow(it, standing.tally.scanned, standing.rows, size, standing.arrived)
    return Report(counts, hours, retries, _mark(it, marks), lag, moved, held)


def _mark(it: Opened, marks: Mapping[str, str | None]) -> str | None:
    """What of the world's stream has arrived at all destinations that are sent to."""
    kind = it.world.source.cursor()
    if not isinstance(it.world.source, OfLanes) or it.stream is None:
        return least(kind, [*marks.values()])
    start = start_of(it.world.job, kind)
    return positions_text(kind, lane_marks(it.ledger, it.stream, [*marks], start)) if marks else None


def least(kind: CursorKind, marks: Sequence[str | None]) -> str | None:
    """The mark that all destinations have reached; None where one of them has none yet, or there is none."""
    reached = [mark for mark in marks if mark is not None]
    return min(reached, key=kind.parse) if reached and len(reached) == len(marks) else None


def flow(it: Opened, done: Uploaded) -> Flow:
    """Where a cut's rows came from and went to."""
    return _flow(it, done.scanned, done.rows, done.size, done.rows if done.sent else 0)


def _flow(it: Opened, scanned: int, rows: int, size: int, sent: int) -> Flow:
    job, source = it.world.job, it.world.job.source
    url = None if source.postgres is None else resolve(str(source.postgres), it.env)
    prefix = "" if it.stream is None else it.stream.prefix
    staged = lineage.staging(it.world.staging.where(f"{prefix}/data"))
    read, models = lineage.sources(job, url), lineage.models(job)
    if source.kafka is not None:
        read = (lineage.topic(resolve(source.kafka.bootstrap, it.env), resolve(source.kafka.topic, it.env)),)
    if len(models) == 1:  # of several, nobody has counted what went to which
        models = (lineage.counted(models[0], rows=sent),)
    return Flow(
        tuple(lineage.counted(one, rows=scanned) for one in read) if len(read) == 1 else read,
        (lineage.counted(staged, rows=rows, size=size), *models),
    )


def _take_up(it: Opened, what: Asked, key: str, tell: Teller) -> None:
    """Remember files of labels that somebody named as ones to take up, unless the request was planned before."""
    stream = it.stream
    if it.world.drops is None or (stream is not None and it.ledger.plans.asked(stream, key) is not None):
        return
    found = dropping.by_hand(it.world.drops, [absolute(it.project.root, path) for path in what.files])
    for one in found:
        tell.tell(f"{'would take' if what.dry_run else 'taking'} up {one.path}")
    if not what.dry_run:
        stream = registered(it.world)
        for one in found:
            dropping.register(it.world.records, stream, one)


def _behind(it: Opened) -> list[int]:
    """The cuts of deliveries of labels that were not begun, as it was not their turn."""
    stream, known = it.stream, it.ledger.deliveries
    names = [one.name for one in it.world.destinations] if stream is not None else []
    left = [
        one
        for name in names
        if stream is not None
        for one in known.open(stream, name)
        if one.state is DeliveryState.TODO
    ]
    return sorted({known.contents(one)[0].cut for one in left})


def _foretell(it: Opened, request: Request, kind: CursorKind, most: int, tell: Teller) -> int:
    """Tell what a request would do. Returns the rows, about."""
    found = prospect(it.world, it.stream, request)
    for line in planned_lines(found.cuts[:most], kind):
        tell.tell(line)
    rows = sum(cut.estimated or 0 for cut in found.cuts)
    runs = -(-len(found.cuts) // most)
    tell.tell(f"{it.title}: {count(len(found.cuts), 'cut')} in {count(runs, 'run')}, about {count(rows, 'row')}")
    return rows


def _arrived(it: Opened, cuts: Sequence[int]) -> tuple[dict[int, int], int, int]:
    """Rows of the slices of some cuts that arrived, by hour of event time; the bytes of these slices; and the
    requests that were made again."""
    stream = it.stream
    hours: Counter[int] = Counter()
    seen: set[int] = set()
    size = retries = 0
    for one in it.ledger.deliveries.of(stream, cuts) if stream is not None else ():
        became, sends = it.ledger.deliveries.contents(one)
        retries += sum(send.attempt > 1 for send in sends)
        if one.state == "closed" and one.sequence not in seen:
            hours.update(became.hours)
            size += became.size
            seen.add(one.sequence)
    return dict(hours), size, retries


def _held(title: str, streams: Sequence[StreamStatus], held: int) -> Refused:
    first = next(
        (where.name, one)
        for stream in streams
        for where in stream.destinations
        if where.sends
        for one in where.waiting
        if one.state == "held"
    )
    name, one = first
    return Refused(
        f"{title}: slice {one.sequence} is held at {name}: {one.reason}"
        + (f"; and {held - 1} more" if held > 1 else ""),
        safe="Nothing was lost: its rows are kept, and everything else was delivered.",
        hint=f"See them:  tidepost rejects {title.partition(',')[0]} --show-rows   Let it go:  {one.remedy}",
    )
