"""Violence for as long as one likes: random jobs, faults, kills, clocks and restarts, and a count after each round.

    python -m tests.crash.soak --seconds 1200 --seed 1

Rounds of a few seconds: logs grow, several processes upload, some are killed, stopped for a while or asked to end,
the platform misbehaves and dies. A round ends quietly: runs until nothing is open, and then every row that the rules
say should be there is looked for. Prints one line of JSON; exits with 1 if anything was lost, doubled or wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.crash.orders import Child, Orders, start
from tests.forkserver import forkserver
from tests.postgres import server
from tests.world import ATTRIBUTES, KEY, SCHEMA, START, Platform, Row, ns

from tidepost.definition.project import load_project
from tidepost.errors import TidepostError
from tidepost.ledger.summary import StreamSummary
from tidepost.model import StreamName
from tidepost.planning.plan import frontier, high_water_mark
from tidepost.sandbox.process import SandboxProcess
from tidepost.staging.local import LocalStaging
from tidepost.wire import ledger_of, staging_of

LOG_SCHEMA = SCHEMA.append(pa.field("number", pa.int64()))
TEMPLATES = ("id", "{carrier}-{number}", "{number:08d}")
CARRIERS = ("UA", "AA", "DL")
LOADING = 6
"""Seconds: longer than the platform ever takes here, also when it is killed and started again."""
SETTLE = timedelta(minutes=10)
ORDERLY = frozenset({0, 4, 5, 6, 130, 143})
"""Done, retry later, unknown, held by another run, asked to end."""
QUIET_RUNS = 30

Content = tuple[Any, ...]


@dataclass
class Result:
    """What happened. `lost`, `doubled` and `wrong` must be empty."""

    seed: int
    seconds: float = 0.0
    rounds: int = 0
    runs: int = 0
    kills: int = 0
    terms: int = 0
    sleeps: int = 0
    restarts: int = 0
    faults: int = 0
    rows: int = 0
    logged: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


@dataclass
class Job:
    """One job: its log as it was written, and what of it has to arrive.

    due:   id → the contents that it was logged with, of which the platform holds one
    last:  the greatest cursor that was logged
    late:  whether rows appeared below it, which only a backfill finds
    """

    name: str
    model_id: str
    template: str
    folder: Path
    due: dict[str, set[Content]] = field(default_factory=dict)
    written: list[Row] = field(default_factory=list)
    last: datetime = START
    late: bool = False
    files: int = 0

    def id_of(self, row: Row) -> str | None:
        parts = {"id": row["id"], "carrier": row["carrier"], "number": row["number"]}
        if self.template == "id":
            return None if row["id"] is None else str(row["id"])
        return None if None in parts.values() else self.template.format(**parts)

    def log(self, rows: Sequence[Row]) -> None:
        """Write a file of the log, whole, as a log shipper does."""
        self.files += 1
        draft = self.folder / f"{self.files:05d}.draft"
        pq.write_table(pa.Table.from_pylist(list(rows), schema=LOG_SCHEMA), draft)
        for row in rows:
            id_ = self.id_of(row)
            if id_ is not None and row["at"] is not None and row["score"] == row["score"]:
                self.due.setdefault(id_, set()).add(content_of(row))
        draft.replace(draft.with_suffix(".parquet"))


def content_of(row: Row) -> Content:
    return tuple(row[name] for name in ("distance", "carrier", "score", "note"))


class Soak:
    """A project of one to three jobs, a platform of its own, and what is done to them."""

    def __init__(
        self, folder: Path, seed: int, context: ForkServerContext, process: SandboxProcess, ledger: str | None
    ) -> None:
        self.root = folder
        self.chance = random.Random(seed)
        self.context = context
        self.platform = Platform(process)
        self.result = Result(seed)
        self.now = START + timedelta(hours=2)
        self.numbers = iter(range(1, 1 << 40))
        self.commands = 0
        self.killed: set[int] = set()
        (folder / "jobs").mkdir(parents=True)
        (folder / "said").mkdir()
        (folder / "tidepost.yaml").write_text("version: 1\n" + (f"ledger: {ledger}\n" if ledger else ""))
        self.jobs = [self._job(f"job-{number}") for number in range(self.chance.randint(1, 3))]

    def _job(self, name: str) -> Job:
        model, model_id = self.platform.register(ATTRIBUTES)
        job = Job(name, model_id, self.chance.choice(TEMPLATES), self.root / "log" / name)
        job.folder.mkdir(parents=True)
        definition = {
            "version": 1,
            "name": name,
            "source": f"log/{name}/*.parquet",
            "cursor": {"column": "logged_at", "start": START.isoformat(), "settle": "10m", "lookback": "1d"},
            "mapping": {
                "partner_inference_id": job.template,
                "inference_timestamp": "at",
                "inputs": ["distance", "carrier"],
                "predictions": ["score"],
                "non_inputs": ["note"],
            },
            "staging": {"partition": self.chance.choice(("day", "hour")), "file_rows": 200},
            "limits": {
                "cut_rows": self.chance.choice((20, 60, 200, 1000)),
                "rejects": "100%",
                "memory": "200MB",
                "threads": 2,
            },
            "destination": {
                "type": "arthur",
                "url": "${SANDBOX_URL}",
                "api_key": "${ARTHUR_API_KEY}",
                "model": model,
                "loading": f"{LOADING}s",
                "poll": "1s",
                "timeout": "30s",
                "retries": self.chance.choice((1, 3)),
                "connections": self.chance.choice((1, 4)),
            },
        }
        (self.root / "jobs" / f"{name}.yaml").write_text(json.dumps(definition))
        self._grow(job)
        return job

    # ------------------------------------------------------------------------------------------------- the logs

    def _grow(self, job: Job) -> None:
        """Add rows above the greatest cursor: new, bad, and repeated ones, some changed; sometimes late ones too."""
        chance = self.chance
        rows = [self._row(job) for _ in range(chance.randint(1, 300))]
        again = chance.sample(job.written, min(len(job.written), chance.randint(0, 40)))
        inside = chance.sample(rows, len(rows) // 10)
        rows += [
            self._repeat(row) for row in (*again, *inside) if abs(row["logged_at"] - job.last) < timedelta(hours=12)
        ]
        step = max(timedelta(microseconds=1), (self.now - SETTLE - job.last) / (2 * len(rows)))
        for row in chance.sample(rows, len(rows)):
            job.last += step * chance.random() + timedelta(microseconds=1)
            row["logged_at"] = job.last
            if row.pop("new"):
                row["at"] = job.last - timedelta(seconds=chance.randint(0, 1800))
        for row in rows:
            if row["distance"] is not None and chance.random() < 0.02:
                row.update(chance.choice(({"score": float("nan")}, {"at": None}, {"id": None, "number": None})))
        job.log(rows)
        if chance.random() < 0.3 and job.last - START > timedelta(hours=1):
            late = [self._row(job) for _ in range(chance.randint(1, 30))]
            for row in late:
                row.pop("new")
                row["at"] = row["logged_at"] = START + (job.last - START) * chance.random()
            job.log(late)
            job.late = True
            rows += late
        job.written = [*job.written, *(row for row in rows if row["at"] is not None)][-1000:]
        self.result.logged += len(rows)

    def _row(self, job: Job) -> Row:
        number = next(self.numbers)
        return {
            "new": True,
            "id": f"r{number:08d}",
            "number": number,
            "at": None,
            "logged_at": job.last,
            "distance": 100 + number % 900,
            "carrier": CARRIERS[number % 3],
            "score": (number % 101) / 100,
            "note": None if number % 7 == 0 else f"note {number}",
        }

    def _repeat(self, row: Row) -> Row:
        """The same row, logged again; one of three times with another content."""
        other = {"note": f"changed {self.chance.random()}"} if self.chance.random() < 0.3 else {}
        return {"new": row["at"] is None, **row} | other

    # --------------------------------------------------------------------------------------------- the violence

    def round(self) -> None:
        """A few seconds of violence, and a quiet end."""
        chance = self.chance
        self.now += timedelta(minutes=chance.randint(0, 360))
        self._misbehave()
        children: list[Child] = []
        for _ in range(chance.randint(2, 5)):
            if chance.random() < 0.6:
                self._grow(chance.choice(self.jobs))
            children.append(self._start(chance.choice(self.jobs)))
            children[-1].process.join(chance.uniform(0.0, 1.2))
            if chance.random() < 0.7:
                self._strike(chance.choice(children))
            if chance.random() < 0.12:
                self._restart()
        for child in children:
            if chance.random() < 0.5:
                child.process.join(chance.uniform(0.0, 1.0))
                self._strike(child)
        for child in children:
            self._end(child)
        self._quiet()
        self.result.rounds += 1

    def _misbehave(self) -> None:
        chance = self.chance
        possible: list[dict[str, Any]] = [
            {"fault": "lose_reply", "kind": "file"},
            {"fault": "fail_after", "kind": "file", "status": chance.choice((500, 502, 503))},
            {"fault": "reset", "kind": "file", "after_bytes": chance.choice((0, 500, 10_000_000))},
            {"fault": "throttle", "kind": "file", "retry_after": 0},
            {"fault": "fail", "kind": "file", "status": 503},
            {"fault": "drop", "kind": "file", "rows": chance.random()},
            {"fault": "lose_reply", "kind": "rows"},
            {"fault": "throttle", "kind": "query", "retry_after": 0},
            {"fault": "fail", "kind": "query"},
            {"fault": "delay", "kind": "any", "seconds": chance.uniform(0.0, 0.5)},
        ]
        faults = [
            fault | {"share": chance.uniform(0.02, 0.2)} for fault in chance.sample(possible, chance.randint(0, 6))
        ]
        delay = chance.choice((0.0, 0.0, chance.uniform(0.0, 1.5)))
        self._configured = {"faults": faults, "loading_delay": delay, "seed": chance.randint(0, 1 << 30)}
        self.platform.process.configure(**self._configured)
        self.result.faults += len(faults)

    def _restart(self) -> None:
        """The platform dies, as by a power cut, and comes back with what it had accepted."""
        self.platform.process.kill()
        self.platform.process.start()
        self.platform.process.configure(**self._configured)
        self.result.restarts += 1

    def _start(self, job: Job, *, quiet: bool = False, whole: bool = False) -> Child:
        """A run, or a backfill over some range, at a clock that may be wrong by half a day."""
        chance, now = self.chance, self.now
        if not quiet:
            now += timedelta(hours=chance.choice((0, 0, chance.uniform(-12, 12))))
        arguments = ["run", job.name]
        if whole or (not quiet and chance.random() < 0.25):
            edges = sorted(START + (job.last - START) * chance.random() for _ in range(2))
            first, last = (START, job.last + timedelta(seconds=1)) if whole else edges
            last = max(last, first + timedelta(seconds=1))
            arguments = ["backfill", job.name, "--from", first.isoformat(), "--to", last.isoformat()]
        self.commands += 1
        said = self.root / "said" / f"{self.commands:06d}"
        child = start(
            self.context,
            Orders(
                (*arguments, "--project", str(self.root), "--now", now.isoformat(), "--json"),
                {"SANDBOX_URL": self.platform.url, "ARTHUR_API_KEY": KEY},
                said.with_suffix(".out"),
                said.with_suffix(".err"),
            ),
        )
        self.result.runs += 1
        return child

    def _strike(self, child: Child) -> None:
        if not child.process.is_alive():
            return
        how = self.chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP))
        child.signal(how)
        if how == signal.SIGSTOP:
            self.result.sleeps += 1
            child.process.join(self.chance.uniform(0.0, 1.0))
            child.signal(signal.SIGCONT)
        elif how == signal.SIGKILL:
            self.result.kills += 1
            self.killed.add(child.pid)
        else:
            self.result.terms += 1
            self.killed.add(child.pid)  # before it listens, the signal ends it at once

    def _end(self, child: Child) -> int:
        try:
            code = child.code()
        except AssertionError as error:
            self.result.wrong.append(str(error))
            code = 0
        struck = code < 0 and child.pid in self.killed
        if not struck and code not in ORDERLY:
            self.result.wrong.append(f"{' '.join(child.orders.arguments[:6])} ended with {code}: {child.said()}")
        self.killed.discard(child.pid)
        child.end()
        return code

    # --------------------------------------------------------------------------------------------- the accounts

    def _quiet(self) -> None:
        """Faults off, runs until nothing is open, then count."""
        self._configured = {"faults": [], "loading_delay": 0.0, "seed": 0}
        self.platform.process.configure(**self._configured)
        self.now = max([self.now, *(job.last + 2 * SETTLE for job in self.jobs)])
        todo = {job.name: job for job in self.jobs}
        for _ in range(QUIET_RUNS):
            started = [(job, self._start(job, quiet=True, whole=job.late)) for job in todo.values()]
            for job, child in started:
                code = self._end(child)
                if code == 0 and job.late:
                    job.late = False  # and once more, for what is new
                elif code == 0:
                    del todo[job.name]
            if not todo:
                break
        for job in todo.values():
            self.result.wrong.append(f"{job.name} is still open after {QUIET_RUNS} runs")
        self.result.rows = 0
        for job in self.jobs:
            self._account(job)
        if self.result.fine:
            for path in (self.root / "said").iterdir():
                path.unlink()

    def _account(self, job: Job) -> None:
        """Compare what was logged with what the platform holds, and with what the ledger and the staging say."""
        self.platform.process.wait_until_loaded()
        held: dict[str, list[Content]] = {}
        for one in self._held(job):
            held.setdefault(one["partner_inference_id"], []).append(content_of(one))
        result, rows = self.result, sum(map(len, held.values()))
        result.rows += rows
        lost = [id_ for id_ in job.due if id_ not in held]
        doubled = [id_ for id_, contents in held.items() if len(contents) > 1]
        result.lost += len(lost)
        result.doubled += len(doubled)
        if lost or doubled:
            result.wrong.append(f"{job.name}: lost {sorted(lost)[:5]}, doubled {sorted(doubled)[:5]}")
        foreign = [id_ for id_, contents in held.items() if not job.due.get(id_, set()).issuperset(contents)]
        if foreign:
            result.wrong.append(f"{job.name}: arrived as they were never logged: {sorted(foreign)[:5]}")
        result.wrong += [f"{job.name}: {what}" for what in self._inconsistencies(job, rows)]

    def _held(self, job: Job) -> list[Row]:
        names = ("partner_inference_id", "distance", "carrier", "score", "note")
        body = {"select": [{"property": name} for name in names]}
        answer = self.platform.call("POST", f"/models/{job.model_id}/inferences/query", body)
        found: list[Row] = answer.json()["query_result"]
        return found

    def _inconsistencies(self, job: Job, rows: int) -> list[str]:
        project = load_project(self.root)
        staging = staging_of(project)
        assert isinstance(staging, LocalStaging)
        with ledger_of(project) as ledger:
            stream = ledger.plans.find(job.name, StreamName.INFERENCES)
            if stream is None:
                return ["the ledger does not know it"]
            (summary,) = ledger.reports.summary(job.name)
            parts = {one.part.path: one.part.sha256 for one in ledger.slices.published(stream, None).parts}
        folder = staging.root / stream.prefix
        seen = {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (folder / "data").rglob("*")
            if path.is_file()
        }
        facts: dict[str, tuple[object, object]] = {
            "rows in the ledger": (summary.rows, rows),
            "open cuts": (summary.open_cuts, 0),
            "a slice half-published": (summary.publishing, None),
            "files, visible and in the ledger": (seen, parts),
            "manifests": (len(list(folder.glob("_tidepost/manifests/*.json"))), summary.slices),
            "left in scratch": (list(folder.glob("_tidepost/scratch/*")), []),
            "the mark": (_mark(summary), frontier(ns(START), summary.scanned)),
        }
        return [f"{what}: {found} is not {due}"[:500] for what, (found, due) in facts.items() if found != due] + [
            f"deliveries {state}: {number}"
            for one in summary.destinations
            for state, number in one.deliveries.items()
            if state != "closed"
        ]


def _mark(summary: StreamSummary) -> int:
    oldest = summary.destinations[0].oldest.get("") if summary.destinations else None
    return high_water_mark(frontier(ns(START), summary.scanned), oldest)


def soak(folder: Path, *, seconds: float, seed: int, postgres: bool = False) -> Result:
    """Rounds until the time is over, or something is wrong; the ledger is SQLite's, or with `postgres` a server's."""
    began = time.monotonic()
    with ExitStack() as stack:
        ledger = None
        if postgres:
            on = stack.enter_context(server())
            ledger = on.url(on.new_ledger())
        process = stack.enter_context(SandboxProcess(folder / "platform", on_repeat="keep"))
        one = Soak(folder / "project", seed, forkserver(), process, ledger)
        try:
            while one.result.fine and time.monotonic() - began < seconds:
                one.round()
        except (AssertionError, TidepostError, OSError) as error:
            one.result.wrong.append(repr(error))
    one.result.seconds = round(time.monotonic() - began, 1)
    return one.result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument(
        "--dir", type=Path, help="where to work, and to leave everything; default: a temporary folder"
    )
    given = parser.parse_args()
    fine = True
    with ExitStack() as stack:
        folder = given.dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidepost-soak-")))
        for name in ("sqlite", "postgresql"):
            postgres = name == "postgresql"
            result = soak(folder / name, seconds=given.seconds / 2, seed=given.seed, postgres=postgres)
            sys.stdout.write(json.dumps({"ledger": name, **asdict(result)}) + "\n")
            fine = fine and result.fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
