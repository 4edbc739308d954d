"""Time that passes only where somebody waits, so that an hour of it takes moments."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta


class SimulatedTime:
    """A clock that begins at `start`. Whatever is due by then happens when it gets there, before the waiting ends.

    moment: seconds that a wait for the platform takes in truth, so that it can load
    """

    def __init__(self, start: datetime, *, moment: float = 0.01) -> None:
        self._start = start
        self._moment = moment
        self._seconds = 0.0
        self._lock = threading.RLock()
        self._due: list[tuple[float, Callable[[], object]]] = []

    @property
    def instant(self) -> datetime:
        return self._start + timedelta(seconds=self._seconds)

    def now(self) -> float:
        return self._seconds

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something so many seconds after the start."""
        self._due.append((seconds, act))

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._seconds += seconds
            for due in [one for one in self._due if one[0] <= self._seconds]:
                self._due.remove(due)
                due[1]()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.sleep(seconds)
        time.sleep(self._moment)
        return stop.is_set()
