"""Flights, backfilled by an Airflow of two Celery workers, of which one dies in the middle.

Three days of them; three months with TIDEPOST_TEST_MONTHS=1, which also measures what a second worker brings.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from deploy.local.cluster import Cluster, cluster, executed, ready
from deploy.local.environment import ROOT
from deploy.local.flights import DAG, Flights, flights
from deploy.local.guard import belongs
from deploy.local.program import Program
from deploy.local.rest import Rest, until
from deploy.local.settings import Place

from tidepost.demo.demo import JOB, Moment
from tidepost.sandbox.settings import Fault

pytestmark = [pytest.mark.debian, pytest.mark.timeout(3600)]

MONTHS = os.environ.get("TIDEPOST_TEST_MONTHS") == "1"
FIRST = date(2013, 1, 1)
MARCH = date(2013, 3, 1)
LAST = date(2013, 3, 31) if MONTHS else date(2013, 1, 3)
SCHEDULE, CUT_ROWS = ("0 0 1,11,21 * *", 1000) if MONTHS else ("@daily", 500)
SECONDS = 1800.0 if MONTHS else 240.0
FAR_AWAY = 3.0
"""Seconds that a platform far away takes for each file."""


@dataclass
class Site:
    """A cluster that runs the flights' job on a schedule of its own, and the flights."""

    cluster: Cluster
    flights: Flights

    @property
    def rest(self) -> Rest:
        return self.cluster.rest

    def backfill(self, first: date, last: date) -> list[str]:
        """Start a backfill over these days; returns the ids of its runs."""
        before = {run["dag_run_id"] for run in self.rest.runs(DAG)}
        self.rest.backfill(DAG, f"{first}T00:00:00Z", f"{last}T00:00:00Z", at_once=4)
        runs = self.rest.runs(DAG, run_type="backfill")
        return [run["dag_run_id"] for run in runs if run["dag_run_id"] not in before]

    def ended(self, runs: Sequence[str]) -> set[str]:
        """How these runs ended, once they have."""
        return {self.rest.finished(DAG, run, seconds=SECONDS)["state"] for run in runs}

    def spread(self) -> Counter[str]:
        """Cuts by the worker that took them, those that died on it included."""
        return Counter(
            {
                name: sum("/task_id=upload/" in task for task in executed(worker))
                for name, worker in self.cluster.workers.items()
            }
        )

    def uploads_on(self, worker: Program, runs: Sequence[str]) -> bool:
        """Whether a worker is in the middle of a cut."""
        tasks = (task for run in runs for task in self.rest.tasks(DAG, run, "upload"))
        return any(
            task["state"] == "running" and task["pid"] and belongs(task["pid"], worker.session) for task in tasks
        )

    def reconciled(self) -> dict[str, Any]:
        """What `tidepost reconcile` says, of everything, run beside the cluster."""
        done = subprocess.run(
            [Path(sys.executable).with_name("tidepost"), "reconcile", JOB, "--json"],
            cwd=self.flights.root,
            env=self.cluster.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def logged(self, until: date) -> int:
        """Rows of the log up to the end of a day, in UTC."""
        end = datetime.combine(until + timedelta(days=1), datetime.min.time(), UTC)
        rows = ds.dataset(self.flights.root / "log" / JOB).count_rows(filter=ds.field("logged_at") < end)
        return int(rows)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("cluster")
    with flights(folder, days=1) as demo:
        job = demo.root / "jobs" / f"{JOB}.yaml"
        text = job.read_text().replace('"@hourly"', f'"{SCHEDULE}"')
        text = re.sub(r"cut_rows: \d+", f"cut_rows: {CUT_ROWS}", text)
        job.write_text(f"{text}\nairflow:\n  retry_delay: 2s\n")
        place = Place(folder / "home", demo.root, ROOT / "dags", ROOT / "plugins")
        running = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False"}
        with cluster(place, demo.env | running) as found:
            yield Site(found, demo)


def test_a_backfill_of_two_workers_of_which_one_dies_ends_with_both_sides_equal(site: Site) -> None:
    demo, victim = site.flights, site.cluster.workers["w1"]
    site.rest.wait_for_dag(DAG)
    until(demo.arrived, "the first day, by a live run", seconds=SECONDS)
    demo.reach(Moment.after((LAST - FIRST).days + 1))
    said = measured(site) if MONTHS else []

    far_away(demo)  # so that both workers have something to do, and the one that dies is in the middle of it
    runs = site.backfill(MARCH if MONTHS else FIRST, LAST)
    until(lambda: site.uploads_on(victim, runs), "a cut on the worker that is to die", seconds=SECONDS)
    victim.kill()
    demo.sandbox.configure(faults=[])
    victim.start()
    assert site.ended(runs) == {"success"}

    spread = site.spread()
    said.append("cuts taken: " + ", ".join(f"{number} by {name}" for name, number in sorted(spread.items())))
    print("", *said, sep="\n")
    assert all(spread.values())
    found = site.reconciled()
    arrived = found["total"]["at"]["arthur"]
    assert found["agrees"]
    assert found["total"]["source"] == arrived["arrived"] == site.logged(LAST)
    assert arrived["doubled"] == 0


def far_away(demo: Flights) -> None:
    """Let the platform take its time for each file."""
    demo.sandbox.fault(Fault("delay", kind="file", seconds=FAR_AWAY))


def measured(site: Site) -> list[str]:
    """How many rows a second one worker brings in January, and two in February, to a platform far away."""
    second = site.cluster.workers["w2"]
    far_away(site.flights)
    second.stop()
    alone = _rate(site, FIRST, date(2013, 1, 31))
    second.start()
    until(lambda: ready(second), "the second worker", seconds=SECONDS)
    both = _rate(site, date(2013, 2, 1), date(2013, 2, 28))
    site.flights.sandbox.configure(faults=[])
    return [f"rows a second: {alone:.0f} by one worker, {both:.0f} by two: {both / alone:.2f} times as many"]


def _rate(site: Site, first: date, last: date) -> float:
    """Rows that arrive a second while these days are backfilled."""
    runs = site.backfill(first, last)
    before, began = site.flights.arrived(), time.monotonic()
    assert site.ended(runs) == {"success"}
    return (site.flights.arrived() - before) / (time.monotonic() - began)
