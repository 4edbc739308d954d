"""The demo, killed at random moments: what follows ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tidepost.sandbox.process import SandboxProcess

KILLS = 20
DAYS_A_KILL = 1
SEED = 20130101
LONGEST = 5.0
"""Seconds; a demo of some days takes about five, starting Python included."""


def demo(folder: Path, port: int, days: int) -> list[str]:
    return [
        *(sys.executable, "-m", "tidepost.cli", "demo", "--json"),
        *("--dir", str(folder), "--port", str(port), "--days", str(days)),
    ]


def killed(command: list[str], seconds: float) -> bool:
    """Start a command and kill it, all of its processes, after a while. False where it had ended by then."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True
    return False


@pytest.mark.timeout(600)
def test_twenty_random_kills_each_followed_by_a_run_lose_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    folder = tmp_path / "project"
    with SandboxProcess(folder / ".tidepost" / "sandbox", on_repeat="keep") as sandbox:
        port = int(sandbox.url.rpartition(":")[2])
        kills = 0
        for trial in range(1, KILLS + 1):
            command = demo(folder, port, trial * DAYS_A_KILL)
            kills += killed(command, chance.uniform(0.3, LONGEST))
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"kill {trial}: {done.stdout}\n{done.stderr}"
            shown: dict[str, Any] = json.loads(done.stdout)
            total = shown["total"]
            assert total["logged"] == total["published"] == total["arrived"] > 0
            (model,) = sandbox.stats()["models"]
            assert (model["rows"], model["doubled"]) == (total["logged"], 0)
        assert kills >= KILLS * 0.6
