"""The durable queue between accepting a file and loading it.

A file is accepted when its entry (`NNN.json`) stands beside its data (`NNN.parquet`), both synced to disk. An entry
goes away after the database has committed its rows; one that the database has already logged is not loaded again.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tidepost.sandbox.catalog import Model, Stream


@dataclass(frozen=True, slots=True)
class Accepted:
    """A file that was accepted.

    rows:         rows in the data
    left_out:     rows of the request that were refused before they came to be data
    present:      columns that hold values
    accepted_at:  seconds since the epoch
    drop:         share of the rows to leave out silently when loading
    """

    arrival: int
    model: int
    stream: Stream
    batch_id: str | None
    batches: tuple[str, ...]
    present: tuple[str, ...]
    rows: int
    left_out: int
    accepted_at: float
    drop: float


def sync(path: Path) -> None:
    """Makes a file, or a directory's entries, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Intake:
    """The queue in `data/intake`; `data/incoming` holds uploads that are not accepted yet."""

    def __init__(self, data: Path, *, last_arrival: int, loaded: Callable[[int], bool]) -> None:
        self._queue = data / "intake"
        self._incoming = data / "incoming"
        self._queue.mkdir(exist_ok=True)
        self._incoming.mkdir(exist_ok=True)
        sync(data)
        for leftover in self._incoming.iterdir():
            leftover.unlink()
        self.changed = threading.Condition()
        self._uploads = 0
        self._pending = {entry.arrival: entry for entry in self._resume(loaded)}
        self._last = max([last_arrival, *self._pending])

    def _resume(self, loaded: Callable[[int], bool]) -> list[Accepted]:
        for data in self._queue.glob("*.parquet"):
            if not data.with_suffix(".json").exists():
                data.unlink()
        entries = []
        for path in sorted(self._queue.glob("*.json")):
            raw = json.loads(path.read_text())
            entry = Accepted(**raw | {"batches": tuple(raw["batches"]), "present": tuple(raw["present"])})
            if loaded(entry.arrival):
                self._remove(entry)
            else:
                entries.append(entry)
        return entries

    def new_upload(self) -> Path:
        """A path of its own to receive an upload in."""
        with self.changed:
            self._uploads += 1
            return self._incoming / f"{self._uploads:08}.part"

    def next_arrival(self) -> int:
        """The number of a new arrival; higher than every number given before, also by a process that was killed,
        unless nothing of that arrival was kept."""
        with self.changed:
            self._last += 1
            return self._last

    def accept(
        self,
        upload: Path,
        *,
        model: Model,
        stream: Stream,
        batch_id: str | None,
        batches: list[str],
        present: frozenset[str],
        rows: int,
        left_out: int,
        drop: float,
    ) -> Accepted:
        """Queues an upload; when this returns, a crash no longer loses it."""
        entry = Accepted(
            arrival=self.next_arrival(),
            model=model.number,
            stream=stream,
            batch_id=batch_id,
            batches=tuple(batches),
            present=tuple(sorted(present)),
            rows=rows,
            left_out=left_out,
            accepted_at=time.time(),
            drop=drop,
        )
        sync(upload)
        upload.rename(self.path(entry))
        draft = self._incoming / f"{entry.arrival:012}.json"
        draft.write_text(json.dumps(asdict(entry)))
        sync(draft)
        draft.rename(self._queue / draft.name)
        sync(self._queue)
        with self.changed:
            self._pending[entry.arrival] = entry
            self.changed.notify_all()
        return entry

    def path(self, entry: Accepted) -> Path:
        """Where an accepted file's rows are."""
        return self._queue / f"{entry.arrival:012}.parquet"

    def pending(self) -> list[Accepted]:
        """What is accepted and not loaded yet, in order of acceptance."""
        with self.changed:
            return [self._pending[arrival] for arrival in sorted(self._pending)]

    def done(self, entry: Accepted) -> None:
        """Takes an entry off the queue, once its rows are committed."""
        self._remove(entry)
        with self.changed:
            del self._pending[entry.arrival]
            self.changed.notify_all()

    def _remove(self, entry: Accepted) -> None:
        (self._queue / f"{entry.arrival:012}.json").unlink(missing_ok=True)
        self.path(entry).unlink(missing_ok=True)
