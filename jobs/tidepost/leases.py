"""Keeping leases while work goes on, and refusing to go on where one was lost.

A thread renews every lease that this process holds, at a third of its length. A process that was stopped or slept
wakes up with leases that lapsed: `guard` notices by the monotonic clock and asks the ledger before anything is
published or a send is finished.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tidepost.errors import HeldElsewhere, LeaseLost, TidepostError
from tidepost.model import Lease
from tidepost.ports import Ledger

LEASE_SECONDS = 60.0


class Keeper:
    """Takes, renews and guards leases for one process; a context manager that releases what is left at its end."""

    def __init__(self, ledger: Ledger, owner: str, *, seconds: float = LEASE_SECONDS) -> None:
        self._ledger = ledger
        self._owner = owner
        self._seconds = seconds
        self._lock = threading.Lock()
        self._held: dict[tuple[str, int], tuple[Lease, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="tidepost-leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for lease, _ in list(self._held.values()):
            self.release(lease)

    def take(self, kind: str, ref: int) -> Lease:
        """Raises HeldElsewhere where another process, or another thread of this one, works on it."""
        started = time.monotonic()  # before the ledger's own clock: this process must not trust it for longer
        lease = self._ledger.leases.take(kind, ref, self._owner, self._seconds)
        with self._lock:
            self._held[kind, ref] = (lease, started + self._seconds)
        return lease

    def release(self, lease: Lease) -> None:
        with self._lock:
            self._held.pop((lease.kind, lease.ref), None)
        self._ledger.leases.release(lease)

    @contextmanager
    def holding(self, kind: str, ref: int) -> Iterator[Lease]:
        """Take a lease for a block."""
        lease = self.take(kind, ref)
        try:
            yield lease
        finally:
            self.release(lease)

    def guard(self, lease: Lease) -> float:
        """Until when, by the monotonic clock, this process may act on a lease that it took. Raises LeaseLost where
        it no longer may."""
        until = self._until(lease)
        if time.monotonic() < until:
            return until
        self._extend(lease)
        return self._until(lease)

    def ledger_now(self, lease: Lease) -> float:
        """What the ledger's clock shows, as far as a lease that this process took can tell; never too early.
        Raises LeaseLost where it was lost."""
        held, until = self._own(lease)
        return held.until - (until - time.monotonic())

    def _until(self, lease: Lease) -> float:
        return self._own(lease)[1]

    def _own(self, lease: Lease) -> tuple[Lease, float]:
        with self._lock:
            held = self._held.get((lease.kind, lease.ref))
        if held is None or held[0].fence != lease.fence:
            raise LeaseLost(f"the lease of {lease.kind} {lease.ref} was lost to another run")
        return held

    def _extend(self, lease: Lease) -> None:
        started = time.monotonic()
        try:
            renewed = self._ledger.leases.renew(lease, self._seconds)
        except HeldElsewhere:
            with self._lock:
                self._held.pop((lease.kind, lease.ref), None)
            raise
        with self._lock:
            if (lease.kind, lease.ref) in self._held:
                self._held[lease.kind, lease.ref] = (renewed, started + self._seconds)

    def _renew(self) -> None:
        while not self._stop.wait(self._seconds / 3):
            with self._lock:
                leases = [lease for lease, _ in self._held.values()]
            for lease in leases:
                try:
                    self._extend(lease)
                except TidepostError:
                    continue  # the guard before the next act says so, or the next renewal mends it
