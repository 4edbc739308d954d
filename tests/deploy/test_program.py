"""Programs that are started for people and tests leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy.local import guard
from deploy.local.program import Program
from deploy.local.rest import until

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setpgid(0, 0)  # as Airflow's tasks do
open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
time.sleep(600)
"""
"""Two processes in two groups, neither of which ends when it is asked to."""

STARTER = """
import sys, time
from pathlib import Path
from deploy.local.program import Program
from tests.deploy.test_program import stubborn
stubborn(Path(sys.argv[1])).start()
time.sleep(600)
"""


def stubborn(folder: Path) -> Program:
    command = [sys.executable, "-c", STUBBORN, str(folder)]
    return Program(command, log=folder.parent / "log", env=os.environ, cwd=folder, patience=0.2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "alive").mkdir()
    return tmp_path / "alive"


def both(folder: Path) -> list[int]:
    """The ids of both processes, once they run."""
    until(lambda: len(list(folder.iterdir())) == 2, "two processes", seconds=20, every=0.05)
    return [int(path.name) for path in folder.iterdir()]


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("how", [Program.stop, Program.kill], ids=["stopped", "killed"])
def test_a_program_that_is_ended_leaves_nothing_behind(folder: Path, how: Callable[[Program], None]) -> None:
    with stubborn(folder) as program:
        pids = both(folder)
        assert {member.pid for member in guard.members(program.session)} == set(pids)
        how(program)
        assert gone(pids)


def test_a_program_ends_with_whoever_started_it_however_that_ends(folder: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(folder)])
    try:
        pids = both(folder)
    finally:
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    until(lambda: gone(pids), "the end of both", seconds=20, every=0.05)
