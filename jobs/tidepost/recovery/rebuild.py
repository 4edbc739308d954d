"""A ledger lost: a new one takes a stream over from what the staging holds of it.

1. Everything is read and judged (`look`), before anything is changed.
2. What of a slice was visible that never was published is removed; so are unfinished files.
3. One ledger transaction writes the stream down: slices, ranges, deliveries and their sends, acts by hand.
4. `head.json` names the new ledger: from here on it may run.

A rebuild that died is done again from the beginning: until the head names the new ledger, no run begins.

Of a delivery it is known what was intended and what was answered, not what arrived: what was accepted is asked for
again, what has no answer is of unknown outcome, and the rest is still to be sent. A range that was scanned and held
no new row has no manifest; it is scanned again, and the index keeps its rows from being sent twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb

from tidepost.definition.job import Job
from tidepost.engine import Engine, rows, translated
from tidepost.errors import Misconfigured
from tidepost.labels.versions import keep_versions
from tidepost.ledger.deliveries import said_to_have_arrived
from tidepost.ledger.restore import Restored, SqlRestore, Takeover, may_have_landed
from tidepost.ledger.sql import SqlLedger
from tidepost.ledger.summary import AuditEntry
from tidepost.model import DeliveryState, Send, SendForm, SendState, Slice, StreamName
from tidepost.ports import PartRef, Records, Staging
from tidepost.publishing.publish import Head, agree, write_head
from tidepost.recovery.acts import Act, Release, Skip, paused_after, scanned_after, skip_reason
from tidepost.recovery.found import Found, read
from tidepost.rows.index import columns_of
from tidepost.rows.rejects import rejects_key


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A stream that a ledger has taken over.

    half:       the slice that was being published when the ledger was lost, and of which something was visible
    deliveries: destination → state → deliveries
    strangers:  destinations that something was sent to and that the job does not name
    """

    job: str
    name: StreamName
    slices: int
    rows: int
    half: int | None
    deliveries: Mapping[str, Mapping[DeliveryState, int]]
    strangers: tuple[str, ...]


def look(job: Job, records: Records, ledger: SqlLedger | None) -> Iterator[Found]:
    """The streams of a job that a ledger (None: one that does not exist yet) has to take over.

    Raises Misconfigured where the staging is damaged, and where the ledger knows something of a stream that the
    staging says otherwise: which of both is right, and who writes to it meanwhile, nobody could tell.
    """
    for name in StreamName:
        found = read(records, job.name, name)
        if found is not None and not _known(found, records, ledger):
            yield found


def _known(found: Found, records: Records, ledger: SqlLedger | None) -> bool:
    """Whether the ledger is the one that wrote what was found. Raises Misconfigured where it is another one that
    is not empty, or an older copy."""
    stream = None if ledger is None else ledger.plans.find(found.stream.job, found.stream.name)
    if ledger is None or stream is None or not (stream.planned or stream.allotted):
        return False
    if ledger.plans.asked(stream, _request(found)) is not None and not stream.planned and found.wrote != ledger.id:
        return False  # it has taken the stream over, and died before the head told so
    try:
        agree(ledger, records, stream)
    except Misconfigured as error:
        raise Misconfigured(
            error.message,
            safe="Nothing was changed: a ledger that knows another story of this stream cannot be completed.",
            hint="Move that ledger away, with all files beside it whose names begin like its own; then, into a new "
            f"one:  tidepost ledger rebuild {stream.job}",
        ) from None
    return True


