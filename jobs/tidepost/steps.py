"""A run in pieces, for whoever orders tasks elsewhere: each may be done by another process, on any host that shares
ledger and staging, and be repeated.

begin    agree, recover, plan: which cuts are to be done. The same request gets the same cuts again
upload   stage, publish and send one cut; several at once, by as many processes as there are
settle   go on with every delivery that is open, ask the destinations once, and tell what is still loading

What they do, and in which order, is `run.py`'s. A cut that another process works on is told of and not waited for;
one whose process is gone is taken over. Results are ids, counts and a few texts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce

from tidepost.agenda import begun, check, drifted, open_deliveries, recover, registered, warn
from tidepost.delivery.deliver import Parcel
from tidepost.delivery.outbound import ENDED, FIRST_POLL, MOST_WAITING
from tidepost.errors import HeldElsewhere, Outdated, Refused, TidepostError
from tidepost.events import Notice, Settled, Warned
from tidepost.labels.turns import in_turn
from tidepost.model import Cut, CutState, Delivery, DeliveryState, Request, ScanKind, Stream, StreamName, Tally
from tidepost.outcome import Outcome
from tidepost.run import end, take
from tidepost.tools import Tools, equipped
from tidepost.world import World

MOST_CUTS = 500
GIVEN_UP = 3_600.0
"""Seconds without a cut that is done, after which nobody works on a range any more that was asked for."""
TO_SEND = (DeliveryState.TODO, DeliveryState.SENDING)
PAUSES = (FIRST_POLL, 1.0)
"""Seconds between the looks of one `settle`: only two that see the same let it ask for ids."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a request comes to.

    cuts:         to do, by their ids, oldest first; what earlier requests left open is among them
    done:         the request's own cuts that are done already
    deliveries:   open from before
    rows:         that the cuts hold, as far as planning could tell
    null_cursors: rows of the source that no scan can find
    more:         whether more cuts remain, for the next request
    rest:         of a range that was asked for, the start and the end of what remains; None where nothing does
    closed:       every cut of the request was done before: there is nothing to do for it
    edge:         the end of what was planned, None where nothing is visible or the request was planned before
    """

    cuts: tuple[int, ...] = ()
    done: tuple[int, ...] = ()
    deliveries: int = 0
    rows: int = 0
    null_cursors: int = 0
    more: bool = False
    rest: tuple[str, str] | None = None
    closed: bool = False
    edge: str | None = None


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What became of one cut. Rows as in `Tally`; `size` in bytes.

    slice:     its number, None where nothing of the cut was new
    sent:      deliveries that were sent, and are confirmed later
    held:      its deliveries that wait for a person
    before:    the cut was done before this
    elsewhere: who works on the cut, and until when its lease holds; None where it was done
    """

    cut: int
    start: str
    end: str
    slice: int | None = None
    rows: int = 0
    size: int = 0
    scanned: int = 0
    duplicates: int = 0
    known: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    sent: int = 0
    held: int = 0
    seconds: float = 0.0
    before: bool = False
    elsewhere: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where deliveries stand after a look.

    tally:      of the cuts, or nothing where none were asked about
    unfinished: cuts that are not done
    deliveries: of the cuts that were asked about, or all that were open
    rows:       of these; each has `arrived`, was `refused`, is `held`, or is still `loading`
    waiting:    deliveries that are neither closed nor held
    held:       deliveries that wait for a person
    behind:     deliveries of labels whose turn has not come, while nothing is on its way that it could come after:
                they wait for inferences, or for what a person decides, and are a later run's
    wait:       seconds until it is worth looking again
    """

    tally: Tally
    unfinished: tuple[int, ...]
    deliveries: int
    rows: int
    arrived: int
    refused: int
    waiting: int
    held: int
    wait: float
    behind: int = 0

    @property
    def done(self) -> bool:
        """Whether nothing is waited for."""
        return not self.unfinished and not self.waiting


def begin(world: World, request: Request, *, notice: Notice, most: int = MOST_CUTS) -> Begun:
    """Plan a request, `most` cuts of it. Raises Misconfigured and Retryable as `run` does."""
    outcome = Outcome(registered(world))
    warn(world, notice)
    with equipped(world, outcome.stream, notice) as tools:
        agenda = begun(world, tools, outcome, request, left=lambda stream: _left(world, stream, request), most=most)
    kind = world.source.cursor()
    cuts = () if agenda.closed else agenda.cuts
    return Begun(
        tuple(cut.id for cut in cuts),
        agenda.done,
        len(agenda.deliveries),
        sum(cut.estimated or 0 for cut in cuts),
        outcome.tally.null_cursors,
        agenda.more,
        None if agenda.rest is None else (kind.format(agenda.rest.start), kind.format(agenda.rest.end)),
        agenda.closed,
        agenda.edge,
    )


def upload(world: World, cut: int, *, notice: Notice, stop: threading.Event, null_cursors: int = 0) -> Uploaded:
    """Stage, publish and send one cut; what it sends is not waited for.

    null_cursors: rows of the source that no scan can find, as planning counted them

    Raises Misconfigured and Retryable as `run` does; what was done before that is done. A delivery that is held is
    counted and raises nothing; nor does a destination that is down while another is not, which `settle` raises.
    With `stop` set, what is not begun yet stays open.
    """
    began, outcome = time.monotonic(), Outcome(registered(world), tally=Tally(null_cursors=null_cursors))
    stream, deliveries = outcome.stream, world.ledger.deliveries
    known = world.ledger.plans.cut(stream, cut)
    done, elsewhere, sent = known.state is CutState.DONE, None, 0
    rescued: Sequence[Delivery] = ()
    with equipped(world, stream, outcome.counting(notice)) as tools:
        tools.publisher.agree(stream)
        if not done and not stop.is_set():
            drifted(world, tools, outcome, [known])
            try:
                rescued = take(world, tools, outcome, known)
            except HeldElsewhere as error:
                elsewhere = str(error)
        fresh = in_turn(world.ledger, world.records, stream, (*rescued, *deliveries.of(stream, [cut])))
        due = {one.id: one for one in fresh if one.state in TO_SEND and one.destination in tools.confirmers}
        if due:
            check(world, tools, stream)
        for one in due.values():
            parcel = None if stop.is_set() or one.destination in outcome.failed else _send(tools, outcome, one)
            if parcel is not None:
                sent += parcel.delivery.state is DeliveryState.SENT
                tools.keeper.release(parcel.lease)
    _raise(outcome, notice, others=any(one.destination not in outcome.failed for one in due.values()))
    return _uploaded(world, stream, known, sent=sent, before=done, elsewhere=elsewhere, began=began)


def settle(world: World, *, notice: Notice, stop: threading.Event, cuts: Sequence[int] | None = None) -> Standing:
    """Go on with every delivery that is open, those of processes that died too, and look what has arrived.

    cuts: whose deliveries are told of; None: all that were open
    Raises Misconfigured and Retryable as `run` does, once whatever else was open has been looked at; of a destination
    that is down, once no other one is waited for.
    """
    outcome = Outcome(registered(world))
    stream = outcome.stream
    with equipped(world, stream, outcome.counting(notice)) as tools:
        tools.publisher.agree(stream)
        recover(world, tools, stream)
        found = open_deliveries(world, stream)
        if found:
            check(world, tools, stream)
        ready = _brought_back(tools, outcome, found)
        with ThreadPoolExecutor(max(1, len(tools.confirmers)), thread_name_prefix="tidepost-destination") as pool:
            theirs = [[one for one in ready if one.destination == name] for name in tools.confirmers]
            for seen in [pool.submit(_see_to, world, tools, outcome, some, stop) for some in theirs]:
                seen.result()
        places = frozenset(tools.confirmers)
    end(world, outcome, stop)
    standing = _standing(world, stream, found, cuts, places)
    others = _standing(world, stream, found, cuts, places - outcome.failed.keys())
    _raise(outcome, notice, others=others.waiting > 0)
    return standing


def _left(world: World, stream: Stream, request: Request) -> Sequence[Cut]:
    """What a request finishes of others: an incremental one what is new and open, and of ranges that somebody asked
    for what was given up; one for a range nothing."""
    if request.window is not None:
        return ()
    plans, new = world.ledger.plans, (ScanKind.INCREMENTAL, ScanKind.LOOKBACK)
    given_up = {cut.id for cut in plans.left(stream, GIVEN_UP)}
    return [cut for cut in plans.open_cuts(stream) if cut.kind in new or cut.id in given_up]


def _send(tools: Tools, outcome: Outcome, delivery: Delivery) -> Parcel | None:
    """Send what of a delivery is to be sent. None where it is not this process's to look at: it has ended, another
    process has it, or it was left open for a reason among the outcome's errors."""
    courier = tools.confirmers[delivery.destination].courier
    try:
        tools.checks.ready(delivery.destination)
        parcel = courier.pick_up(delivery)
    except HeldElsewhere:
        return None
    except TidepostError as error:
        _failed(tools, outcome, delivery.destination, error)
        return None
    try:
        if parcel.delivery.state not in ENDED:
            if parcel.delivery.state is not DeliveryState.SENT:
                courier.deliver(parcel)
            return parcel
    except Refused:
        tools.notice(Settled(parcel.delivery))
    except (HeldElsewhere, Outdated):
        pass  # another process was quicker
    except TidepostError as error:
        _failed(tools, outcome, delivery.destination, error)
    tools.keeper.release(parcel.lease)
    return None


