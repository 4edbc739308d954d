"""What a stream's staging tells of it, read back into nouns: slices from manifests, sends from intents and receipts.

Reads only. Whatever is damaged, or was written by a newer tidepost, is an error that names the file: a ledger that
was rebuilt from half of the truth would send rows again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import pyarrow as pa

from tidepost.errors import Misconfigured
from tidepost.model import Part, ScanKind, Send, SendForm, SendState, Slice, Stream, StreamName, Tally
from tidepost.ports import PartRef, Records
from tidepost.publishing.publish import MANIFEST_VERSION, Head, manifests, read_head
from tidepost.ranges import Range
from tidepost.recovery.acts import ACTS_VERSION, Act, act_of, acts
from tidepost.rows.index import sidecar_of, sidecars
from tidepost.rows.rejects import by_hour, read_rejects

_PART: Final = re.compile(r".*/(\d{8,})-\d{5,}\.parquet")
_SEND: Final = re.compile(r".*/(\d{8,})-(\d{5,})\.([^.]+)\.(\d+)\.json")
_REFUSED: Final = re.compile(r".*/(\d{8,})\.([^.]+)\.parquet")
_REJECTS: Final = re.compile(r".*/(\d{8,})\.parquet")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """A stream as its staging tells it.

    wrote:   the ledger that wrote it last; empty where nothing says so
    newest:  the newest sequence number that was given to a slice
    sends:   (sequence, destination) → sends in their order, without numbers of the ledger
    refused: (sequence, destination) → rows that were refused there, by hour of event time
    half:    the slice that was being published when the ledger was lost, if any of it is visible, and its files
    rejects: the cuts of which rows were set aside
    """

    stream: Stream
    wrote: str
    newest: int
    slices: tuple[Slice, ...]
    sends: Mapping[tuple[int, str], tuple[Send, ...]]
    refused: Mapping[tuple[int, str], Mapping[int, int]]
    half: tuple[int, tuple[str, ...]] | None
    rejects: frozenset[int]
    acts: tuple[Act, ...]

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.slices)


def read(records: Records, job: str, name: StreamName) -> Found | None:
    """A stream as its staging tells it; None where the staging holds nothing of it. Raises Misconfigured, naming
    the file, where one is damaged, missing, or written by a newer tidepost."""
    stream = Stream(0, job, name)
    head = read_head(records, stream)
    keys = {sequence: key for key in records.list(manifests(stream)) if (sequence := _sequence(key)) is not None}
    if head is None and not keys:
        return None
    files: dict[int, list[str]] = {}
    for key in records.list(f"{stream.prefix}/data"):
        if (match := _PART.fullmatch(key)) is not None:
            files.setdefault(int(match[1]), []).append(key)
    there = {*(key for each in files.values() for key in each), *records.list(sidecars(stream))}
    slices = tuple(
        _with_files(stream, _parsed(records, key, _slice_of(stream, sequence)), there)
        for sequence, key in sorted(keys.items())
    )
    sends = _sends(records, stream)
    half = _half_published(stream, head, set(keys), {sequence for sequence, _ in sends}, files)
    return Found(
        stream,
        head.ledger if head is not None else "",
        max([head.newest if head is not None else 0, *keys, *([half] if half is not None else [])]),
        slices,
        sends,
        dict(_refused(records, stream)),
        None if half is None else (half, tuple(files[half])),
        frozenset(
            int(match[1])
            for key in records.list(f"{stream.prefix}/_tidepost/rejects")
            if (match := _REJECTS.fullmatch(key))
        ),
        tuple(_parsed(records, key, act_of, version=ACTS_VERSION) for key in records.list(acts(stream))),
    )


def _with_files(stream: Stream, found: Slice, there: Set[str]) -> Slice:
    """The slice, and which of its parts were purged: those whose sidecar is there in place of their file. Raises
    Misconfigured where neither is."""
    parts: list[Part] = []
    for part in found.parts:
        kept = f"{stream.prefix}/{part.path}" in there
        if not kept and f"{stream.prefix}/{sidecar_of(PartRef(found.sequence, part)).path}" not in there:
            raise Misconfigured(
                f"staging: {stream.prefix}/{part.path} is missing, and so is the sidecar of a file that was purged",
                safe="Nothing was changed.",
                hint="Bring one of both back from a copy of the staging: without them nobody knows what was sent.",
            )
        parts.append(replace(part, purged=not kept))
    return replace(found, parts=tuple(parts))


def _half_published(
    stream: Stream, head: Head | None, published: set[int], sent: set[int], files: Mapping[int, list[str]]
) -> int | None:
    """The slice whose publisher died after its files began to be visible, and before its manifest was.

    At most one slice is there at a time, it is the newest, and nothing of it was sent. Any other slice without a
    manifest has lost it. Raises Misconfigured for such a one, as its rows must not be taken for unsent."""
    left = set(files) - published
    last = max(left, default=0)
    unfinished = last > max(published, default=0) and last not in sent and (head is None or last == head.newest)
    for sequence in sorted((left | sent) - published - ({last} if unfinished else set())):
        raise Misconfigured(
            f"staging: {manifests(stream)}/{sequence:08d}.json is missing: slice {sequence} was published",
            safe="Nothing was changed.",
            hint="Bring the file back; without it nobody knows what the slice holds.",
        )
    return last if unfinished else None


def _slice_of(stream: Stream, sequence: int) -> Callable[[Mapping[str, Any]], Slice]:
    """Reads the slice of that number from a manifest. Raises ValueError where it is another's, or does not add up."""

    def of(content: Mapping[str, Any]) -> Slice:
        if (content["job"], content["stream"], content["sequence"]) != (stream.job, stream.name, sequence):
            raise ValueError("a manifest of another slice")
        found = Slice(
            sequence,
            _whole(content["cut"]),
            ScanKind(content["kind"]),
            Range(_whole(content["range"]["start"]), _whole(content["range"]["end"])),
            tuple(map(_part_of, content["parts"])),
            _tally_of(content["tally"]),
            _text(content["lane"]),
            None if content["held"] is None else _text(content["held"]),
            tuple(map(_whole, content["joined"])),
        )
        if not found.rows == sum(found.hours.values()) == found.tally.published:
            raise ValueError("rows that do not add up")
        return found

    return of


