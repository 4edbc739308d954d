"""A job's world to look at: no destination, so that no key is needed. Planning only reads the ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tidepost.cli.session import existing_ledger

if TYPE_CHECKING:
    from tidepost.definition.job import Job
    from tidepost.definition.project import Project
    from tidepost.world import World


@contextmanager
def looking_at(project: Project, job: Job, clock: Callable[[], float]) -> Iterator[World]:
    """The world of a job that is only looked at; where there is no ledger yet, one that is thrown away.
    Raises Misconfigured for a reference without its variable."""
    from tidepost.engine import Engine  # noqa: PLC0415 - these bring the whole engine along
    from tidepost.ledger import open_ledger  # noqa: PLC0415
    from tidepost.sourcing import source_of  # noqa: PLC0415
    from tidepost.wire import labels_of, staging_of  # noqa: PLC0415
    from tidepost.world import World  # noqa: PLC0415

    resolved, staging = job.resolved(), staging_of(project)
    with tempfile.TemporaryDirectory(prefix="tidepost-") as scratch, existing_ledger(project) as existing:
        engine = Engine(job.limits.memory, job.limits.threads, Path(scratch) / "spill")
        ledger = existing or open_ledger(f"sqlite:///{scratch}/ledger.db")
        try:
            world = World(
                job=resolved,
                source=source_of(resolved, engine),
                staging=staging,
                records=staging,
                ledger=ledger,
                destinations=(),
                engine=engine,
                owner="",
                clock=clock,
            )
            yield replace(world, labels=labels_of(world))
        finally:
            ledger.close()
