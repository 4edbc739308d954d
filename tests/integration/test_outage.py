"""An hour without the platform, and an hour in which it has too much to do, in simulated time: both cost nothing but
time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.simulated import SimulatedTime
from tests.world import START, Platform, World, after, rows, said

from tidepost.destinations.body import Body
from tidepost.destinations.transport import Answer, Transport
from tidepost.errors import Retryable
from tidepost.events import Event, PartSent
from tidepost.sandbox.process import SandboxProcess
from tidepost.sandbox.settings import Fault

HOUR, FIVE_MINUTES = 3600.0, 300.0
RETRIES = 3
CONNECTIONS = 4
"""Files sent at the same time, as the job has it by default."""
A_RUN = 40
"""Rows that are logged between two runs."""


@dataclass
class Call:
    """A call of the platform, by which thread and when."""

    thread: int
    at: float
    file: bool
    status: int | None = None


@dataclass
class Schedule:
    """A job that runs every five minutes of simulated time, on a log that grows meanwhile."""

    world: World
    time: SimulatedTime
    platform: SandboxProcess
    calls: list[Call]
    logged: int = 0
    marks: list[str] = field(default_factory=list)

    def tick(self) -> BaseException | None:
        """Log some rows, let five minutes pass, run; what the run failed with."""
        self.log()
        self.time.sleep(FIVE_MINUTES)
        return self.run()

    def log(self) -> None:
        at = after(seconds=self.time.now())
        self.world.log(f"at-{self.logged}", rows(A_RUN, first=self.logged, at=at, every=1))
        self.logged += A_RUN

    def run(self) -> BaseException | None:
        self.calls.clear()
        try:
            return self.world.run().worst()
        except Retryable as error:
            return error
        finally:
            if self.world.states():
                self.marks.append(self.world.mark())

    def everything_arrived_once(self) -> bool:
        """Once all has settled."""
        self.time.sleep(HOUR)
        error = self.run()
        assert error is None, error
        return self.world.everything_arrived_once(self.logged)


@pytest.fixture
def schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Schedule]:
    time, calls = SimulatedTime(START), list[Call]()
    plain = Transport.call

    def noted(self: Transport, method: str, path: str, body: Body | None = None, **more: object) -> Answer:
        call = Call(threading.get_ident(), time.now(), path.endswith("/inferences/file"))
        calls.append(call)
        answer = plain(self, method, path, body, **more)  # type: ignore[arg-type]
        call.status = answer.status
        return answer

    monkeypatch.setattr(Transport, "call", noted)
    with SandboxProcess(tmp_path / "platform", on_repeat="keep") as process:
        world = World.make(tmp_path / "project", Platform(process))
        world.time = time
        world.define(
            limits={"cut_rows": A_RUN // 2}, destination={"retries": RETRIES, "loading": "10m", "poll": "30s"}
        )
        schedule = Schedule(world, time, process, calls)
        for _ in range(2):
            assert schedule.tick() is None
        yield schedule


def nothing_was_lost_to_it(schedule: Schedule) -> bool:
    """No row was refused or set aside, nothing is held, and the mark has not moved back."""
    return (
        schedule.world.rejects() == []
        and "held" not in schedule.world.states()
        and schedule.marks == sorted(schedule.marks)
    )


def test_an_hour_without_the_platform_costs_nothing_but_time(schedule: Schedule) -> None:
    world, platform = schedule.world, schedule.platform

    def gone_after_a_file(event: Event) -> None:
        if isinstance(event, PartSent):
            platform.kill()

    schedule.log()
    schedule.time.sleep(FIVE_MINUTES)
    outcome = world.run(notice=gone_after_a_file)
    assert isinstance(outcome.worst(), Retryable)
    began, mark = schedule.time.now(), world.mark()
    while schedule.time.now() < began + HOUR:
        assert isinstance(schedule.tick(), Retryable)
        assert 0 < len(schedule.calls) <= RETRIES + 1
        assert world.mark() == mark
    platform.start()
    assert schedule.everything_arrived_once()
    assert nothing_was_lost_to_it(schedule)
    assert world.mark() > mark


def test_an_hour_of_too_many_requests_costs_nothing_but_time(schedule: Schedule) -> None:
    asked = 60.0
    schedule.platform.fault(Fault("throttle", kind="file", retry_after=asked))
    began = schedule.time.now()
    schedule.time.at(began + HOUR, lambda: schedule.platform.configure(faults=[]))
    throttled = 0
    while schedule.time.now() < began + HOUR:
        schedule.tick()
        files = [call for call in schedule.calls if call.file]
        assert sum(call.status == 429 for call in files) <= CONNECTIONS * (RETRIES + 1)
        for number, call in enumerate(files):
            if call.status == 429:
                throttled += 1
                later = [one.at for one in files[number + 1 :] if one.thread == call.thread]
                assert not later or later[0] >= call.at + asked
    assert throttled > 10
    assert schedule.everything_arrived_once()
    assert nothing_was_lost_to_it(schedule)


def test_a_platform_that_asks_for_half_an_hour_is_left_alone_by_this_run(schedule: Schedule) -> None:
    schedule.platform.fault(Fault("throttle", kind="file", retry_after=1800))
    error = schedule.tick()
    assert isinstance(error, Retryable)
    assert error.retry_after == 1800
    assert sum(call.file for call in schedule.calls) <= CONNECTIONS
    schedule.platform.configure(faults=[])
    assert schedule.everything_arrived_once()


def test_replies_that_are_lost_while_the_platform_is_going_down_are_asked_about(schedule: Schedule) -> None:
    schedule.platform.fault(Fault("lose_reply", kind="file", count=2))
    schedule.platform.fault(Fault("fail", kind="query", status=503))
    assert schedule.tick() is not None
    assert "unknown" in schedule.world.states()
    for _ in range(3):
        assert schedule.tick() is not None
    schedule.platform.configure(faults=[])
    assert schedule.everything_arrived_once()
    assert nothing_was_lost_to_it(schedule)
    assert not said(schedule.world.run())
