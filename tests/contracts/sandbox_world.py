"""What worlds of the destination contract have alike whose platform is the sandbox, whatever they speak to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TypeVar

from tidepost.destinations.arize.destination import ArizeDestination
from tidepost.destinations.arthur.destination import ArthurDestination
from tidepost.sandbox import Fault, SandboxProcess

KEY = "a-key-of-the-sandbox"
D = TypeVar("D", ArthurDestination, ArizeDestination)
W = TypeVar("W", bound="SandboxWorld")


class SandboxWorld:
    """A sandbox, what it does to files, and the destinations that were made for it."""

    key = KEY

    def __init__(self, sandbox: SandboxProcess) -> None:
        self.sandbox = sandbox
        self.waits: list[float] = []
        self._open: list[ArthurDestination | ArizeDestination] = []

    def opened(self, destination: D) -> D:
        """The destination, which is closed with the world."""
        self._open.append(destination)
        return destination

    def close(self) -> None:
        for destination in self._open:
            destination.close()

    def throttle(self, times: int, seconds: float) -> None:
        self.sandbox.fault(Fault("throttle", kind="file", count=times, retry_after=seconds))

    def fail_after_accepting(self) -> None:
        self.sandbox.fault(Fault("fail_after", kind="file", count=1, status=503))

    def lose_reply(self) -> None:
        for kind in ("file", "rows"):
            self.sandbox.fault(Fault("lose_reply", kind=kind, count=1))

    def reset_early(self) -> None:
        self.sandbox.fault(Fault("reset", kind="file", count=1, after_bytes=65536))


def fresh(sandbox: SandboxProcess, kind: type[W]) -> Iterator[W]:
    """For a fixture: a world of its own for each test, without the faults of another's."""
    sandbox.configure(faults=[])
    with closing(kind(sandbox)) as world:
        yield world
