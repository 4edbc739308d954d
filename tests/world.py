"""Small worlds: a project with one job, a log that grows, and a model at the sandbox. Everything in them is real.

world.log("monday", rows(100))
world.run()
assert world.platform_rows() == 100
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import requests
from tests.children import Child, child, run_once
from tests.showing import Showing
from tests.simulated import SimulatedTime

from tidepost import run as engine
from tidepost.cursor import to_nanoseconds
from tidepost.definition.project import Project, load_project
from tidepost.events import Event
from tidepost.ledger.sql import SqlLedger
from tidepost.ledger.summary import StreamSummary
from tidepost.model import Proof, Request, ScanKind, Stream, StreamName
from tidepost.outcome import Outcome
from tidepost.planning.plan import frontier, high_water_mark
from tidepost.planning.prospect import start_of
from tidepost.ports import StagingArea
from tidepost.ranges import Range
from tidepost.recovery.acts import Word
from tidepost.sandbox.process import SandboxProcess
from tidepost.staging.local import LocalStaging
from tidepost.wire import ledger_of, staging_of, wire
from tidepost.world import World as Wired

START = datetime(2024, 5, 1, 12, tzinfo=UTC)
"""When the first inference of a world is made, and logged."""
NOW = START + timedelta(days=1)
"""What a world's clock shows: late enough for everything that `rows` makes by default."""
KEY = "an-access-key"
ATTRIBUTES = (
    ("distance", "INTEGER", "PIPELINE_INPUT"),
    ("carrier", "STRING", "PIPELINE_INPUT"),
    ("score", "FLOAT", "PREDICTED_VALUE"),
    ("note", "STRING", "NON_INPUT_DATA"),
    ("late", "INTEGER", "GROUND_TRUTH"),
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("logged_at", pa.timestamp("us", "UTC")),
        ("distance", pa.int64()),
        ("carrier", pa.string()),
        ("score", pa.float64()),
        ("note", pa.string()),
    ]
)

Row = dict[str, Any]
T = TypeVar("T")
_numbers = itertools.count(1)


def after(**span: float) -> datetime:
    """An instant after the world's start: `after(hours=2)`."""
    return START + timedelta(**span)


def ns(instant: datetime) -> int:
    """An instant as a cursor's position."""
    return to_nanoseconds(instant)


def between(start: datetime, end: datetime) -> Range:
    """A range of the cursor."""
    return Range(ns(start), ns(end))


def row(number: int, at: datetime, /, **changes: Any) -> Row:
    """One inference, logged when it was made."""
    plain: Row = {
        "id": f"r{number:06d}",
        "at": at,
        "logged_at": at,
        "distance": 100 + number % 900,
        "carrier": ("UA", "AA", "DL")[number % 3],
        "score": (number % 101) / 100,
        "note": None if number % 7 == 0 else f"note {number}",
    }
    return plain | changes


def rows(count: int, *, first: int = 0, at: datetime = START, every: float = 60.0, **changes: Any) -> list[Row]:
    """Inferences with growing ids, `every` seconds apart."""
    return [row(first + n, at + timedelta(seconds=n * every), **changes) for n in range(count)]


def table(of: Sequence[Row], schema: pa.Schema = SCHEMA) -> pa.Table:
    return pa.Table.from_pylist(list(of), schema=schema)


def noting(order: list[str], name: Callable[..., str], act: Callable[..., T]) -> Callable[..., T]:
    """`act`, which also writes down that it was done, by the name that its arguments give it."""

    def noted(*args: Any, **options: Any) -> T:
        order.append(name(*args, **options))
        return act(*args, **options)

    return noted


