"""Runs, and parts of them, in processes of their own. What became of one is told when it has ended."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from tests.forkserver import forkserver

from tidepost.definition.project import load_project
from tidepost.errors import TidepostError
from tidepost.model import Request, ScanKind
from tidepost.ranges import Range
from tidepost.run import run
from tidepost.steps import upload
from tidepost.wire import ledger_of, wire

SECONDS: Final = 120.0
Told = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Child:
    """A process that works."""

    process: BaseProcess
    _answer: Connection

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.process.kill()
        self.process.join(SECONDS)

    def told(self) -> Told:
        """What became of it, once it has ended."""
        assert self._answer.poll(SECONDS), "it has not ended"
        found: Told = self._answer.recv()
        self.process.join(SECONDS)
        return found


@contextmanager
def child(
    work: Callable[..., Told], *arguments: object, env: Mapping[str, str], anew: bool = False
) -> Iterator[Child]:
    """Work in a process of its own; killed if the block ends before it does.

    work: a function of a module
    env:  what its environment has beyond this process's
    anew: by a new interpreter, which takes longer, not forked from one that has imported everything
    """
    context = multiprocessing.get_context("spawn") if anew else forkserver()
    answer, end = context.Pipe(duplex=False)
    process = context.Process(target=_begun, args=(end, {**os.environ, **env}, work, *arguments))
    process.start()
    end.close()
    one = Child(process, answer)
    try:
        yield one
    finally:
        one.kill()
        answer.close()


def _begun(end: Connection, env: Mapping[str, str], work: Callable[..., Told], *arguments: object) -> None:
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    end.send(work(*arguments))


def run_once(root: Path, now: float, key: str, window: Range | None) -> Told:
    """A run, or a backfill of a window: cuts, slices, published, errors as [name, text], peak (bytes of memory)."""
    request = Request(key, ScanKind.INCREMENTAL if window is None else ScanKind.BACKFILL, window)
    project = load_project(root)
    ledger = ledger_of(project)
    world = wire(project, project.job("flights"), ledger, clock=lambda: now)
    try:
        outcome = run(world, request, notice=lambda _: None, stop=threading.Event())
        told: Told = {
            "cuts": outcome.cuts,
            "slices": outcome.slices,
            "published": outcome.tally.published,
            "errors": [[type(error).__name__, str(error)] for error in outcome.errors],
        }
    except TidepostError as error:
        told = {"cuts": 0, "slices": 0, "published": 0, "errors": [[type(error).__name__, str(error)]]}
    # Not getrusage: its peak is that of the process before exec too, so the tests' own would be measured.
    told["peak"] = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return told


def upload_cuts(root: Path, now: float, cuts: Sequence[int]) -> Told:
    """Cuts that were planned: done, errors as [name, text]."""
    project = load_project(root)
    ledger = ledger_of(project)
    done, errors = [], []
    for cut in cuts:
        world = wire(project, project.job("flights"), ledger, clock=lambda: now)
        try:
            done.append(asdict(upload(world, cut, notice=lambda _: None, stop=threading.Event())))
        except TidepostError as error:
            errors.append([type(error).__name__, str(error)])
    return {"done": done, "errors": errors}
