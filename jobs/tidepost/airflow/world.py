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
    from tidepost.definition.job import Job
    from tidepost.definition.project import Project
    from tidepost.ledger.sql import SqlLedger
    from tidepost.model import Stream
    from tidepost.world import World

_DEFINITIONS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Opened:
    """The world of one stream of a job, and what it was made of."""

    project: Project
    job: Job
    ledger: SqlLedger
    world: World
    env: Mapping[str, str] = field(repr=False)

    @property
    def stream(self) -> Stream | None:
        """The world's stream as the ledger knows it; None where it never ran."""
        return self.ledger.plans.find(self.job.name, self.world.job.stream)

    @property
    def title(self) -> str:
        """What the world's stream is called: the job's name, and for labels what they are."""
        return titled(self.job.name, self.world.job.stream)


def titled(job: str, stream: str) -> str:
    """What a stream of a job is called to people."""
    return job if stream == "inferences" else f"{job}, {stream.replace('_', ' ')}"


def job_of(project: Project, job: str) -> Job:
    """A job by its name, or by its file's path below the project's root. Raises Misconfigured."""
    from tidepost.definition.job import define_job  # noqa: PLC0415
    from tidepost.definition.yamlfile import read_yaml  # noqa: PLC0415

    if not job.endswith(_DEFINITIONS):
        return project.job(job)
    path = project.root / job
    if not path.is_file():
        raise Misconfigured(f"no definition {job} in {project.root}")
    return define_job(path, read_yaml(path, job), project)


@contextmanager
def opened(
    project: str | None,
    job: str,
    *,
    dag_file: str | None = None,
    looking: bool = False,
    stream: str = "inferences",
) -> Iterator[Opened]:
    """The world of a stream of a job; its connections are closed at the end. Raises Misconfigured as `wire` does, and
    where the job has no labels whose stream is asked for.

    project: its root; None: that of `TIDEPOST_PROJECT`, or the nearest above the DAG's file
    job:     its name, or its file's path below the project's root
    looking: nothing is to be written: where there is no ledger yet, one that is thrown away takes its place
    """
    from tidepost.airflow.connections import environment  # noqa: PLC0415
    from tidepost.airflow.place import the_project  # noqa: PLC0415
    from tidepost.ledger import open_ledger  # noqa: PLC0415
    from tidepost.wire import existing_ledger_of, ledger_of, wire  # noqa: PLC0415
    from tidepost.world import labels_of  # noqa: PLC0415

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
        if stream == "ground_truth":
            world = labels_of(world)
        with world.job.placed():
            yield Opened(found, definition, ledger, world, env)
