"""One job, several destinations: each has its own deliveries and mark, and what happens to one is not the others'
matter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.world import KEY, Platform, World, rows, said

from tidepost import acts
from tidepost.errors import Misconfigured, Retryable, TidepostError
from tidepost.purge import Purge
from tidepost.sandbox.process import SandboxProcess
from tidepost.status import StreamStatus, read_status

ROWS = 100
NOBODY = "http://127.0.0.1:9"
"""Nothing listens there."""
SPACE = "a-space"


@pytest.fixture(scope="module")
def _other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("other") / "data", on_repeat="keep", api_key=KEY) as process:
        yield process


@pytest.fixture
def other(_other: SandboxProcess) -> Iterator[Platform]:
    """A second platform, which can be down while the first is not."""
    platform = Platform(_other)
    yield platform
    platform.reset()


class Two(World):
    """A world whose job sends to `arthur`, as usual, and to `second`."""

    second: Platform
    second_model: str

    def arthur(self, **changes: Any) -> dict[str, Any]:
        found = {"type": "arthur", "url": "${SANDBOX_URL}", "api_key": "${ARTHUR_API_KEY}", "model": self.model}
        return {**found, "loading": "2s", "poll": "1s", "retries": 0, **changes}

    def others(self, **changes: Any) -> dict[str, Any]:
        return self.arthur(name="second", url=self.second.url, model=self.second_model, **changes)

    def sends_to(self, *destinations: dict[str, Any]) -> None:
        self.define(destination=None, destinations=list(destinations))

    def at_second(self) -> list[int]:
        """Rows there, and different ones."""
        self.second.process.wait_until_loaded()
        found = self.second.process.model_stats(self.second_id)
        return [found["rows"], found["distinct"]]

    second_id: str

    def status(self) -> StreamStatus:
        with self.ledger() as ledger:
            return read_status(self.project.job("flights"), ledger, self.now.timestamp()).streams[0]

    def marks(self) -> dict[str, str | None]:
        return {one.name: one.mark for one in self.status().destinations}

    def pause(self, name: str = "second") -> None:
        with self.ledger() as ledger:
            acts.pause(ledger, self.staging, self.stream(), name, acts.Word("a test", 1.0, "it is renewed"))

    def resume(self, name: str = "second") -> None:
        with self.ledger() as ledger:
            acts.resume(ledger, self.staging, self.stream(), name, acts.Word("a test", 2.0, "it is back"))

    def purge(self) -> int:
        """Drop the files that may go, however young; returns how many."""
        with self.wired() as wired, self.ledger() as ledger:
            names = [one.name for one in wired.destinations]
            purge = Purge(self.stream(), ledger, wired.staging, wired.records, names, 0.0)
            time.sleep(0.002)
            return purge.purge(wired.engine, wired.owner).parts


@pytest.fixture
def two(tmp_path: Path, platform: Platform, other: Platform) -> Two:
    world = Two.make(tmp_path / "project", platform)
    assert isinstance(world, Two)
    world.second = other
    world.second_model, world.second_id = other.register()
    world.sends_to(world.arthur(), world.others())
    world.define(limits={"cut_rows": ROWS})
    world.log("monday", rows(3 * ROWS))
    return world


def test_a_slice_is_staged_once_and_arrives_once_everywhere(two: Two) -> None:
    outcome = two.run()
    assert (said(outcome), outcome.slices, outcome.arrived) == ("", 3, 6 * ROWS)
    assert len(two.files()) == 3
    assert two.everything_arrived_once(3 * ROWS)
    assert two.at_second() == [3 * ROWS, 3 * ROWS]
    assert len(set(two.marks().values())) == 1


def down(two: Two) -> dict[str, Any]:
    return two.others() | {"url": NOBODY}


def refusing(two: Two) -> dict[str, Any]:
    two.variables = {"OLD_KEY": "a-key-that-was-taken-back"}
    return two.others() | {"api_key": "${OLD_KEY}"}


@pytest.mark.parametrize(("wrong", "kind"), [(down, Retryable), (refusing, Misconfigured)], ids=["down", "refusing"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_one_that_is_down_or_wrong_holds_back_nobody_else(
    two: Two, wrong: Callable[[Two], dict[str, Any]], kind: type[TidepostError], first: bool
) -> None:
    broken = wrong(two)
    two.sends_to(*((broken, two.arthur()) if first else (two.arthur(), broken)))
    outcome = two.run()
    assert two.platform_rows() == 3 * ROWS
    assert isinstance(outcome.worst(), kind)
    assert said(outcome).startswith("second: ")
    assert two.at_second() == [0, 0]
    marks = two.marks()
    assert marks["second"] is not None
    assert marks["arthur"] is not None
    assert marks["second"] < marks["arthur"]
    two.sends_to(two.arthur(), two.others())
    assert not said(two.run())
    assert two.at_second() == [3 * ROWS, 3 * ROWS]
    assert two.platform_rows() == 3 * ROWS
    assert len(set(two.marks().values())) == 1
