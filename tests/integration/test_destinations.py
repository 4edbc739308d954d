"""One job, several destinations: each has its own deliveries and mark, and what happens to one is not the others'
matter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_rebuild import lose, rebuilt
from tests.labels import label, labels, of_labels, run_both, shown
from tests.to_arize import arize, arrived, knows_arize
from tests.world import KEY, Platform, World, after, eventually, rows, said

from tidepost import run as engine
from tidepost import steps
from tidepost.comparing.reconcile import Reconciling, Scope
from tidepost.comparing.resend import reopen
from tidepost.errors import Misconfigured, Outdated, Retryable, TidepostError
from tidepost.events import Event, Settled
from tidepost.publishing.purge import Purge
from tidepost.recovery import acts
from tidepost.sandbox.process import SandboxProcess
from tidepost.status import StreamStatus, read_status

ROWS = 100
NOBODY = "http://127.0.0.1:9"
"""Nothing listens there."""


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
    second_id: str

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


@pytest.mark.parametrize(
    ("wrong", "kind", "first"), [(down, Retryable, True), (refusing, Misconfigured, False)], ids=["down", "refusing"]
)
def test_one_that_is_down_or_wrong_holds_back_nobody_else(
    two: Two, wrong: Callable[[Two], dict[str, Any]], kind: type[TidepostError], *, first: bool
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


@dataclass
class Slow:
    """A destination that answers nothing, of one kind of question, before it may."""

    whole: Any
    question: str
    may: threading.Event

    def __getattr__(self, name: str) -> Any:
        plain = getattr(self.whole, name)
        if name != self.question:
            return plain

        def slow(*arguments: Any, **named: Any) -> Any:
            assert self.may.wait(30), "the others were held back"
            return plain(*arguments, **named)

        return slow


@pytest.mark.parametrize("question", ["check", "send"])
def test_one_that_is_slow_holds_back_nobody_else(two: Two, question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidepost.delivery.outbound.MOST_WAITING", 1)
    settled: list[str] = []
    may = threading.Event()

    def notice(event: Event) -> None:
        if isinstance(event, Settled):
            settled.append(event.delivery.destination)
            if settled.count("arthur") == 3:
                may.set()

    with two.wired() as wired:
        first, second = wired.destinations
        slow: Any = Slow(second, question, may)
        world = replace(wired, destinations=(slow, first))
        outcome = engine.run(world, two.ask(), notice=notice, stop=threading.Event())
    assert said(outcome) == ""
    assert settled == ["arthur"] * 3 + ["second"] * 3


def test_where_all_are_down_nothing_is_begun(two: Two) -> None:
    two.sends_to(two.arthur(url=NOBODY), two.others() | {"url": NOBODY})
    with pytest.raises(Retryable, match=r"^(arthur|second): "):
        two.run()
    assert not two.files()


def test_in_pieces_too_one_that_is_down_holds_back_nobody_and_is_told_last(two: Two) -> None:
    two.sends_to(down(two), two.arthur())
    told: list[Event] = []
    stop = threading.Event()
    with two.wired() as wired:
        begun = steps.begin(wired, two.ask(), notice=told.append)
        for cut in begun.cuts:
            assert steps.upload(wired, cut, notice=told.append, stop=stop).sent == 1

        def raised() -> Retryable | None:
            try:
                steps.settle(wired, notice=told.append, stop=stop, cuts=begun.cuts)
            except Retryable as error:
                return error
            return None

        error = eventually(raised)
    assert error is not None
    assert error.message.startswith("second: ")
    assert two.platform_rows() == 3 * ROWS


def test_a_paused_destination_gets_nothing_and_catches_up_once_it_is_resumed(two: Two) -> None:
    two.run()
    two.pause()
    two.log("tuesday", rows(ROWS, first=3 * ROWS, at=after(hours=6)))
    for _ in range(2):
        assert said(two.run()) == ""
    assert (two.platform_rows(), two.at_second()) == (4 * ROWS, [3 * ROWS, 3 * ROWS])
    status = two.status()
    (first, second) = status.destinations
    assert (first.paused, first.open, status.open) == (None, 0, 0)
    assert second.paused is not None
    assert (second.paused.who, second.paused.why, second.open) == ("a test", "it is renewed", 1)
    assert str(second.mark) < str(first.mark)
    assert two.purge() == 3
    assert len(two.files()) == 1
    with two.wired() as wired, two.ledger() as ledger, pytest.raises(Misconfigured, match="second is paused"):
        reopen(wired, ledger, two.stream(), {"second": {1: 1}}, who="a test", why="it was lost")
    with pytest.raises(Outdated, match="second is paused already"):
        two.pause()
    two.resume()
    with pytest.raises(Outdated, match="second is not paused"):
        two.resume()
    with two.ledger() as ledger:
        told = [(entry.what, entry.why) for entry in ledger.reports.audit("flights")]
    assert sorted(told) == [("paused second", "it is renewed"), ("resumed second", "it is back")]
    assert said(two.run()) == ""
    assert two.at_second() == [4 * ROWS, 4 * ROWS]
    assert len(set(two.marks().values())) == 1


def test_a_pause_outlives_the_ledger(two: Two) -> None:
    two.run()
    two.pause("arthur")
    two.pause()
    two.resume("arthur")
    lose(two.root)
    rebuilt(two.root)
    two.log("tuesday", rows(ROWS, first=3 * ROWS, at=after(hours=6)))
    assert said(two.run()) == ""
    assert (two.platform_rows(), two.at_second()) == (4 * ROWS, [3 * ROWS, 3 * ROWS])
    assert [one.paused is None for one in two.status().destinations] == [True, False]


@pytest.mark.parametrize("purged", [False, True], ids=["from staging", "from the source"])
def test_one_that_is_added_later_catches_up(two: Two, *, purged: bool) -> None:
    two.sends_to(two.arthur())
    two.run()
    if purged:
        assert two.purge() == 3
    two.log("tuesday", rows(ROWS, first=3 * ROWS, at=after(hours=6)))
    two.sends_to(two.arthur(), two.others())
    assert said(two.run()) == ""
    assert two.at_second() == [4 * ROWS, 4 * ROWS]
    assert two.platform_rows() == 4 * ROWS
    assert len(set(two.marks().values())) == 1


@pytest.mark.parametrize("late", ["arize", "arthur"])
def test_arthur_and_arize_catch_up_with_each_other_from_the_source(two: Two, late: str) -> None:
    knows_arize(two)
    own = {"arthur": two.arthur(), "arize": arize(two)}
    two.sends_to(*(to for name, to in own.items() if name != late))
    two.run()
    assert (two.purge(), two.files()) == (3, [])
    two.log("tuesday", rows(ROWS, first=3 * ROWS, at=after(hours=6)))
    two.sends_to(*own.values())
    outcome = two.run()
    assert (said(outcome), outcome.tally.published, outcome.arrived) == ("", ROWS, 5 * ROWS)
    assert arrived(two) == (4 * ROWS, 4 * ROWS)
    assert two.everything_arrived_once(4 * ROWS)
    assert len(set(two.marks().values())) == 1
    assert [one.open + one.held for one in two.status().destinations] == [0, 0]


def test_what_one_that_is_added_later_cannot_have_any_more_holds_back_nobody(two: Two) -> None:
    two.sends_to(two.arthur())
    two.run()
    assert two.purge() == 3
    two.log("monday", rows(2 * ROWS))
    two.log("tuesday", rows(ROWS, first=3 * ROWS, at=after(hours=6)))
    two.sends_to(two.arthur(), two.others())
    outcome = two.run()
    assert isinstance(outcome.worst(), Misconfigured)
    assert "the files of slice 3 were purged" in said(outcome)
    assert two.platform_rows() == 4 * ROWS
    assert two.at_second() == [3 * ROWS, 3 * ROWS]


def test_one_that_is_removed_is_shown_as_such_and_waited_for_by_nobody(two: Two) -> None:
    two.sends_to(two.arthur(), down(two))
    two.run()
    two.sends_to(two.arthur())
    assert said(two.run()) == ""
    status = two.status()
    assert [(one.name, one.removed, one.open) for one in status.destinations] == [
        ("arthur", False, 0),
        ("second", True, 3),
    ]
    assert status.open == 0
    assert two.purge() == 3


def test_labels_go_to_each_destination_after_their_inferences_there(two: Two) -> None:
    of_labels(two)
    two.sends_to(two.arthur(), down(two))
    labels(two, "monday", [label(n, n % 3) for n in range(20)])
    first, second = run_both(two)
    assert said(first).startswith("second: ")
    assert (second.tally.published, second.arrived) == (20, 20)
    assert len(shown(two)) == 20
    two.sends_to(two.arthur(), two.others())
    assert [said(one) for one in run_both(two)] == ["", ""]
    two.second.process.wait_until_loaded()
    assert two.second.process.model_stats(two.second_id)["labels"] == 20


def test_arthur_and_arize_get_the_same_slices_and_arizes_rules_are_arizes_matter(two: Two) -> None:
    knows_arize(two)
    two.sends_to(two.arthur(), arize(two, request_rows=60))
    two.log("tuesday", rows(10, first=3 * ROWS, at=after(hours=6), note="x" * 20_001))
    outcome = two.run()
    assert (outcome.slices, outcome.held, len(two.files())) == (4, 1, 7)
    assert two.platform_rows() == 3 * ROWS + 10
    assert arrived(two) == (3 * ROWS, 3 * ROWS)
    status = {one.name: one for one in two.status().destinations}
    assert (status["arthur"].held, status["arize"].held) == (0, 1)
    assert str(status["arize"].mark) < str(status["arthur"].mark)
    with two.wired() as wired, two.ledger() as ledger, wired.engine.connect() as connection:
        compared = Reconciling(wired, ledger, two.stream(), connection).reconcile(Scope(), wired.destinations)
    assert not compared.lost.get("arthur")
    two.log("wednesday", rows(10, first=4 * ROWS, at=after(hours=12)))
    two.run()
    assert two.platform_rows() == 3 * ROWS + 20
    assert two.marks()["arize"] == status["arize"].mark