def rebuild(
    job: Job,
    found: Found,
    ledger: SqlLedger,
    *,
    staging: Staging,
    records: Records,
    engine: Engine,
    who: str,
    at: float,
) -> Rebuilt:
    """Let a ledger take a stream over as it was found; `who` did it, `at` seconds since 1970. Repeating it is
    harmless. Raises Retryable for a disk or a ledger that does not answer: then it is done again from the beginning.
    """
    restore = SqlRestore(ledger)
    _tidy(staging, records, found)
    what = _takeover(job, found, _pinned(staging, records, engine, found))
    counted = _counted(what.deliveries)
    stream = ledger.plans.find(job.name, found.stream.name)
    if stream is None or ledger.plans.asked(stream, what.request) is None:
        old = f"ledger {found.wrote or 'unknown'}, slices up to {found.newest}"
        new = f"ledger {ledger.id}, {_told(found, counted)}"
        entry = AuditEntry(at, who, f"rebuilt {found.stream.name}", old, new, "taken over from the staging")
        what = replace(what, slices=_numbered(records, restore, found), history=(*what.history, entry))
        restore.take_over(what)
    write_head(records, found.stream, Head(ledger.id, found.newest))
    return Rebuilt(
        job.name,
        found.stream.name,
        len(found.slices),
        found.rows,
        None if found.half is None else found.half[0],
        counted,
        tuple(sorted(set(counted) - {to.name for to in job.destinations})),
    )


def _request(found: Found) -> str:
    return f"rebuilt/{found.wrote}/{found.newest}"


def _tidy(staging: Staging, records: Records, found: Found) -> None:
    """Remove what was never published, and keep the rejects of cuts without a slice under a name of their own:
    their numbers are given again."""
    for key in found.half[1] if found.half is not None else ():
        records.remove(key)
    for cut in staging.leftovers(found.stream):
        staging.clear(found.stream, cut)
    for cut in sorted(found.rejects - {one.cut for one in found.slices}):
        key = rejects_key(found.stream, cut)
        data = records.get(key)
        if data is not None:
            records.put(key.replace(".parquet", f".{found.wrote or 'lost'}.parquet"), data)
            records.remove(key)


def _pinned(staging: Staging, records: Records, engine: Engine, found: Found) -> dict[str, str]:
    """The staged column types, as the newest slice with rows has them; all slices have the same."""
    newest = next((PartRef(one.sequence, one.parts[0]) for one in reversed(found.slices) if one.parts), None)
    if newest is None:
        return {}
    part = newest.part
    if part.purged:
        return columns_of(records, found.stream, newest)
    with engine.connect() as connection:
        relation = staging.relation(connection, found.stream, [part])
        try:
            columns = rows(
                connection, f"DESCRIBE SELECT * EXCLUDE (_part, _row) FROM ({relation.sql})", relation.values
            )
        except duckdb.Error as error:
            raise translated(error, f"staging: {found.stream.prefix}/{part.path}") from error
    return {str(name): str(kind) for name, kind, *_ in columns}


def _takeover(job: Job, found: Found, pinned: Mapping[str, str]) -> Takeover:
    skipped = {(act.did.sequence, act.did.destination): act for act in found.acts if isinstance(act.did, Skip)}
    scanned, passed = scanned_after(found.slices, found.acts)
    names = [to.name for to in job.destinations]
    strangers = sorted({name for _, name in (*found.sends, *skipped)} - set(names))
    return Takeover(
        job=job.name,
        name=found.stream.name,
        request=_request(found),
        newest=found.newest,
        pinned=pinned,
        slices=_slices(found),
        scanned=scanned,
        passed=passed,
        deliveries=tuple(
            _delivery(one, name, found, skipped.get((one.sequence, name)))
            for name in (*names, *strangers)
            for one in found.slices
            if name in names or (one.sequence, name) in {*found.sends, *skipped}
        ),
        history=tuple(act.entry for act in found.acts),
        paused=paused_after(found.acts),
    )


def _slices(found: Found) -> tuple[Slice, ...]:
    """The slices as they are now: not held any more where they were released, as those must have been of which
    anything was sent."""
    sent = {sequence for sequence, _ in found.sends}
    free = sent | {act.did.sequence for act in found.acts if isinstance(act.did, Release)}
    return tuple(replace(one, held=None) if one.sequence in free else one for one in found.slices)


def _numbered(records: Records, restore: SqlRestore, found: Found) -> tuple[Slice, ...]:
    """The slices, whose cuts keep their numbers but where the ledger gave them to others; then their rejects and the
    versions of labels are kept under the new ones too."""
    taken, highest = restore.taken()
    free = max([highest, *found.rejects, *(one.cut for one in found.slices)]) + 1
    slices: list[Slice] = []
    for one in _slices(found):
        number = one.cut
        if number in taken:
            number, free = free, free + 1
            data = records.get(rejects_key(found.stream, one.cut))
            if data is not None:
                records.put(rejects_key(found.stream, number), data)
            keep_versions(records, found.stream, one.cut, number)
        slices.append(replace(one, cut=number))
    return tuple(slices)


