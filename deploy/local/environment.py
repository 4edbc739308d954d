"""Environments of their own for programs that would not fit into the one that tidepost is installed in."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"


def output_of(*command: str | Path) -> str:
    """Runs a program and returns what it printed; fails with what it complained about."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def environment(name: str) -> Path:
    """The `bin` folder of an environment that holds what `locks/{name}.txt` names; made once for each content of
    that file, however many ask at once."""
    lock_file = ROOT / "locks" / f"{name}.txt"
    folder = CACHE / f"{name}-{hashlib.sha256(lock_file.read_bytes()).hexdigest()[:16]}"
    complete = folder / "complete"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            uv, python = Path(sys.executable).parent / "uv", folder / "bin" / "python"
            output_of(uv, "venv", "--quiet", "--python", sys.executable, folder)
            exact = ("--require-hashes", "--no-deps", "-r", lock_file)
            output_of(uv, "pip", "install", "--quiet", "--python", python, *exact)
            complete.touch()
    return folder / "bin"
