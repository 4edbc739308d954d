"""A program that ends with this process at the latest, however this process ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploy.local import guard

_KILLED_SECONDS: Final = 20.0
_SHOWN: Final = 3000


class Program:
    """A command in a session of its own, with a guard (`deploy.local.guard`); what it says is appended to `log`.

    env:      all that it finds in its environment
    patience: seconds that it has to end in order before it is killed
    user:     who it runs as, if not as this process
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str],
        cwd: Path,
        patience: float = 10.0,
        user: str | None = None,
    ) -> None:
        self._command = [str(part) for part in command]
        self._env, self._cwd, self._patience, self._user = dict(env), cwd, patience, user or ""
        self._guard: subprocess.Popen[bytes] | None = None
        self._from = 0
        self.log = log

    def start(self) -> Self:
        """Start it; it may still be busy with beginning."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as said:
            self._from = said.tell()
            self._guard = subprocess.Popen(
                [sys.executable, guard.__file__, str(self._patience), self._user, *self._command],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                cwd=self._cwd,
                env=self._env,
                start_new_session=True,
            )
        return self

    @property
    def session(self) -> int:
        """The id of the session of all its processes."""
        assert self._guard is not None
        return self._guard.pid

    @property
    def running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    def said(self) -> str:
        """The end of what it said since it was started."""
        return self.log.read_bytes()[self._from :][-_SHOWN:].decode(errors="replace") if self.log.exists() else ""

    def stop(self) -> None:
        """End it in order; returns when none of its processes is left."""
        if self._guard is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self._guard.wait(self._patience + _KILLED_SECONDS)
            self._guard = None

    def kill(self) -> None:
        """End it as a crash of its host would: SIGKILL to all of its processes."""
        if self._guard is not None:
            guard.kill(self.session)
            self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
