"""Acts by hand that decide what is sent, kept in the staging beside the slices, so that a ledger that is lost does
not take them along: a slice that was released or skipped, a frontier that was set.

`{job}/{stream}/_tidepost/acts/{number}.json`   written before the ledger, never changed
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from tidepost.errors import Misconfigured, Outdated
from tidepost.ledger.restore import SqlRestore
from tidepost.ledger.sql import SqlLedger
from tidepost.ledger.summary import AuditEntry
from tidepost.model import Coverage, Delivery, Pause, Slice, Stream
from tidepost.ports import Records
from tidepost.ranges import Range, Ranges

ACTS_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Skip:
    """A slice was given up at a destination; `arrived` rows of it had been shown to be there."""

    sequence: int
    destination: str
    arrived: int


@dataclass(frozen=True, slots=True)
class Release:
    """A held slice was let go wherever it was held.

    sent:    destination → file → the newest attempt that had been made; what was sent after that is another matter
    arrived: what of that had no answer did arrive, on the word of whoever let it go
    """

    sequence: int
    sent: Mapping[str, Mapping[int, int]]
    arrived: bool = False

    def covers(self, destination: str, part: int, attempt: int) -> bool:
        """Whether an attempt to send a file was made before."""
        return attempt <= self.sent.get(destination, {}).get(part, 0)


@dataclass(frozen=True, slots=True)
class Move:
    """The frontier was set to a position: forward, from `start` on all of it counts as scanned; back (`start` is
    None), nothing from there on does."""

    position: int
    start: int | None = None

    def on(self, scanned: Ranges) -> Ranges:
        """What counts as scanned afterwards."""
        if self.start is not None:
            return scanned.union([Range(self.start, self.position)])
        return Ranges(
            tuple(Range(one.start, min(one.end, self.position)) for one in scanned if one.start < self.position)
        )


@dataclass(frozen=True, slots=True)
class Loss:
    """Positions of a lane were gone before they were read, and given up: they count as scanned."""

    lane: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A destination was paused, or resumed, for all streams of the job; kept with its inferences."""

    destination: str
    paused: bool


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody did, and on what.

    after: the newest slice that had a number then
    entry: as the audit has it
    did:   what of it has to be done again when a ledger is rebuilt
    """

    after: int
    entry: AuditEntry
    did: Skip | Move | Release | Hold | Loss


@dataclass(frozen=True, slots=True)
class Word:
    """Who did something by hand, when, in seconds since 1970, and why."""

    who: str
    at: float
    why: str


def skip(ledger: SqlLedger, records: Records, stream: Stream, held: Delivery, word: Word) -> None:
    """Give a held delivery up: it is closed without the rows that have not arrived, and they are never sent there.
    Raises Outdated where it is not held any more."""
    left = held.rows - held.arrived - held.refused
    entry = AuditEntry(
        word.at,
        word.who,
        f"skipped slice {held.sequence} of {stream.name} at {held.destination}",
        f"held: {held.reason}",
        f"{left} of {held.rows} rows skipped, {held.arrived} arrived, {held.refused} refused",
        word.why,
    )
    act = Act(stream.allotted, entry, Skip(held.sequence, held.destination, held.arrived))
    with kept(records, stream, act):
        SqlRestore(ledger).skip(stream, held.sequence, held.destination, reason=skip_reason(word.why), entry=entry)


def release(
    ledger: SqlLedger, records: Records, stream: Stream, sequence: int, word: Word, *, arrived: bool = False
) -> tuple[Delivery, ...]:
    """Let the held deliveries of a slice go, and return them. `arrived`: what was sent of them without an answer did
    arrive, and is not sent again."""
    held = [
        one
        for each in ledger.reports.summary(stream.job)
        if each.name == stream.name
        for where in each.destinations
        for one in ledger.deliveries.held(stream, where.destination)
        if one.sequence == sequence
    ]
    sent: dict[str, dict[int, int]] = {}
    for one in held:
        newest = sent.setdefault(one.destination, {})
        for send in ledger.deliveries.contents(one)[1]:
            newest[send.part] = max(send.attempt, newest.get(send.part, 0))
    entry = AuditEntry(
        word.at,
        word.who,
        f"released slice {sequence} of {stream.name}",
        "; ".join(f"held at {one.destination}: {one.reason}" for one in held),
        "what had no answer arrived" if arrived else "todo",
        word.why,
    )
    with kept(records, stream, Act(stream.allotted, entry, Release(sequence, sent, arrived))):
        return ledger.deliveries.release(stream, sequence, who=word.who, why=word.why, arrived=arrived)


def lose(ledger: SqlLedger, records: Records, stream: Stream, loss: Loss, word: Word) -> None:
    """Give up positions that are gone, so that what comes after them is read; said again, it is harmless."""
    there = (json.loads(records.get(key) or b"{}") for key in records.list(acts(stream)))
    if any(asdict(loss) == one.get("loss") for one in there):
        return
    entry = AuditEntry(
        word.at,
        word.who,
        f"accepted a loss of {stream.name} in {loss.lane}",
        f"{loss.start} to {loss.end - 1}, gone before they were read",
        f"{loss.end - loss.start} offsets passed over",
        word.why,
    )
    with kept(records, stream, Act(stream.allotted, entry, loss)):
        said = {"what": entry.what, "old": entry.old, "new": entry.new, "why": entry.why}
        ledger.reports.record(stream.job, who=entry.who, **said)


def pause(ledger: SqlLedger, records: Records, stream: Stream, destination: str, word: Word) -> None:
    """Send nothing to a destination any more, of any stream of the job, until it is resumed. `stream` is the job's
    inferences. Raises Outdated where it is paused already."""
    _hold(ledger, records, stream, Hold(destination, paused=True), word)


def resume(ledger: SqlLedger, records: Records, stream: Stream, destination: str, word: Word) -> None:
    """Let a paused destination have what it missed. Raises Outdated where it is not paused."""
    _hold(ledger, records, stream, Hold(destination, paused=False), word)


def _hold(ledger: SqlLedger, records: Records, stream: Stream, did: Hold, word: Word) -> None:
    now, before = ("paused", "sending") if did.paused else ("sending", "paused")
    what = f"{'paused' if did.paused else 'resumed'} {did.destination}"
    entry = AuditEntry(word.at, word.who, what, before, now, word.why)
    with kept(records, stream, Act(stream.allotted, entry, did)):
        pause = Pause(word.who, word.at, word.why) if did.paused else None
        SqlRestore(ledger).pause(stream.job, did.destination, pause, entry)


def move_to(position: int, *, start: int, frontier: int, bound: int | None) -> Move | None:
    """How to set the frontier to a position, never beyond what a run may read (`bound`; None: nothing beyond the
    frontier); None where it is there already. Raises Misconfigured for a position before the job's start."""
    if position < start:
        raise Misconfigured(
            "the position is before the job's start",
            safe="Nothing was changed.",
            hint="cursor.start in the job's file says where it begins.",
        )
    if position < frontier:
        return Move(position)
    end = frontier if bound is None else min(position, bound)
    return Move(end, start) if end > frontier else None


