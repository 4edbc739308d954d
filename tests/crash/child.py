"""One run of a world's job in a process of its own, to be killed at a fuse."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

from tests.crash.fuse import Fuse, Point, arm
from tests.postgres import kill_all

from tidepost.definition.project import load_project
from tidepost.model import Request, ScanKind
from tidepost.run import run
from tidepost.wire import ledger_of, wire


@dataclass(frozen=True, slots=True)
class Job:
    """What a child runs.

    key:    names the request
    at:     the point at which it dies, or None
    server: the process of a server that dies there too, or None
    lives:  it does not die there itself, only the server
    """

    root: Path
    env: dict[str, str]
    now: float
    key: str
    at: Point | None = None
    server: int | None = None
    lives: bool = False

    def blow(self) -> None:
        if self.server is not None:
            kill_all(self.server)
        if not self.lives:
            os.kill(os.getpid(), signal.SIGKILL)


def work(job: Job, told: Queue[list[str]]) -> None:
    """Run the job once and tell what points it passed, if it lives. Exits with 1 where the run had an error."""
    fuse = Fuse(job.at, job.blow)
    os.environ.update(job.env)
    arm(fuse)
    project = load_project(job.root)
    ledger = ledger_of(project)
    world = wire(project, project.job("flights"), ledger, clock=lambda: job.now)
    request, stop = Request(job.key, ScanKind.INCREMENTAL), threading.Event()
    both = filter(None, (world, world.labels))
    outcomes = [run(one, request, notice=lambda event: None, stop=stop) for one in both]
    ledger.close()
    told.put(fuse.passed)
    told.close()
    told.join_thread()
    for outcome in outcomes:
        worst = outcome.worst()
        if worst is not None:
            raise worst
