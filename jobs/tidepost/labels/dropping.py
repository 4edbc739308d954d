"""Dropping: files of labels that somebody puts down, each taken up once.

`{job}/ground_truth/_tidepost/files/{number}.json`         a file as it was found: path, version, when it was modified
`{job}/ground_truth/_tidepost/files/{number}.error.json`   why it was set aside

A file is known by its path, its version (size, and ETag or time) and when it was modified: the number is a hash of
these, and the range of the cut that takes it up, in the lane `files`. So a file that changes is another one, and that
is so if it changes back; what of it was published is recognised row by row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from tidepost.errors import Misconfigured
from tidepost.model import Coverage, Cut, ScanKind, Stream
from tidepost.ports import Drop, Drops, Ledger, Records
from tidepost.ranges import Range, Ranges

LANE: Final = "files"
_DIGITS: Final = 15


@dataclass(frozen=True, slots=True)
class SetAside:
    """A file that could not be taken up, and why."""

    path: str
    error: str


def number_of(drop: Drop) -> int:
    """What a file is known by."""
    return int(hashlib.sha256(f"{drop.path}\0{drop.version}\0{drop.modified!r}".encode()).hexdigest()[:_DIGITS], 16)


def register(records: Records, stream: Stream, drop: Drop) -> None:
    """Remember a file that is to be taken up, durably; repeating it is harmless."""
    records.put(_key(stream, number_of(drop)), json.dumps(asdict(drop), sort_keys=True).encode(), absent=True)


def by_hand(drops: Drops, paths: Sequence[str]) -> list[Drop]:
    """Files that somebody names, as they are now; absolute, or in S3. Raises Misconfigured where one is not there."""
    found = {path: drops.now(path) for path in paths}
    missing = [path for path, drop in found.items() if drop is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise Misconfigured(f"{', '.join(missing)} {are} not there", safe="Nothing was done.")
    return [drop for drop in found.values() if drop is not None]


def registered(records: Records, stream: Stream, number: int) -> Drop:
    """Raises Misconfigured where the staging holds no file of that number."""
    try:
        content = json.loads(records.get(_key(stream, number)) or b"")
        return Drop(str(content["path"]), str(content["version"]), float(content["modified"]))
    except (ValueError, TypeError, KeyError):
        raise Misconfigured(
            f"staging: {_key(stream, number)} is missing or damaged: it says which file of labels to read",
            safe="Nothing was sent.",
            hint="Bring it back from a copy of the staging.",
        ) from None


def every_registered(records: Records, stream: Stream, *, but: Ranges | None = None) -> Iterator[Drop]:
    """All files that were ever registered, without some numbers. Raises as `registered`."""
    taken = but or Ranges()
    for key in records.list(f"{stream.prefix}/{_FOLDER}"):
        name = key.rpartition("/")[2].removesuffix(".json")
        if name.isdigit() and int(name) not in taken:
            yield registered(records, stream, int(name))


def due(
    drops: Drops, records: Records, ledger: Ledger, stream: Stream, *, now: float, quiet: float
) -> list[tuple[Drop, Cut]]:
    """The files that are to be taken up: those found that did not change for `quiet` seconds, and those that were
    registered by hand; without what was taken up, or is about to be. A stream without a number never ran."""
    coverage = ledger.plans.coverage(stream) if stream.id else Coverage(0)
    taken = coverage.scanned.get(LANE, Ranges()).union(coverage.planned.get(LANE, Ranges()))
    found: dict[int, Drop] = {}
    for drop in every_registered(records, stream, but=taken):
        found[number_of(drop)] = drop
    for drop in drops.found():
        if number_of(drop) not in taken and drop.modified + quiet <= now:
            found.setdefault(number_of(drop), drop)
    return [
        (drop, Cut(0, ScanKind.INCREMENTAL, Range(number, number + 1), LANE))
        for number, drop in sorted(found.items(), key=lambda one: (one[1].modified, one[0]))
    ]


def set_aside(records: Records, stream: Stream, number: int, error: str) -> None:
    """Remember why a file was not taken up."""
    content = {"path": registered(records, stream, number).path, "error": error}
    records.put(f"{stream.prefix}/{_FOLDER}/{number:018d}.error.json", json.dumps(content).encode())


def mended(records: Records, stream: Stream, path: str) -> None:
    """Forget why older versions of a file were set aside, now that one was read."""
    for key, found in _set_aside(records, stream):
        if found.path == path:
            records.remove(key)


def aside(records: Records, stream: Stream) -> Iterator[SetAside]:
    """The files that were set aside, and not mended since."""
    return (found for _, found in _set_aside(records, stream))


def _set_aside(records: Records, stream: Stream) -> Iterator[tuple[str, SetAside]]:
    for key in records.list(f"{stream.prefix}/{_FOLDER}"):
        if key.endswith(".error.json") and (data := records.get(key)) is not None:
            content = json.loads(data)
            yield key, SetAside(str(content["path"]), str(content["error"]))


_FOLDER: Final = "_tidepost/files"


def _key(stream: Stream, number: int) -> str:
    return f"{stream.prefix}/{_FOLDER}/{number:018d}.json"