def set_frontier(
    ledger: SqlLedger,
    records: Records,
    stream: Stream,
    move: Move,
    word: Word,
    *,
    coverage: Coverage,
    old: str,
    new: str,
) -> None:
    """Set the frontier, as of what was covered. `old` and `new` are for the record. Raises Misconfigured while cuts
    are open, Outdated where anything was planned meanwhile."""
    refuse_open_cuts(stream, coverage)
    entry = AuditEntry(word.at, word.who, f"set the frontier of {stream.name}", old, new, word.why)
    after = move.on(coverage.scanned.get("", Ranges()))
    with kept(records, stream, Act(stream.allotted, entry, move)):
        SqlRestore(ledger).rescan(stream, coverage.version, after, entry)


def refuse_open_cuts(stream: Stream, coverage: Coverage) -> None:
    """Raises Misconfigured where a range is promised to a cut that is not done."""
    if coverage.planned:
        raise Misconfigured(
            f"{stream.job} has cuts that are not done",
            safe="Nothing was changed.",
            hint=f"Finish them first:  tidepost run {stream.job}",
        )


def acts(stream: Stream) -> str:
    """The prefix of a stream's acts."""
    return f"{stream.prefix}/_tidepost/acts"


@contextmanager
def kept(records: Records, stream: Stream, act: Act) -> Iterator[None]:
    """Write an act down, under the next number that is free, before it is done in the block; what another one was
    quicker to prevent did not happen."""
    did = {type(act.did).__name__.lower(): asdict(act.did)}
    content = {"version": ACTS_VERSION, "after": act.after, "entry": asdict(act.entry), **did}
    number = len(list(records.list(acts(stream)))) + 1
    data = json.dumps(content, sort_keys=True).encode()
    while not records.put(key := f"{acts(stream)}/{number:08d}.json", data, absent=True):
        number += 1
    try:
        yield
    except Outdated:
        records.remove(key)
        raise


