"""Loads accepted files in the background, one after another, in the order they were accepted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import duckdb

from tidepost.sandbox.catalog import Model
from tidepost.sandbox.database import Database
from tidepost.sandbox.intake import Accepted, Intake
from tidepost.sandbox.loading import Dropping, Loaded, load_inferences, load_labels
from tidepost.sandbox.offer import Offer
from tidepost.sandbox.settings import Settings

_AGAIN: Final = 5.0  # seconds until a file whose load failed is tried again


class Loader:
    """A thread that empties the queue. A load that fails leaves its file in the queue and is tried again."""

    def __init__(
        self,
        database: Database,
        intake: Intake,
        *,
        settings: Callable[[], Settings],
        model: Callable[[int], Model],
    ) -> None:
        self._database = database
        self._intake = intake
        self._settings = settings
        self._model = model
        self._stopping = threading.Event()
        self._failed: dict[int, tuple[float, str]] = {}
        self._thread = threading.Thread(target=self._run, name="sandbox-loader", daemon=True)

    def start(self) -> None:
        """Begins with what is left in the queue from before."""
        self._thread.start()

    def stop(self) -> None:
        """Ends within about a second; a load under way is undone and stays queued."""
        self._stopping.set()
        with self._intake.changed:
            self._intake.changed.notify_all()
        while self._thread.is_alive():
            self._database.interrupt()
            self._thread.join(0.05)

    def errors(self) -> list[str]:
        """What the last attempt at each file that cannot be loaded came to."""
        return [f"arrival {arrival}: {message}" for arrival, (_, message) in sorted(self._failed.items())]

    def _run(self) -> None:
        while not self._stopping.is_set():
            due = self._due()
            if due is None:
                continue
            try:
                self._load(due)
            except duckdb.InterruptException:
                continue
            except (duckdb.Error, OSError) as error:
                # The file was accepted, so it may not be given up: the disk may have room again, or memory.
                self._failed[due.arrival] = (time.time() + _AGAIN, str(error).splitlines()[0])

    def _due(self) -> Accepted | None:
        """The next file whose time has come; waits a little when there is none."""
        now = time.time()
        waits = [1.0]
        delay = self._settings().loading_delay
        for entry in self._intake.pending():
            due = max(entry.accepted_at + delay, self._failed.get(entry.arrival, (0.0, ""))[0])
            if due <= now:
                return entry
            waits.append(due - now)
            if entry.arrival not in self._failed:
                break
        with self._intake.changed:
            if not self._stopping.is_set() and (len(waits) > 1 or not self._intake.pending()):
                self._intake.changed.wait(max(0.005, min(waits)))
        return None

    def _load(self, entry: Accepted) -> None:
        settings = self._settings()
        if settings.loading_rate is not None and self._stopping.wait(entry.rows / settings.loading_rate):
            return
        model = self._model(entry.model)
        offer = Offer(self._intake.path(entry), model, entry.stream, entry.batch_id, frozenset(entry.present))
        received = datetime.fromtimestamp(entry.accepted_at, tz=UTC)
        dropping = Dropping(entry.drop, settings.seed)
        with self._database.transaction() as cur:
            loaded: Loaded
            if entry.stream == "inferences":
                loaded = load_inferences(
                    cur,
                    offer,
                    arrival=entry.arrival,
                    received=received,
                    on_repeat=settings.on_repeat,
                    dropping=dropping,
                )
            else:
                loaded = load_labels(cur, offer, received=received, dropping=dropping)
            load = replace(
                loaded.load,
                offered=loaded.load.offered + entry.left_out,
                refused=loaded.load.refused + entry.left_out,
            )
            self._database.log(cur, entry.arrival, model, via="file", stream=entry.stream, load=load)
        self._intake.done(entry)
        self._failed.pop(entry.arrival, None)
