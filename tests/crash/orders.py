"""The command line in a process of its own, with something done to it: stopped or killed at a named point of its
work, on another machine, on a disk that fails, with short leases, or with a mutation of the product.

Children are forked from a server that has imported everything and done nothing, so that one costs little. What is
done to one is done inside it, by wrapping what the product calls; the product knows nothing of it.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection
from tests.crash.fuse import Fuse, arm
from tests.crash.mutants import MUTANTS
from tests.showing import Showing
from tests.world import World, eventually

from tidepost import wire
from tidepost.cli import main, upload
from tidepost.destinations.connection import ListeningConnection
from tidepost.leases import Keeper
from tidepost.ledger import owner
from tidepost.ledger.deliveries import SqlDeliveries
from tidepost.ledger.engine import Database
from tidepost.ledger.slices import SqlSlices
from tidepost.model import Proof, Request, ScanKind
from tidepost.ports import Upload
from tidepost.staging.local import LocalStaging

SECONDS = 60.0
STEPS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (LocalStaging, ("scratch", "prepare", "reveal", "put")),
    (SqlSlices, ("begin", "finish", "empty")),
    (SqlDeliveries, ("intend", "answer", "settle")),
)
"""Steps of the product that have a point before and one after them, beside those of `fuse.py`."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a child does, and what is done to it.

    arguments: of the command line
    env:       added to the environment
    out, err:  the files that its standard output and error are added to
    key:       of its request; None is a new one
    stop, die: (point, number): stops, or kills, itself when it passes that point for that time
    host:      another machine's name, so that nobody can tell whether the process lives; None is this one
    lease:     seconds
    mutant:    a mutation of the product, by its name
    fsync:     the number of the fsync that fails with EIO, in Python
    file_size: bytes, beyond which no file can be written
    shows:     what the destination can show, if that is less than rows
    """

    arguments: tuple[str, ...]
    env: Mapping[str, str]
    out: Path
    err: Path
    key: str | None = None
    stop: tuple[str, int] | None = None
    die: tuple[str, int] | None = None
    host: str | None = None
    lease: float | None = None
    mutant: str | None = None
    fsync: int | None = None
    file_size: int | None = None
    shows: Proof | None = None


class Snare(Fuse):
    """Stops or kills the process when it passes a named point for the given time."""

    def __init__(self, snares: Mapping[tuple[str, int], signal.Signals]) -> None:
        super().__init__(None)
        self._snares = snares
        self._times: dict[str, int] = {}

        self.transaction = threading.RLock()

    def point(self, name: str) -> None:
        with self._lock:
            self._times[name] = self._times.get(name, 0) + 1
            caught = self._snares.get((name, self._times[name]))
        if caught is not None:
            # Not while another thread has the database locked, which would lock everybody out. To this thread, which
            # then does not take another step before the process stands still.
            with self.transaction:
                signal.pthread_kill(threading.get_ident(), caught)


def act(orders: Orders) -> None:
    """Carry the orders out. Never returns."""
    os.environ.update(orders.env)
    for path, descriptor in ((orders.out, 1), (orders.err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    _prepare(orders)
    sys.exit(main(orders.arguments))


def _prepare(orders: Orders) -> None:
    if orders.key is not None:
        request = Request(orders.key, ScanKind.INCREMENTAL)
        upload.incremental = lambda _: request
    if orders.lease is not None:
        defaults: dict[str, Any] = Keeper.__init__.__kwdefaults__  # type: ignore[assignment]
        defaults["seconds"] = orders.lease
    if orders.host is not None:
        elsewhere = (orders.host, f"boot of {orders.host}", "pid:[1]")
        owner._place = lambda: elsewhere  # type: ignore[assignment]
    if orders.shows is not None:
        _show_no_more_than(orders.shows)
    if orders.mutant is not None:
        MUTANTS[orders.mutant]()
    if orders.fsync is not None:
        _fail_fsync(orders.fsync)
    if orders.file_size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (orders.file_size, orders.file_size))
    snares = {orders.stop: signal.SIGSTOP, orders.die: signal.SIGKILL}
    named = {point: how for point, how in snares.items() if point is not None}
    if named:
        _set(Snare(named))


def _set(snare: Snare) -> None:
    arm(snare)
    for owner_of, names in STEPS:
        for name in names:
            setattr(owner_of, name, snare.before(name, getattr(owner_of, name), after=True))
    plain_upload = Upload.__init__

    def made(self: Upload, *arguments: Any, **named: Any) -> None:
        plain_upload(self, *arguments, **{**named, "guard": snare.before("guard", named["guard"])})

    Upload.__init__ = made  # type: ignore[method-assign]
    plain_transaction = Database._transaction

    @contextmanager
    def transaction(self: Database, *, writes: bool) -> Iterator[Connection]:
        with snare.transaction, plain_transaction(self, writes=writes) as connection:
            yield connection

    Database._transaction = transaction  # type: ignore[method-assign]
    plain_request = ListeningConnection.request

    def request(self: ListeningConnection, method: str, url: str, body: Any = None, *rest: Any, **more: Any) -> None:
        plain_request(self, method, url, body, *rest, **more)
        if url.endswith(("/inferences/file", "/pandas_arrow")) and body is not None:
            snare.point("file left")

    ListeningConnection.request = request  # type: ignore[method-assign]


def _show_no_more_than(proof: Proof) -> None:
    plain = wire.destinations_of

    def less(*arguments: Any, **named: Any) -> tuple[Showing, ...]:
        return tuple(Showing(one, proof) for one in plain(*arguments, **named))

    wire.destinations_of = less


def _fail_fsync(number: int) -> None:
    plain, lock = os.fsync, threading.Lock()
    left = [number]

    def fsync(descriptor: int) -> None:
        with lock:
            left[0] -= 1
            failing = left[0] == 0
        if failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        plain(descriptor)

    os.fsync = fsync  # type: ignore[assignment]


@dataclass
class Child:
    """A child at work."""

    process: ForkServerProcess
    orders: Orders

    @property
    def pid(self) -> int:
        pid = self.process.pid
        assert pid is not None
        return pid

    def until_stopped(self) -> None:
        """Wait until it has stopped itself. It must not end before."""
        eventually(self._stands_still, seconds=SECONDS)

    def _stands_still(self) -> bool:
        assert self.process.is_alive(), f"ended with {self.process.exitcode} before it stopped: {self.said()}"
        return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self.process.is_alive():
            os.kill(self.pid, number)

    def code(self) -> int:
        """Wait for its end; its exit code, negative where a signal ended it."""
        self.process.join(SECONDS)
        code = self.process.exitcode
        assert code is not None, f"did not end in {SECONDS:g} s: {self.said()}"
        return code

    def said(self) -> str:
        """All that it wrote."""
        files = [path for path in (self.orders.out, self.orders.err) if path.exists()]
        return "\n".join(path.read_text(errors="replace") for path in files)[-4000:]

    def document(self) -> dict[str, Any]:
        """Its answer, of `--json`."""
        found: dict[str, Any] = json.loads(self.orders.out.read_text())
        return found

    def error(self) -> dict[str, Any]:
        """The error that it ended with, as in its answer."""
        return dict(self.document()["error"])

    def end(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join(SECONDS)
        self.process.close()


@dataclass
class Site:
    """A world, and children that work on it."""

    world: World
    context: ForkServerContext
    _stack: ExitStack = field(default_factory=ExitStack)
    _number: int = 0

    def orders(self, *arguments: str, environment: Mapping[str, str] | None = None, **more: Any) -> Orders:
        """Orders for a command; `run flights` if none is given."""
        self._number += 1
        said = self.world.root / f"said-{self._number}"
        given = arguments or ("run", "flights")
        now = () if given[0] == "release" else ("--now", self.world.now.isoformat())
        return Orders(
            (*given, "--project", str(self.world.root), *now, "--json"),
            {**self.world.env, **(environment or {})},
            said.with_suffix(".out"),
            said.with_suffix(".err"),
            **more,
        )

    def start(self, *arguments: str, **more: Any) -> Child:
        """Start a child, which ends with this site at the latest."""
        child = start(self.context, self.orders(*arguments, **more))
        self._stack.callback(child.end)
        return child

    def run(self, *arguments: str, codes: Sequence[int] = (0,), **more: Any) -> Child:
        """Start a child and wait for it; it must end with one of `codes`."""
        child = self.start(*arguments, **more)
        assert child.code() in codes, (child.code(), child.said())
        return child

    def until_closed(self, *, codes: Sequence[int] = (0, 4, 6), **more: Any) -> None:
        """Run again and again, as a schedule does, until nothing is left."""

        def closed() -> bool:
            done = self.run(codes=codes, **more)
            return done.code() == 0 and set(self.world.states()) <= {"closed"} and not self.world.summary().open_cuts

        eventually(closed, seconds=SECONDS)

    def close(self) -> None:
        self._stack.close()


def start(context: ForkServerContext, orders: Orders) -> Child:
    process = context.Process(target=act, args=(orders,))
    process.start()
    return Child(process, orders)


@contextmanager
def site_of(world: World, context: ForkServerContext) -> Iterator[Site]:
    site = Site(world, context)
    try:
        yield site
    finally:
        site.close()
