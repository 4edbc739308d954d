"""A job's world to look at: no destination, so that no key is needed, and a ledger that is not written to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidepost.cli.session import existing_ledger

if TYPE_CHECKING:
    from tidepost.job import Job
    from tidepost.ledger.sql import SqlLedger
    from tidepost.model import Stream
    from tidepost.ports import Deliveries, Leases, Plans, Reports, Slices
    from tidepost.project import Project
    from tidepost.ranges import Range
    from tidepost.run import World


@contextmanager
def looking_at(project: Project, job: Job, clock: Callable[[], float]) -> Iterator[World]:
    """The world of a job that is only looked at; where there is no ledger yet, one that is thrown away.
    Raises Misconfigured for a reference without its variable."""
    from tidepost.engine import Engine  # noqa: PLC0415 - these bring the whole engine along
    from tidepost.ledger import open_ledger  # noqa: PLC0415
    from tidepost.run import World  # noqa: PLC0415
    from tidepost.wire import source_of, staging_of  # noqa: PLC0415

    resolved, staging = job.resolved(), staging_of(project)
    with tempfile.TemporaryDirectory(prefix="tidepost-") as scratch, existing_ledger(project) as existing:
        engine = Engine(job.limits.memory, job.limits.threads, Path(scratch) / "spill")
        ledger = existing or open_ledger(f"sqlite:///{scratch}/ledger.db")
        try:
            yield World(
                job=resolved,
                source=source_of(resolved, engine),
                staging=staging,
                records=staging,
                ledger=Onlooker(ledger),
                destinations=(),
                engine=engine,
                owner="",
                clock=clock,
            )
        finally:
            ledger.close()


@dataclass(frozen=True, slots=True)
class Onlooker:
    """A ledger whose log of seen ids stays as it is: planning is all that is done with it, and that only reads."""

    ledger: SqlLedger

    @property
    def id(self) -> str:
        return self.ledger.id

    @property
    def plans(self) -> Plans:
        return self.ledger.plans

    @property
    def leases(self) -> Leases:
        return self.ledger.leases

    @property
    def slices(self) -> Slices:
        return self.ledger.slices

    @property
    def deliveries(self) -> Deliveries:
        return self.ledger.deliveries

    @property
    def reports(self) -> Reports:
        return _Unlogged(self.ledger.reports)


@dataclass(frozen=True, slots=True)
class _Unlogged:
    reports: Reports

    def expected(self, stream: Stream, destination: str, hours: Range) -> Mapping[int, int]:
        return self.reports.expected(stream, destination, hours)

    def in_flight(self, stream: Stream, destination: str, hours: Range) -> frozenset[int]:
        return self.reports.in_flight(stream, destination, hours)

    def seen(self, stream: Stream, at: float, highest: int) -> None:
        """A run logs what it sees; a look does not."""

    def ran(self, stream: Stream) -> None:
        """Nothing ran."""

    def highest_seen(self, stream: Stream, before: float) -> int | None:
        return self.reports.highest_seen(stream, before)