def _delivery(one: Slice, destination: str, found: Found, skipped: Act | None) -> Restored:
    releases = [act.did for act in found.acts if isinstance(act.did, Release) and act.did.sequence == one.sequence]
    sends = _as_said(found.sends.get((one.sequence, destination), ()), destination, releases)
    refused = found.refused.get((one.sequence, destination), {})
    released = _still_released(sends, destination, releases)
    state, reason = _state(one, sends, released=released)
    hours, arrived = one.hours, 0
    if sends and any(part.purged for part in one.parts):  # which was only done once it was closed
        state, reason, arrived = DeliveryState.CLOSED, "", one.rows - sum(refused.values())
    if skipped is not None and isinstance(skipped.did, Skip):
        state, reason, arrived = DeliveryState.CLOSED, skip_reason(skipped.entry.why), skipped.did.arrived
        landed = may_have_landed((send.part, send.state) for send in sends)
        hours = replace(one, parts=tuple(part for part in one.parts if part.number in landed)).hours
    due = {hour: max(hours.get(hour, 0), refused.get(hour, 0)) for hour in {*hours, *refused}}
    return Restored(one.sequence, destination, state, one.rows, arrived, due, refused, reason, sends, released)


def _as_said(sends: Sequence[Send], destination: str, releases: Sequence[Release]) -> tuple[Send, ...]:
    """The sends, of which those have an answer that somebody gave on releasing them."""
    said = [one for one in releases if one.arrived]
    return tuple(
        replace(send, state=SendState.ACCEPTED, detail=said_to_have_arrived(send.rows))
        if send.state in (SendState.INTENT, SendState.UNKNOWN)
        and any(one.covers(destination, send.part, send.attempt) for one in said)
        else send
        for send in sends
    )


def _still_released(sends: Sequence[Send], destination: str, releases: Sequence[Release]) -> bool:
    """Whether a delivery was let go and nothing was sent of it since."""
    return any(all(one.covers(destination, send.part, send.attempt) for send in sends) for one in releases)


def _state(one: Slice, sends: Sequence[Send], *, released: bool) -> tuple[DeliveryState, str]:
    """What has become of a delivery, by what was sent of it, and why it waits."""
    if not sends:
        if one.held is not None and not released:
            return DeliveryState.HELD, one.held
        return (DeliveryState.TODO if one.rows else DeliveryState.CLOSED), ""
    if any(send.state is SendState.INTENT for send in sends):
        return DeliveryState.UNKNOWN, "a send has no answer"
    of = {part.number: [send for send in sends if send.part == part.number] for part in one.parts}
    held = (SendState.REFUSED, SendState.UNKNOWN)
    refused = next((told[-1] for told in of.values() if told and told[-1].state in held), None)
    if refused is not None and not released and "then" not in json.loads(refused.detail):
        return DeliveryState.HELD, str(json.loads(refused.detail).get("message", "it was refused"))
    files = [[send for send in told if send.form is SendForm.FILE] for told in of.values()]
    if released or any(not told or told[-1].state in (SendState.ABSENT, SendState.UNKNOWN) for told in files):
        return DeliveryState.TODO, ""
    return DeliveryState.SENT, ""


def _counted(deliveries: Sequence[Restored]) -> dict[str, dict[DeliveryState, int]]:
    found: dict[str, Counter[DeliveryState]] = {}
    for one in deliveries:
        found.setdefault(one.destination, Counter())[one.state] += 1
    return {name: dict(sorted(states.items())) for name, states in found.items()}


def _told(found: Found, counted: Mapping[str, Mapping[DeliveryState, int]]) -> str:
    parts = [f"slices: {len(found.slices)}, rows: {found.rows}"]
    for name, states in counted.items():
        parts.append(f"at {name} {', '.join(f'{number} {state}' for state, number in states.items())}")
    if found.half is not None:
        parts.append(f"slice {found.half[0]} was half-published and removed")
    return "; ".join(parts)
