"""How a task comes to its world: from the project's root and the job's name, each time anew."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from tidepost.job import Job
    from tidepost.ledger.sql import SqlLedger
    from tidepost.model import Stream
    from tidepost.project import Project
    from tidepost.world import World

_DEFINITIONS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Opened:
    """A job's world, and what it was made of."""

    project: Project
    job: Job
    ledger: SqlLedger
    world: World

    @property
    def stream(self) -> Stream | None:
        """The stream as the ledger knows it; None where the job never ran."""
        from tidepost.model import StreamName  # noqa: PLC0415 - the engine is imported while tasks run

        return self.ledger.plans.find(self.job.name, StreamName.INFERENCES)


def project_of(project: str | None, dag_file: str | None = None) -> Project:
    """The project of a root that was given; else that of `TIDEPOST_PROJECT`, else the nearest one above the DAG's
    file. Raises Misconfigured."""
    from tidepost.project import find_project, load_project  # noqa: PLC0415

    if project is not None:
        return load_project(Path(project).resolve())
    return find_project(Path(dag_file) if dag_file else None)


def job_of(project: Project, job: str) -> Job:
    """A job by its name, or by its file's path below the project's root. Raises Misconfigured."""
    from tidepost.job import define_job  # noqa: PLC0415
    from tidepost.yamlfile import read_yaml  # noqa: PLC0415

    if not job.endswith(_DEFINITIONS):
        return project.job(job)
    path = project.root / job
    if not path.is_file():
        raise Misconfigured(f"no definition {job} in {project.root}")
    return define_job(path, read_yaml(path, job), project)


@contextmanager
def opened(project: str | None, job: str, *, dag_file: str | None = None, looking: bool = False) -> Iterator[Opened]:
    """A job's world; its connections are closed at the end. Raises Misconfigured as `wire` does.

    looking: nothing is to be written: where there is no ledger yet, one that is thrown away takes its place
    """
    from tidepost.ledger import open_ledger  # noqa: PLC0415
    from tidepost.wire import existing_ledger_of, ledger_of, wire  # noqa: PLC0415

    found = project_of(project, dag_file)
    definition = job_of(found, job)
    with ExitStack() as stack:
        if looking:
            ledger = existing_ledger_of(found)
            if ledger is None:
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="tidepost-"))
                ledger = open_ledger(f"sqlite:///{scratch}/ledger.db")
        else:
            ledger = ledger_of(found)
        stack.enter_context(ledger)
        world = wire(found, definition, ledger, clock=time.time)
        for destination in world.destinations:
            close = getattr(destination, "close", None)
            if close is not None:
                stack.callback(close)
        yield Opened(found, definition, ledger, world)
