"""Contenders, run in turn, each in a process of its own: seconds, CPU seconds, and the peak of its memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic

WRAPPER = Path(__file__).parent / "contenders" / "measured.py"


def nothing() -> None:
    """There is nothing to prepare."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do what a case is about.

    python: the interpreter of its environment
    script: a file below `contenders/`
    before: makes everything as it was before; not measured
    """

    name: str
    python: Path
    script: str
    arguments: Sequence[object]
    before: Callable[[], None] = nothing
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """Contenders for one piece of work.

    base: the contender that the others are compared with
    """

    title: str
    contenders: tuple[Contender, ...]
    base: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. `cpu` is user and system time of the process and of those that it waited for; `memory` is the peak of
    the process itself in bytes."""

    wall: float
    cpu: float
    memory: int


@dataclass(frozen=True, slots=True)
class Result:
    """A contender's runs."""

    name: str
    samples: tuple[Sample, ...]

    @property
    def wall(self) -> float:
        return median(one.wall for one in self.samples)

    @property
    def cpu(self) -> float:
        return median(one.cpu for one in self.samples)

    @property
    def memory(self) -> float:
        return median(one.memory for one in self.samples)

    @property
    def spread(self) -> tuple[float, float]:
        """The shortest and the longest run, in seconds."""
        walls = [one.wall for one in self.samples]
        return min(walls), max(walls)


def measured(case: Case, repetitions: int, scratch: Path) -> dict[str, Result]:
    """Run every contender `repetitions` times, in turn: A B C A B C …"""
    samples: dict[str, list[Sample]] = {one.name: [] for one in case.contenders}
    for _ in range(repetitions):
        for one in case.contenders:
            samples[one.name].append(sample(one, scratch))
    return {name: Result(name, tuple(found)) for name, found in samples.items()}


def sample(contender: Contender, scratch: Path) -> Sample:
    """One run. What was written before lies on the disk when it begins, so that nobody pays for another's."""
    contender.before()
    os.sync()
    peak, log = scratch / "sample.peak", scratch / "sample.log"
    script = WRAPPER.with_name(contender.script)
    arguments = [str(one) for one in (contender.python, WRAPPER, peak, script, *contender.arguments)]
    wall, cpu = ran(arguments, contender.env, log)
    return Sample(wall, cpu, int(peak.read_text()))


def ran(arguments: Sequence[str], env: Mapping[str, str], log: Path) -> tuple[float, float]:
    """Run a process, whose output goes to a file; its seconds and CPU seconds. RuntimeError: it failed."""
    with log.open("wb") as output:
        began = monotonic()
        process = subprocess.Popen(arguments, stdout=output, stderr=output, env={**os.environ, **env})
        _, status, usage = os.wait4(process.pid, 0)
        wall = monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{log.read_text(errors='replace')[-4000:]}")
    return wall, usage.ru_utime + usage.ru_stime
