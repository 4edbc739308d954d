"""The real command, as a process of its own, in a small world or in an empty folder."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.world import NOW, World

from tidepost.cli import main

COMMAND = (sys.executable, "-W", "error", "-m", "tidepost.cli")
NOW_TEXT = NOW.isoformat()


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Calls the command in a folder, with nothing of tidepost's in the environment but `env`."""

    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, code: int | None = 0, **env: str) -> Ended:
        """Run it to its end; `code` is what it must end with, None for anything."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self._env(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        ended = Ended(done.returncode, done.stdout, done.stderr)
        assert code is None or ended.code == code, ended
        return ended

    def here(self, *arguments: str, code: int = 0, **env: str) -> Ended:
        """Run it inside this process, which is quicker: for what does not depend on its being a process."""
        out, err = io.StringIO(), io.StringIO()
        with _environment(self._env(env)), _logging(), contextlib.chdir(self.folder):  # noqa: SIM117
            with redirect_stdout(out), redirect_stderr(err):
                ended_with = main(arguments)
        ended = Ended(ended_with, out.getvalue(), err.getvalue())
        assert ended.code == code, ended
        return ended

    @contextmanager
    def started(self, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """Start it; it is killed if the block ends before it does."""
        with subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self._env(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _env(self, more: Mapping[str, str]) -> dict[str, str]:
        names = ("SANDBOX_URL", "ARTHUR_API_KEY", "NO_COLOR", "FORCE_COLOR")
        plain = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TIDEPOST_", "PYTEST_")) and name not in names
        }
        return {**plain, **self.env, **more}


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _logging() -> Iterator[None]:
    """Put back what the command sets up of logging, which a process of its own would take with it."""
    ours = logging.getLogger("tidepost")
    before = (list(ours.handlers), ours.level, ours.propagate, logging.raiseExceptions)
    try:
        yield
    finally:
        ours.handlers[:], ours.propagate, logging.raiseExceptions = before[0], before[2], before[3]
        ours.setLevel(before[1])


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """The command in an empty folder, which belongs to no project."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return Shell(folder)


@pytest.fixture
def tidepost(world: World) -> Shell:
    """The command in the world's project, with the environment that its job needs."""
    return Shell(world.root, world.env)


@pytest.fixture
def upload(tidepost: Shell) -> Callable[..., Ended]:
    """`tidepost run flights` at the world's time, inside this process."""

    def upload(*options: str, code: int = 0, **env: str) -> Ended:
        return tidepost.here("run", "flights", "--now", NOW_TEXT, *options, code=code, **env)

    return upload