def _failed(tools: Tools, outcome: Outcome, name: str, error: TidepostError) -> None:
    outcome.fail(name, tools.named(name, error))


def _brought_back(tools: Tools, outcome: Outcome, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """The deliveries whose files are all there, those that were purged and staged again among them."""
    ready: list[Delivery] = []
    for one in deliveries:
        try:
            tools.restage.bring_back(outcome.stream, one)
        except TidepostError as error:
            _failed(tools, outcome, one.destination, error)
        else:
            ready.append(one)
    return ready


def _see_to(
    world: World, tools: Tools, outcome: Outcome, deliveries: Sequence[Delivery], stop: threading.Event
) -> None:
    """Send and confirm deliveries of one destination, as far as they are by now."""
    for first in range(0, len(deliveries), MOST_WAITING):
        some = deliveries[first : first + MOST_WAITING]
        try:
            _see_to_some(world, tools, outcome, some, stop)
        except TidepostError as error:
            _failed(tools, outcome, some[0].destination, error)


def _see_to_some(
    world: World, tools: Tools, outcome: Outcome, deliveries: Sequence[Delivery], stop: threading.Event
) -> None:
    """As `_see_to`, of so many at most as may be on their way."""
    name = deliveries[0].destination
    confirmer = tools.confirmers[name]
    poll, before = confirmer.to.poll.total_seconds(), len(outcome.failed.get(name, ()))

    def send(one: Delivery) -> Parcel | None:
        # One that does not answer is not asked again for each of its deliveries.
        silent = len(outcome.failed.get(name, ())) > before
        return None if stop.is_set() or silent else _send(tools, outcome, one)

    with ThreadPoolExecutor(confirmer.to.connections, thread_name_prefix="tidepost-delivery") as pool:
        parcels = [parcel for parcel in pool.map(send, deliveries) if parcel is not None]
        try:
            for pause in (*PAUSES, None):
                left = confirmer.look(parcels)
                # What is to be sent again goes at the next call.
                parcels = _without(tools, left, DeliveryState.TODO)
                if not parcels or pause is None or world.wait(stop, min(pause, poll)):
                    break
        finally:
            _without(tools, parcels)


def _without(tools: Tools, parcels: Sequence[Parcel], *states: DeliveryState) -> list[Parcel]:
    """Stop working on deliveries, those in some states alone or all; returns the others."""
    left = [one for one in parcels if not states or one.delivery.state in states]
    for one in left:
        tools.keeper.release(one.lease)
    return [one for one in parcels if one not in left]


def _raise(outcome: Outcome, notice: Notice, *, others: bool) -> None:
    """Raise the worst error; where there is no other error than of destinations, and others go on, only tell it."""
    worst = outcome.worst()
    for error in outcome.errors:
        if isinstance(error, TidepostError) and (error is not worst or others):
            notice(Warned(str(error)))
    if worst is not None and (outcome.general or not others or not isinstance(worst, TidepostError)):
        raise worst


def _uploaded(
    world: World, stream: Stream, cut: Cut, *, sent: int, before: bool, elsewhere: str | None, began: float
) -> Uploaded:
    """What became of a cut, whoever did it."""
    kind, deliveries = world.source.cursor(), world.ledger.deliveries.of(stream, [cut.id])
    became = world.ledger.deliveries.contents(deliveries[0])[0] if deliveries else None
    tally = world.ledger.plans.tallies(stream, [cut.id]).get(cut.id, Tally())
    return Uploaded(
        cut.id,
        kind.format(cut.range.start),
        kind.format(cut.range.end),
        slice=None if became is None else became.sequence,
        rows=tally.published,
        size=0 if became is None else became.size,
        scanned=tally.scanned,
        duplicates=tally.duplicates,
        known=tally.known,
        rejected=dict(tally.rejected),
        sent=sent,
        held=sum(one.state is DeliveryState.HELD for one in deliveries),
        seconds=time.monotonic() - began,
        before=before,
        elsewhere=elsewhere,
    )


def _standing(
    world: World, stream: Stream, found: Sequence[Delivery], cuts: Sequence[int] | None, places: Collection[str]
) -> Standing:
    """Where deliveries stand at some destinations."""
    plans, deliveries = world.ledger.plans, world.ledger.deliveries
    poll = min(to.poll.total_seconds() for to in world.job.destinations)
    still_open = {cut.id for cut in plans.open_cuts(stream)}
    turn = {one.id for one in open_deliveries(world, stream)} if stream.name is StreamName.GROUND_TRUTH else None
    everywhere = [deliveries.current(one) for one in found] if cuts is None else deliveries.of(stream, cuts)
    these = [one for one in everywhere if one.destination in places]
    tallies = plans.tallies(stream, cuts or ()).values()
    going = [one for one in these if one.state not in ENDED]
    behind = len(going) if turn is not None and not turn else 0
    able = going if turn is None else [one for one in going if one.id in turn]
    return Standing(
        tally=reduce(Tally.plus, tallies, Tally()),
        unfinished=tuple(sorted(still_open if cuts is None else still_open.intersection(cuts))),
        deliveries=len(these),
        rows=sum(one.rows for one in these),
        arrived=sum(one.arrived for one in these),
        refused=sum(one.refused for one in these),
        waiting=len(going) - behind,
        held=sum(one.state is DeliveryState.HELD for one in these),
        wait=0.0 if any(one.state is DeliveryState.TODO for one in able) else poll,
        behind=behind,
    )