def _part_of(content: Mapping[str, Any]) -> Part:
    return Part(
        number=_whole(content["number"]),
        path=_text(content["path"]),
        rows=_whole(content["rows"]),
        size=_whole(content["size"]),
        sha256=_text(content["sha256"]),
        event_min=_whole(content["event_min"]),
        event_max=_whole(content["event_max"]),
        hours={int(hour): _whole(rows) for hour, rows in content["hours"].items()},
        batch_id=None if content["batch_id"] is None else _text(content["batch_id"]),
    )


def _tally_of(content: Mapping[str, Any]) -> Tally:
    return Tally(
        scanned=_whole(content["scanned"]),
        published=_whole(content["published"]),
        duplicates=_whole(content["duplicates"]),
        known=_whole(content["known"]),
        rejected={_text(reason): _whole(rows) for reason, rows in content["rejected"].items()},
        null_cursors=_whole(content["null_cursors"]),
        ids=_text(content["ids"]),
        late=float(content["late"]),
        superseded=_whole(content["superseded"]),
        waiting=_whole(content["waiting"]),
    )


def _sends(records: Records, stream: Stream) -> dict[tuple[int, str], tuple[Send, ...]]:
    """Every send that was intended, answered where it has a receipt."""
    folder = f"{stream.prefix}/_tidepost"
    receipts = {key.rpartition("/")[2]: key for key in records.list(f"{folder}/receipts") if _SEND.fullmatch(key)}
    found: dict[tuple[int, str], list[Send]] = {}
    for key in records.list(f"{folder}/intents"):
        match = _SEND.fullmatch(key)
        if match is None:
            continue
        send = _parsed(records, key, _intent_of(int(match[2]), int(match[4])), version=None)
        receipt = receipts.pop(key.rpartition("/")[2], None)
        if receipt is not None:
            send = _parsed(records, receipt, _answer_to(send), version=None)
        found.setdefault((int(match[1]), match[3]), []).append(send)
    for receipt in receipts.values():
        raise Misconfigured(
            f"staging: {receipt} answers a send whose intent is missing",
            safe="Nothing was changed.",
            hint=f"Bring back {folder}/intents/{receipt.rpartition('/')[2]}.",
        )
    return {of: tuple(sorted(sends, key=lambda one: (one.at, one.part, one.attempt))) for of, sends in found.items()}


def _intent_of(part: int, attempt: int) -> Callable[[Mapping[str, Any]], Send]:
    return lambda content: Send(
        0, 0, part, attempt, SendForm(content["form"]), _whole(content["rows"]), float(content["at"])
    )


def _answer_to(send: Send) -> Callable[[Mapping[str, Any]], Send]:
    def of(content: Mapping[str, Any]) -> Send:
        detail = {name: value for name, value in content.items() if name != "state"}
        state = SendState(content["state"])
        return Send(0, 0, send.part, send.attempt, send.form, send.rows, send.at, state, json.dumps(detail))

    return of


def _refused(records: Records, stream: Stream) -> Iterator[tuple[tuple[int, str], dict[int, int]]]:
    for key in records.list(f"{stream.prefix}/_tidepost/refused"):
        match = _REFUSED.fullmatch(key)
        if match is None:
            continue
        try:
            hours = by_hour(read_rejects(records, key))
        except (pa.ArrowException, ValueError, TypeError, KeyError):
            raise _damaged(key) from None
        yield (int(match[1]), match[2]), hours


def _parsed(
    records: Records, key: str, parse: Callable[[Mapping[str, Any]], T], *, version: int | None = MANIFEST_VERSION
) -> T:
    """A record read back. Raises Misconfigured, naming it, where it is damaged or of a newer version."""
    try:
        content = json.loads(records.get(key) or b"")
        if version is not None and _whole(content["version"]) > version:
            raise Misconfigured(
                f"staging: {key} was written by a newer tidepost (version {content['version']}; this one knows "
                f"{version})",
                safe="Nothing was changed.",
                hint="Install the tidepost that wrote it, or a newer one.",
            )
        return parse(content)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _damaged(key) from None


def _damaged(key: str) -> Misconfigured:
    return Misconfigured(
        f"staging: {key} is damaged", safe="Nothing was changed.", hint="Bring it back from a copy of the staging."
    )


def _sequence(key: str) -> int | None:
    match = re.fullmatch(r".*/(\d{8,})\.json", key)
    return None if match is None else int(match[1])


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("not a text")
    return value