def act_of(content: Mapping[str, Any]) -> Act:
    """An act read back. Raises ValueError, TypeError or KeyError where it is none."""
    entry = content["entry"]
    words = (str(entry[name]) for name in ("who", "what", "old", "new", "why"))
    return Act(int(content["after"]), AuditEntry(float(entry["at"]), *words), _did(content))


def _did(content: Mapping[str, Any]) -> Skip | Move | Release | Hold | Loss:
    if "loss" in content:
        did = content["loss"]
        return Loss(str(did["lane"]), int(did["start"]), int(did["end"]))
    if "skip" in content:
        did = content["skip"]
        return Skip(int(did["sequence"]), str(did["destination"]), int(did["arrived"]))
    if "release" in content:
        did = content["release"]
        sent = {
            str(where): {int(part): int(newest) for part, newest in parts.items()}
            for where, parts in did["sent"].items()
        }
        return Release(int(did["sequence"]), sent, bool(did["arrived"]))
    if "hold" in content:
        did = content["hold"]
        return Hold(str(did["destination"]), bool(did["paused"]))
    did = content["move"]
    return Move(int(did["position"]), None if did["start"] is None else int(did["start"]))


def scanned_after(slices: Iterable[Slice], acts: Sequence[Act]) -> tuple[dict[str, Ranges], dict[str, Ranges]]:
    """What counts as scanned, per lane, once slices were published and acts done in the order in which they were;
    and what of it was passed over. A frontier is set in the lane without a name."""
    scanned: dict[str, Ranges] = {}
    passed = Ranges()

    def set_to(move: Move) -> None:
        nonlocal passed
        before = scanned.get("", Ranges())
        scanned[""] = move.on(before)
        passed = passed.union(scanned[""].minus(before)).minus(before.minus(scanned[""]))

    moves = [(act.after, act.did) for act in acts if isinstance(act.did, Move)]
    for one in slices:
        while moves and moves[0][0] < one.sequence:
            set_to(moves.pop(0)[1])
        scanned[one.lane] = scanned.get(one.lane, Ranges()).union([one.range])
        passed = passed.minus(Ranges((one.range,))) if not one.lane else passed
    for _, move in moves:
        set_to(move)
    for loss in (act.did for act in acts if isinstance(act.did, Loss)):
        scanned[loss.lane] = scanned.get(loss.lane, Ranges()).union([Range(loss.start, loss.end)])
    return scanned, {"": passed}


def paused_after(acts: Sequence[Act]) -> dict[str, Pause]:
    """The destinations that are paused once acts were done, by name."""
    paused: dict[str, Pause] = {}
    for act in acts:
        if isinstance(act.did, Hold):
            paused.pop(act.did.destination, None)
            if act.did.paused:
                paused[act.did.destination] = Pause(act.entry.who, act.entry.at, act.entry.why)
    return paused


def skip_reason(why: str) -> str:
    """The reason of a delivery that was closed without its rows."""
    return f"skipped: {why}"
