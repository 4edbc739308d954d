"""How a task comes to its world: from the project's root and the job's name, each time anew."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
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
    env: Mapping[str, str] = field(repr=False)

    @property
    def stream(self) -> Stream | None:
        """The stream as the ledger knows it; None where the job never ran."""
        from tidepost.model import StreamName  # noqa: PLC0415 - the engine is imported while tasks run

        return self.ledger.plans.find(self.job.name, StreamName.INFERENCES)


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

    project: its root; None: that of `TIDEPOST_PROJECT`, or the nearest above the DAG's file
    job:     its name, or its file's path below the project's root
    looking: nothing is to be written: where there is no ledger yet, one that is thrown away takes its place
    """
    from tidepost.airflow.connections import environment  # noqa: PLC0415
    from tidepost.airflow.place import the_project  # noqa: PLC0415
    from tidepost.ledger import open_ledger  # noqa: PLC0415
    from tidepost.wire import existing_ledger_of, ledger_of, wire  # noqa: PLC0415

    found = the_project(project, Path(dag_file).parent if dag_file else None)
    definition = job_of(found, job)
    env = environment(found, definition)
    with ExitStack() as stack:
        if looking:
            ledger = existing_ledger_of(found, env)
            if ledger is None:
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="tidepost-"))
                ledger = open_ledger(f"sqlite:///{scratch}/ledger.db")
        else:
            ledger = ledger_of(found, env)
        stack.enter_context(ledger)
        world = wire(found, definition, ledger, env=env, clock=time.time)
        for destination in world.destinations:
            close = getattr(destination, "close", None)
            if close is not None:
                stack.callback(close)
        yield Opened(found, definition, ledger, world, env)
