"""Who holds a lease: a process, named so that others on its host can tell whether it still lives."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

_RUN: Final = secrets.token_hex(4)


class _Owner(NamedTuple):
    host: str
    boot: str
    namespace: str
    pid: str
    start: str
    run: str


def this_process() -> str:
    """`host/boot id/pid namespace/pid/start/random`: this process's name on its leases. What the system does not
    tell is empty."""
    pid = os.getpid()
    start = _status(pid)
    return "/".join(_Owner(*_place(), str(pid), start[1] if start else "", _RUN))


def this_person() -> str:
    """`user@host`, for what people ask for."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def describe(owner: str) -> str:
    """An owner in words, for messages."""
    named = _parse(owner)
    return owner if named is None else f"process {named.pid} on {named.host}"


def gone(owner: str) -> bool:
    """Whether the process that an owner names is provably gone: it ran on this host, since its last start and in
    this pid namespace, and no process with its pid and start time lives. False wherever that cannot be told."""
    named = _parse(owner)
    if named is None or not all(named) or (named.host, named.boot, named.namespace) != _place():
        return False
    try:
        os.kill(int(named.pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, and is another user's
    status = _status(int(named.pid))
    if status is None:
        return False
    state, start, threads = status
    # A process that ended and that its parent has not collected keeps its pid, but does nothing more.
    return start != named.start or (state in "ZX" and threads <= 1)


def _parse(owner: str) -> _Owner | None:
    fields = owner.split("/")
    return _Owner(*fields) if len(fields) == len(_Owner._fields) and fields[3].isdecimal() else None


@cache
def _place() -> tuple[str, str, str]:
    """Host, boot id and pid namespace, the last two empty outside Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        boot = namespace = ""
    return socket.gethostname(), boot, namespace


def _status(pid: int) -> tuple[str, str, int] | None:
    """A process's state, start time and number of threads, from proc(5); None where they cannot be read.

    The start is in ticks since boot: seconds since 1970 would shift with every correction of the clock, and a
    living process would seem another one.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything, also a bracket
    return fields[0], fields[19], int(fields[17])