def eventually(what: Callable[[], T], *, seconds: float = 20.0) -> T:
    """The first truthy answer of `what`, asked again until then."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
    return found


@dataclass
class Platform:
    """The sandbox, and how to register models there. What a test changes of it is put back after the test."""

    process: SandboxProcess

    @property
    def url(self) -> str:
        return self.process.url

    def reset(self) -> None:
        self.process.configure(
            on_repeat="keep", loading_delay=0, loading_rate=None, provisioning_delay=0, seed=0, now=None, faults=[]
        )

    def call(self, method: str, path: str, body: object) -> requests.Response:
        return requests.request(
            method, f"{self.url}/api/v3{path}", json=body, headers={"Authorization": KEY}, timeout=30
        )

    def register(self, attributes: Sequence[tuple[str, str, str]] = ATTRIBUTES, **changes: Any) -> tuple[str, str]:
        """A new model; returns its partner id and its id."""
        name = f"model-{next(_numbers)}"
        definition = {
            "partner_model_id": name,
            "display_name": name,
            "input_type": "TABULAR",
            "output_type": "REGRESSION",
            "is_batch": False,
            "attributes": [{"name": n, "value_type": v, "stage": s, "position": 0} for n, v, s in attributes],
        }
        answer = self.call("POST", "/models", definition | changes)
        assert answer.status_code == 201, answer.text
        return name, answer.json()["id"]


@dataclass
class World:
    """A project in a folder: one job named `flights`, whose log lies in `log/`.

    job:   the job's definition; change it with `define`
    now:   what the run's clock shows
    shows: what its destination can show, if that is less than rows
    time:  simulated, for whatever a run waits for; None is the real one
    variables: of the environment, beside the usual ones
    accepts_loss: as `--accept-loss`
    """

    root: Path
    platform: Platform
    model: str
    model_id: str
    job: dict[str, Any] = field(default_factory=dict)
    now: datetime = NOW
    shows: Proof | None = None
    time: SimulatedTime | None = None
    events: list[Event] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    accepts_loss: bool = False
    _runs: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    def make(cls, root: Path, platform: Platform, **model: Any) -> World:
        """A project with a usual job, and a model of its own."""
        (root / "jobs").mkdir(parents=True)
        (root / "log").mkdir()
        (root / "tidepost.yaml").write_text("version: 1\n")
        world = cls(root, platform, *platform.register(**model))
        world.define(
            version=1,
            name="flights",
            source="log/*.parquet",
            cursor={"column": "logged_at", "start": "2024-05-01T00:00:00Z", "settle": "10m", "lookback": "1d"},
            mapping={
                "partner_inference_id": "id",
                "inference_timestamp": "at",
                "inputs": ["distance", "carrier"],
                "predictions": ["score"],
                "non_inputs": ["note"],
            },
            limits={"cut_rows": 1000, "memory": "200MB", "threads": 2},
            destination={
                "type": "arthur",
                "url": "${SANDBOX_URL}",
                "api_key": "${ARTHUR_API_KEY}",
                "model": world.model,
                "loading": "2s",
                "poll": "1s",
                "retries": 1,
            },
        )
        return world

    def _clock(self) -> float:
        return (self.now if self.time is None else self.time.instant).timestamp()

    # ------------------------------------------------------------------------------------------ the definition

    def define(self, **changes: Any) -> None:
        """Change keys of the job, section by section, and write it; None takes a key away."""
        for key, value in changes.items():
            old = self.job.get(key)
            self.job[key] = {**old, **value} if isinstance(value, dict) and isinstance(old, dict) else value
            if isinstance(self.job[key], dict):
                self.job[key] = {name: one for name, one in self.job[key].items() if one is not None}
        self.job = {key: value for key, value in self.job.items() if value is not None}
        (self.root / "jobs" / "flights.yaml").write_text(json.dumps(self.job, indent=1))

    @property
    def env(self) -> dict[str, str]:
        return {"SANDBOX_URL": self.platform.url, "ARTHUR_API_KEY": KEY, **self.variables}

    @property
    def project(self) -> Project:
        return load_project(self.root)

    @property
    def area(self) -> StagingArea:
        """The staging, wherever it is."""
        return staging_of(self.project)

    @property
    def staging(self) -> LocalStaging:
        """The staging, which is a folder."""
        staging = self.area
        assert isinstance(staging, LocalStaging)
        return staging

    # ------------------------------------------------------------------------------------------------- the log

    def log(self, name: str, of: Sequence[Row] | pa.Table) -> Path:
        """Write a file of the log, whole, as a log shipper does."""
        path = self.root / "log" / f"{name}.parquet"
        draft = path.with_suffix(".draft")
        pq.write_table(of if isinstance(of, pa.Table) else table(of), draft)
        return draft.replace(path)

    # ------------------------------------------------------------------------------------------------- running

    @contextmanager
    def wired(self) -> Iterator[Wired]:
        """The engine's own world, as the command line wires it; its connections end with the block."""
        project = self.project
        ledger = ledger_of(project)
        try:
            job, clock = project.job("flights"), self._clock
            sleep = time.sleep if self.time is None else self.time.sleep
            word = Word("somebody", clock(), "a test") if self.accepts_loss else None
            wired = wire(project, job, ledger, env=self.env, clock=clock, sleep=sleep, accept_loss=word)
            if self.time is not None:
                wired = replace(wired, now=self.time.now, wait=self.time.wait)
            if self.time is not None and wired.labels is not None:
                wired = replace(wired, labels=replace(wired.labels, now=self.time.now, wait=self.time.wait))
            if self.shows is not None:
                less = tuple(Showing(one, self.shows) for one in wired.destinations)
                wired = replace(wired, destinations=less)
            try:
                yield wired
            finally:
                for destination in wired.destinations:
                    destination.close()  # type: ignore[attr-defined]
        finally:
            ledger.close()

    def run(self, request: Request | None = None, *, notice: Callable[[Event], None] | None = None) -> Outcome:
        """One run, incremental if nothing else is asked for. What it told is in `events`."""
        self.events = []

        def told(event: Event) -> None:
            self.events.append(event)
            if notice is not None:
                notice(event)

        with self.wired() as wired:
            return engine.run(wired, request or self.ask(), notice=told, stop=threading.Event())

    def backfill(self, start: datetime, end: datetime) -> Outcome:
        """A run that scans a range again."""
        return self.run(Request(f"backfill {next(self._runs)}", ScanKind.BACKFILL, between(start, end)))

    def ask(self) -> Request:
        """A new request for what is new."""
        return Request(f"run {os.getpid()} {next(self._runs)}", ScanKind.INCREMENTAL)

    def spawned(self, key: str, window: Range | None = None, *, anew: bool = False) -> AbstractContextManager[Child]:
        """A run, or a backfill of a window, in a process of its own: see `children.child` and `children.run_once`."""
        return child(run_once, self.root, self.now.timestamp(), key, window, env=self.env, anew=anew)

    # --------------------------------------------------------------------------------------- what became of it

    def stats(self) -> dict[str, Any]:
        self.platform.process.wait_until_loaded()
        return self.platform.process.model_stats(self.model_id)

    def platform_rows(self) -> int:
        """Inferences at the platform."""
        return int(self.stats()["rows"])

    def ids(self) -> list[str]:
        """The ids at the platform, each as often as it is there, in order."""
        self.platform.process.wait_until_loaded()
        body = {"select": [{"property": "partner_inference_id"}]}
        answer = self.platform.call("POST", f"/models/{self.model_id}/inferences/query", body)
        assert answer.status_code == 200, answer.text
        return sorted(one["partner_inference_id"] for one in answer.json()["query_result"])

    def values(self, name: str) -> dict[str, Any]:
        """id → the value of an attribute at the platform."""
        self.platform.process.wait_until_loaded()
        body = {"select": [{"property": "partner_inference_id"}, {"property": name}]}
        answer = self.platform.call("POST", f"/models/{self.model_id}/inferences/query", body)
        assert answer.status_code == 200, answer.text
        return {one["partner_inference_id"]: one[name] for one in answer.json()["query_result"]}

    @contextmanager
    def ledger(self) -> Iterator[SqlLedger]:
        ledger = ledger_of(self.project)
        try:
            yield ledger
        finally:
            ledger.close()

    def stream(self) -> Stream:
        with self.ledger() as ledger:
            found = ledger.plans.find("flights", StreamName.INFERENCES)
        assert found is not None
        return found

    def summary(self) -> StreamSummary:
        with self.ledger() as ledger:
            (found,) = ledger.reports.summary("flights")
        return found

    def mark(self) -> str:
        """The high-water mark at the destination, as text."""
        with self.wired() as wired:
            kind = wired.source.cursor()
            start = start_of(wired.job, kind)
        summary = self.summary()
        oldest = summary.destinations[0].oldest.get("") if summary.destinations else None
        return kind.format(high_water_mark(frontier(start, summary.scanned), oldest))

    def states(self) -> dict[str, int]:
        """Deliveries by their state."""
        found = self.summary().destinations
        return {state.value: number for state, number in found[0].deliveries.items()} if found else {}

    def files(self) -> list[Path]:
        """The visible data files, in order."""
        return sorted((self.staging.root / "flights" / "inferences" / "data").rglob("*.parquet"))

    def rejects(self) -> list[dict[str, Any]]:
        """Every row that was set aside: `reason`, `partner_inference_id` and `row`."""
        folder = self.staging.root / "flights" / "inferences" / "_tidepost"
        found = [*sorted(folder.glob("rejects/*.parquet")), *sorted(folder.glob("refused/*.parquet"))]
        return [one for path in found for one in pq.read_table(path).to_pylist()]

    def everything_arrived_once(self, count: int) -> bool:
        """Whether the platform holds `count` rows, each once, and no delivery is left open."""
        stats = self.stats()
        held = (stats["rows"], stats["distinct"], stats["doubled"])
        assert held == (count, count, 0), stats
        assert set(self.states()) <= {"closed"}, self.states()
        return True


def said(outcome: Outcome) -> str:
    """The error of a run that one should act on first, as it is shown; empty where there is none."""
    worst = outcome.worst()
    return "" if worst is None else str(worst)


def reasons(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """id → why it was set aside."""
    return {str(one["partner_inference_id"]): str(one["reason"]) for one in found}
