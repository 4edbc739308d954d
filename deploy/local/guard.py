"""Runs one program in a session of its own, and ends everything in that session when its standard input ends.

    python guard.py PATIENCE USER COMMAND…

USER may be empty: whoever started it.

Whoever starts a guard holds the other end of that input, which closes with its process, however that ends: so what
runs here outlives it by PATIENCE seconds at most. What belongs to a program is told by the session: Airflow gives
each task a process group of its own, so a group would leave tasks behind.
"""

from __future__ import annotations

import os
import pwd
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, Final

import psutil

_LOOK_SECONDS: Final = 0.2
_KILLED_SECONDS: Final = 5.0


def belongs(pid: int, session: int) -> bool:
    """Whether a process is one of a session's; not once it has ended."""
    try:
        return os.getsid(pid) == session
    except ProcessLookupError:
        return False


def members(session: int) -> list[psutil.Process]:
    """The processes of a session that still live, its leader left out."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            ours = process.pid != session and belongs(process.pid, session)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(session: int) -> None:
    """SIGKILL to a whole session but its leader; all are stopped first, so that none cleans up behind another."""
    while left := members(session):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=_KILLED_SECONDS)


def end(session: int, patience: float) -> None:
    """SIGTERM to a session but its leader, and SIGKILL to those that live `patience` seconds later."""
    for process in members(session):
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    until = time.monotonic() + patience
    while members(session) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    kill(session)


def main() -> int:
    patience, user, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    somebody: dict[str, Any] = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
    program: subprocess.Popen[bytes] = subprocess.Popen(command, stdin=subprocess.DEVNULL, **somebody)
    try:
        while program.poll() is None:
            ready, _, _ = select.select([sys.stdin], [], [], _LOOK_SECONDS)
            if ready and not os.read(sys.stdin.fileno(), 1):
                break
    finally:
        end(os.getpid(), patience)
    return program.wait()


if __name__ == "__main__":
    sys.exit(main())
