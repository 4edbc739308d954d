"""A run that is killed, or whose disk fails, at a system call: of Python, DuckDB, Arrow and SQLite alike.

A run is recorded once; from its calls on files of the project and on sockets a few are chosen, evenly, and each is
the last call of another run, or the one that fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from tests.crash.orders import Site
from tests.crash.whole import only_whole_files_are_visible
from tests.world import World, after, rows

pytestmark = pytest.mark.debian

CUT = 12
CALLS = "rename,renameat,renameat2,link,linkat,unlink,unlinkat,fsync,fdatasync,openat,mkdir,write,pwrite64,sendto"
KILLED_AT = {
    "rename,renameat,renameat2": 2,
    "unlink,unlinkat": 1,
    "fsync": 2,
    "fdatasync": 1,
    "openat": 2,
    "mkdir": 1,
    "write": 2,
    "pwrite64": 3,
    "sendto": 3,
}
"""How many samples of each kind of call."""
FAILING = [
    ("fsync", "EIO", 2),
    ("fdatasync", "EIO", 1),
    ("pwrite64", "ENOSPC", 2),
    ("rename,renameat,renameat2", "EIO", 1),
]
FULL = 2
"""Samples of writes to staged files that find the disk full."""
AT_ONCE = 2
LINE = re.compile(r"^(\d+) +(\w+)\((.*)")
FILE = re.compile(r"^\d+<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call: its name, its number among those of its name in its thread, and its arguments.

    path: where its number counts only those on this file
    """

    name: str
    number: int
    arguments: str
    path: str = ""

    def at(self, what: str, world: World, recorded: World) -> tuple[str, ...]:
        """strace's options that let something happen there."""
        path = ("-P", self.path.replace(str(recorded.root), str(world.root))) if self.path else ()
        return *path, "-e", f"trace={self.name}", "-e", f"inject={self.name}:{what}:when={self.number}"


def command(world: World) -> list[str]:
    now = world.now.isoformat()
    return [sys.executable, "-m", "tidepost.cli", "run", "flights", "--project", str(world.root), "--now", now]


def traced(world: World, *options: str) -> subprocess.CompletedProcess[str]:
    """A run under strace."""
    return subprocess.run(
        ["strace", "-f", "-qq", *options, *command(world)],
        env={**os.environ, **world.env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def prepared(site: Site) -> World:
    site.world.define(limits={"cut_rows": CUT})
    for cut in range(2):
        site.world.log(f"hour-{cut}", rows(CUT, first=cut * CUT, at=after(hours=cut)))
    return site.world


def recorded(world: World, path: Path) -> list[tuple[str, str, str]]:
    """A run's calls as (thread, name, arguments), descriptors with their files."""
    done = traced(world, "-y", "-s", "0", "-e", f"trace={CALLS}", "-o", str(path))
    assert done.returncode == 0, done.stderr
    found = (LINE.match(line) for line in path.read_text(errors="replace").splitlines())
    return [(line[1], line[2], line[3]) for line in found if line is not None]


def on_the_project(calls: list[tuple[str, str, str]], names: str, root: Path) -> list[Call]:
    """The calls of a set on the project's files or on sockets. strace counts each by thread."""
    numbers: dict[tuple[str, str], count[int]] = {}
    found = []
    for thread, name, arguments in calls:
        if name not in names.split(","):
            continue
        number = next(numbers.setdefault((thread, name), count(1)))
        if str(root) in arguments or (name == "sendto" and "socket:" in arguments):
            found.append(Call(name, number, arguments))
    return found


def on_staged_files(calls: list[tuple[str, str, str]], name: str) -> list[Call]:
    """The calls of a name on files that are being staged, by file: the same call elsewhere is another matter."""
    numbers: dict[tuple[str, str], count[int]] = {}
    found = []
    for thread, called, arguments in calls:
        file = FILE.match(arguments)
        if called == name and file is not None and "/scratch/" in file[1]:
            number = next(numbers.setdefault((thread, file[1]), count(1)))
            found.append(Call(name, number, arguments, file[1]))
    return found


def sampled(calls: list[Call], number: int) -> list[Call]:
    """Some calls, evenly over the run, the first and the last among them."""
    last = max(len(calls) - 1, 1)
    places = {round(last * place / max(number - 1, 1)) for place in range(number)}
    return [calls[place] for place in sorted(places) if place < len(calls)]


@dataclass(frozen=True, slots=True)
class Recording:
    """A run that went well, call by call."""

    world: World
    calls: list[tuple[str, str, str]]

    def of(self, names: str) -> list[Call]:
        return on_the_project(self.calls, names, self.world.root)


@pytest.fixture
def recording(make_site: Callable[[str], Site], tmp_path: Path) -> Recording:
    world = prepared(make_site("recorded"))
    return Recording(world, recorded(world, tmp_path / "calls"))


def finished_by_the_next_run(world: World) -> None:
    only_whole_files_are_visible(world)
    world.log("later", rows(CUT, first=2 * CUT, at=after(hours=2)))
    done = subprocess.run(
        command(world), env={**os.environ, **world.env}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    only_whole_files_are_visible(world)
    assert world.everything_arrived_once(3 * CUT)
    assert not list(world.staging.root.rglob("scratch/*"))


@pytest.mark.timeout(400)
def test_a_run_killed_at_any_kind_of_system_call_is_finished_by_the_next(
    recording: Recording, make_site: Callable[[str], Site]
) -> None:
    chosen = [call for names, number in KILLED_AT.items() for call in sampled(recording.of(names), number)]
    assert {"fsync", "fdatasync", "openat", "write", "pwrite64", "sendto"} <= {call.name for call in chosen}

    def survives(number: int, world: World) -> bool:
        call = chosen[number]
        done = traced(world, "-o", "/dev/null", *call.at("signal=SIGKILL", world, recording.world))
        assert done.returncode in (0, -9, 137), done.stderr
        finished_by_the_next_run(world)
        return done.returncode != 0

    worlds = [prepared(make_site(f"killed-{number}")) for number in range(len(chosen))]
    killed = tried(survives, worlds, chosen)
    assert killed >= len(chosen) * 0.5


@pytest.mark.timeout(400)
def test_a_disk_that_fails_at_any_kind_of_system_call_is_told_of_and_the_next_run_uploads_everything(
    recording: Recording, make_site: Callable[[str], Site]
) -> None:
    chosen = [(call, error) for names, error, number in FAILING for call in sampled(recording.of(names), number)]
    chosen += [(call, "ENOSPC") for call in sampled(on_staged_files(recording.calls, "write"), FULL)]

    def survives(number: int, world: World) -> bool:
        call, error = chosen[number]
        done = traced(world, "-o", "/dev/null", *call.at(f"error={error}", world, recording.world))
        assert done.returncode in (0, 4, 5), f"{done.returncode}: {done.stdout} {done.stderr}"
        assert "Traceback" not in done.stderr
        finished_by_the_next_run(world)
        return done.returncode != 0

    worlds = [prepared(make_site(f"failing-{number}")) for number in range(len(chosen))]
    failed = tried(survives, worlds, [call for call, _ in chosen])
    assert failed >= 2


def tried(survives: Callable[[int, World], bool], worlds: list[World], chosen: list[Call]) -> int:
    """Try every sample, some at once; returns how many were reached. Names all that were not survived."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(survives, number, world) for number, world in enumerate(worlds)]
    lost = {number: error for number, one in enumerate(futures) if (error := one.exception()) is not None}
    assert not lost, "\n".join(f"{chosen[number]}: {error!r}"[:900] for number, error in lost.items())
    return Counter(one.result() for one in futures)[True]
