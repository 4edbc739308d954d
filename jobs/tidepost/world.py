"""A job and the outside that it works on: what `wire.py` makes, and everything else is given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tidepost.definition.job import Job
from tidepost.engine import Engine
from tidepost.errors import Misconfigured
from tidepost.ports import Destination, Drops, Ledger, Records, Source, Staging


@dataclass(frozen=True, slots=True)
class World:
    """A job and the outside that it works on, wired by `wire.py`.

    owner: names this process in leases (see `ledger/owner.py`)
    clock: seconds since 1970, for the bound; `--now` sets it
    now:   seconds of a clock that does not jump, for what is waited for
    wait:  waits for an event, so many seconds at most; whether it was set
    labels: the world of the job's ground truth, which shares all but the job as it is seen and the source
    drops: where files of labels are put down; of the labels' world alone
    resting: destinations to which nothing is sent for now, as they failed just before; their deliveries are collected
    """

    job: Job
    source: Source
    staging: Staging
    records: Records
    ledger: Ledger
    destinations: Sequence[Destination]
    engine: Engine
    owner: str
    clock: Callable[[], float] = time.time
    now: Callable[[], float] = time.monotonic
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait
    identity: dict[str, str] = field(default_factory=dict)
    labels: World | None = None
    drops: Drops | None = None
    resting: frozenset[str] = frozenset()

    @property
    def silent(self) -> frozenset[str]:
        """The destinations to which nothing is sent now: those that a person paused, and those that rest."""
        return self.resting.union(self.ledger.deliveries.paused(self.job.name))


def labels_of(world: World) -> World:
    """The world of a job's labels. Raises Misconfigured where it has none."""
    if world.labels is None:
        raise Misconfigured(
            f"{world.job.name} has no ground truth",
            safe="Nothing was done.",
            hint=f"Add a section ground_truth to {world.job.path}.",
        )
    return world.labels
