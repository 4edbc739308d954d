"""One destination's side of a run: deliveries go out while the next cut is staged, and are confirmed behind them.

A destination that does not answer is left alone for the rest of the run: its deliveries stay open in the ledger,
and nobody else waits for it.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from tidepost.delivery.confirm import Confirmer
from tidepost.delivery.deliver import Courier, Parcel
from tidepost.errors import HeldElsewhere, Outdated, Refused, TidepostError
from tidepost.events import Notice, Settled
from tidepost.model import Delivery, DeliveryState

MOST_WAITING = 256
FIRST_POLL = 0.05
ENDED = (DeliveryState.HELD, DeliveryState.CLOSED)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait between two looks at what has arrived.

    poll: seconds, at most
    stop: ends the waiting
    wait: waits for `stop`, so many seconds at most; whether it was set
    """

    poll: float
    stop: threading.Event
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait


class Outbound:
    """Takes deliveries and sees each one through. `errors` holds what stopped some of them, oldest first.

    at_once: deliveries that send at the same time: as many as there are connections, for most are of one file
    ready:   waits until the destination takes what is staged, before anything is sent; raises where it does not
    """

    def __init__(
        self,
        courier: Courier,
        confirmer: Confirmer,
        patience: Patience,
        notice: Notice,
        *,
        at_once: int,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._courier = courier
        self._confirmer = confirmer
        self._patience = patience
        self._notice = notice
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="tidepost-delivery")
        self._ready = ready
        self._sent: queue.SimpleQueue[Parcel] = queue.SimpleQueue()
        self._backlog: deque[Delivery] = deque()
        self._ending = threading.Event()
        self._underway = 0
        self._lock = threading.Lock()
        self._down = False
        self.errors: list[TidepostError | BaseException] = []
        self._confirming = threading.Thread(target=self._confirm, name="tidepost-confirm", daemon=True)
        self._confirming.start()

    def add(self, delivery: Delivery) -> None:
        """Begin a delivery, or let it wait while too many are on their way, as others have not to wait for them.
        Held ones are only told of."""
        if delivery.state in ENDED:
            self._notice(Settled(delivery))
            return
        if self._down:
            return
        with self._lock:
            self._underway += 1
            if self._underway > MOST_WAITING:
                self._backlog.append(delivery)
                return
        self._pool.submit(self._deliver, delivery)

    def finish(self) -> None:
        """Wait until every delivery is closed or held, or was left open for a reason in `errors`."""
        self._ending.set()
        self._confirming.join()
        self._pool.shutdown()

    def _deliver(self, delivery: Delivery) -> None:
        if self._down or self._patience.stop.is_set():
            self._left(None)
            return
        try:
            self._ready()
            parcel = self._courier.pick_up(delivery)
        except BaseException as error:
            self._left(error)
            return
        if parcel.delivery.state in ENDED:  # another run saw it through since it was listed
            self._leave(parcel, None)
            return
        self._send(parcel)

    def _send(self, parcel: Parcel) -> None:
        try:
            if self._down:
                self._leave(parcel, None)
                return
            if parcel.delivery.state is not DeliveryState.SENT:
                self._courier.deliver(parcel)
        except Refused:
            self._notice(Settled(parcel.delivery))
            self._leave(parcel, None)
        except BaseException as error:
            self._leave(parcel, error)
        else:
            self._sent.put(parcel)

    def _confirm(self) -> None:
        open_parcels: list[Parcel] = []
        pause = FIRST_POLL
        while True:
            fresh = self._drain(wait=not open_parcels)
            if fresh:
                pause = FIRST_POLL
            open_parcels += fresh
            if not open_parcels:
                with self._lock:
                    idle = self._underway == 0
                if self._ending.is_set() and idle:
                    return
                continue
            open_parcels = self._look(open_parcels)
            if open_parcels and self._patience.wait(self._patience.stop, pause):
                for parcel in open_parcels:
                    self._leave(parcel, None)
                open_parcels = []
                self._down = True
            pause = min(self._patience.poll, pause * 2)

    def _look(self, parcels: list[Parcel]) -> list[Parcel]:
        try:
            left = self._confirmer.look(parcels)
        except BaseException as error:
            for parcel in parcels:
                if parcel.delivery.state in ENDED:
                    self._left(None)
                else:
                    self._leave(parcel, error)
            return []
        for parcel in parcels:
            if parcel not in left:
                self._left(None)
        for parcel in [parcel for parcel in left if parcel.delivery.state is DeliveryState.TODO]:
            left.remove(parcel)
            self._pool.submit(self._send, parcel)
        return left

    def _drain(self, *, wait: bool) -> list[Parcel]:
        fresh: list[Parcel] = []
        try:
            if wait:
                fresh.append(self._sent.get(timeout=0.05))
            while True:
                fresh.append(self._sent.get_nowait())
        except queue.Empty:
            return fresh

    def _leave(self, parcel: Parcel, error: BaseException | None) -> None:
        """Stop working on a delivery, which stays as it is in the ledger."""
        with suppress(TidepostError):  # a lease that cannot be given back lapses; the run must end all the same
            self._courier.keeper.release(parcel.lease)
        self._left(error)

    def _left(self, error: BaseException | None) -> None:
        with self._lock:
            self._underway -= 1
            if error is not None and error not in self.errors:
                self.errors.append(error)
                if not isinstance(error, HeldElsewhere | Outdated | Refused):
                    self._down = True
            following = self._backlog.popleft() if self._backlog else None
        if following is not None:
            self._pool.submit(self._deliver, following)
