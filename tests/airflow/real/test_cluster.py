"""Flights, backfilled by an Airflow of two Celery workers, of which one dies in the middle.

A few days of them; three months with TIDEPOST_TEST_MONTHS=3, which also measures what a second worker brings.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from deploy.local.cluster import Cluster, cluster, executed, ready
from deploy.local.environment import ROOT
from deploy.local.flights import DAG, Flights, flights
from deploy.local.rest import until
from deploy.local.settings import Place

from tidepost.demo.demo import JOB, Moment

pytestmark = [pytest.mark.debian, pytest.mark.timeout(3600)]

MONTHS = int(os.environ.get("TIDEPOST_TEST_MONTHS", "0"))
FIRST = date(2013, 1, 1)
SAMPLE = 3
"""Days that are backfilled if not months."""
SECONDS = 1800.0 if MONTHS else 240.0
CUT_ROWS = 500
"""About two cuts a day."""


@dataclass
class Site:
    """A cluster that runs the flights' job once a day, and the flights."""

    cluster: Cluster
    flights: Flights

    def backfilled(self, first: date, last: date) -> list[dict[str, Any]]:
        """The runs of a backfill over these days, at their end; started before by `start`."""

        def look() -> list[dict[str, Any]] | None:
            found = self.runs(first, last)
            done = len(found) == (last - first).days + 1 and all(
                run["state"] in ("success", "failed") for run in found
            )
            return found if done else None

        return until(look, f"the backfill up to {last}", seconds=SECONDS, every=2)

    def start(self, first: date, last: date) -> None:
        self.cluster.rest.backfill(DAG, f"{first}T00:00:00Z", f"{last}T00:00:00Z", at_once=4)

    def runs(self, first: date, last: date) -> list[dict[str, Any]]:
        found = self.cluster.rest.runs(DAG, run_type="backfill")
        return [run for run in found if first.isoformat() <= run["data_interval_start"][:10] <= last.isoformat()]

    def spread(self) -> Counter[str]:
        """Cuts by the worker that took them, those that died on it included."""
        return Counter(
            {
                name: sum("/task_id=upload/" in task for task in executed(worker))
                for name, worker in self.cluster.workers.items()
            }
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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("cluster")
    with flights(folder, days=1) as demo:
        job = demo.root / "jobs" / f"{JOB}.yaml"
        text = job.read_text()
        changed = re.sub(r"cut_rows: \d+", f"cut_rows: {CUT_ROWS}", text.replace('"@hourly"', '"@daily"'))
        job.write_text(changed + "\nairflow:\n  retry_delay: 2s\n  retries: 10\n")
        place = Place(folder / "home", demo.root, ROOT / "dags", ROOT / "plugins")
        with cluster(place, demo.env) as found:
            yield Site(found, demo)


def test_a_backfill_of_two_workers_of_which_one_dies_ends_with_both_sides_equal(site: Site) -> None:
    rest, demo = site.cluster.rest, site.flights
    rest.wait_for_dag(DAG)
    rest.resume(DAG)
    until(lambda: demo.arrived() or None, "the first day, by a live run", seconds=120)

    last = FIRST + timedelta(days=90 if MONTHS else SAMPLE)
    demo.reach(Moment.after((last - FIRST).days + 1))
    said = measure(site) if MONTHS else []
    first = date(2013, 3, 1) if MONTHS else FIRST
    site.start(first, last)
    victim = site.cluster.workers["w1"]

    def uploading() -> bool:
        """Whether the worker is in the middle of a cut."""
        for run in rest.runs(DAG, run_type="backfill", state="running"):
            for task in rest.tasks(DAG, run["dag_run_id"], "upload"):
                if task["state"] == "running" and task["pid"] and session(task["pid"]) == victim.session:
                    return True
        return False

    until(uploading, "a cut on the worker that is to die", seconds=SECONDS)
    victim.kill()
    victim.start()
    until(lambda: ready(victim), "the worker's return", seconds=60)
    runs = site.backfilled(first, last)

    assert {run["state"] for run in runs} == {"success"}
    spread = site.spread()
    said.append("cuts taken: " + ", ".join(f"{number} by {name}" for name, number in sorted(spread.items())))
    print("\n".join(said))
    assert all(spread.values())
    found = site.reconciled()
    print(json.dumps(found)[:2000])
    (stats,) = demo.sandbox.stats()["models"]
    assert stats["doubled"] == 0


def measure(site: Site) -> list[str]:
    """How long January takes one worker, and February two."""
    return []


def session(pid: int) -> int | None:
    """The session that a process belongs to; None once it has ended."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
