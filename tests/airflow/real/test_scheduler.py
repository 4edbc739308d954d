"""Runs of a real Airflow: its own scheduler, workers, triggerer and database, asked over REST as people ask it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from deploy.local.environment import ROOT
from deploy.local.guard import belongs
from deploy.local.program import Program
from deploy.local.rest import Rest, until
from deploy.local.settings import Place
from deploy.local.standalone import standalone
from tests.airflow.real.uploads import Upload
from tests.world import KEY, Platform, after, rows

from tidepost.sandbox.process import SandboxProcess
from tidepost.sandbox.settings import Fault

pytestmark = pytest.mark.timeout(400)

MINUTES = 300
"""Rows of a job's log, one a minute from the world's start."""
SECONDS = 150.0
WINDOW = {"from": f"{after():%FT%TZ}", "to": f"{after(hours=1):%FT%TZ}"}
"""The first hour of a log."""


@dataclass
class Real:
    """An Airflow, and the jobs that it runs, by name."""

    rest: Rest
    program: Program
    jobs: dict[str, Upload]

    def ran(self, dag: str, **asked: Any) -> str:
        """The id of a run by hand that has come to a good end."""
        run = self.rest.trigger(dag, **asked)
        self.succeeded(dag, run)
        return run

    def succeeded(self, dag: str, run: str) -> None:
        """Return at a run's end, which is a good one."""
        ended = self.rest.finished(dag, run, seconds=SECONDS)
        assert ended["state"] == "success", self.told(dag, run)

    def first_run(self, dag: str, kind: str) -> str:
        """The id of a DAG's first run of a type, once there is one."""

        def look() -> str | None:
            return next((str(run["dag_run_id"]) for run in self.rest.runs(dag, run_type=kind)), None)

        return until(look, f"a {kind} run of {dag}", seconds=SECONDS)

    def told(self, dag: str, run: str) -> str:
        """What the tasks of a run wrote into their logs."""
        parts = []
        for one in self.rest.tasks(dag, run):
            name, index = one["task_id"], one["map_index"]
            log = self.rest.log(dag, run, name, index=index, attempt=one["try_number"]) if one["try_number"] else ""
            parts.append(f"--- {name}[{index}] {one['state']}\n{log}")
        return "\n".join(parts)


@pytest.fixture(scope="module")
def real(_process: SandboxProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("real")
    project, platform = folder / "project", Platform(_process)
    jobs = {
        "hourly": Upload.define(project, "hourly", platform, cut_rows=150),
        "backfilled": Upload.define(project, "backfilled", platform),
        "killed": Upload.define(project, "killed", platform, cut_rows=150, schedule=None),
        "asked": Upload.define(project, "asked", platform, schedule=None),
    }
    for job in jobs.values():
        job.log("monday", rows(MINUTES))
    place = Place(folder / "home", project, ROOT / "dags", ROOT / "plugins")
    with standalone(place, {"SANDBOX_URL": platform.url, "ARTHUR_API_KEY": KEY}) as running:
        for job in jobs.values():
            running.rest.wait_for_dag(job.dag)
        yield Real(running.rest, running.program, jobs)


@pytest.fixture(scope="module")
def begun(real: Real) -> dict[str, str]:
    """What takes long has begun, side by side: the runs of three jobs, by their job."""
    hourly, backfilled, asked = (real.jobs[name].dag for name in ("hourly", "backfilled", "asked"))
    real.rest.backfill(backfilled, f"{after():%FT%TZ}", f"{after(hours=1):%FT%TZ}")
    for dag in (hourly, backfilled, asked):
        real.rest.resume(dag)
    return {
        "backfilled": real.rest.trigger(backfilled),
        "asked": real.rest.trigger(asked, mode="range", dry_run=True, **WINDOW),
        "hourly": real.first_run(hourly, "scheduled"),
    }


def test_a_task_that_is_killed_in_mid_upload_is_finished_by_its_retry(real: Real, platform: Platform) -> None:
    job = real.jobs["killed"]
    platform.process.fault(Fault("delay", kind="file", count=1, seconds=30))
    real.rest.resume(job.dag)
    run = real.rest.trigger(job.dag)
    until(lambda: job.deliveries().get("sending"), "a file that is being sent", seconds=SECONDS)
    sending = until(
        lambda: [one for one in real.rest.tasks(job.dag, run, "upload") if one["state"] == "running" and one["pid"]],
        "its task",
        seconds=20,
    )
    for one in sending:
        assert belongs(one["pid"], real.program.session)
        os.kill(one["pid"], signal.SIGKILL)
    real.succeeded(job.dag, run)
    tries = [one["try_number"] for one in real.rest.tasks(job.dag, run, "upload")]
    assert max(tries) > 1
    assert job.held() == (MINUTES, MINUTES, 0)
    assert set(job.deliveries()) == {"closed"}


def test_a_scheduled_run_uploads_and_clearing_it_sends_nothing(real: Real, begun: dict[str, str]) -> None:
    job, run = real.jobs["hourly"], begun["hourly"]
    real.succeeded(job.dag, run)
    assert job.held() == (MINUTES, MINUTES, 0)
    assert len(real.rest.tasks(job.dag, run, "upload")) > 1

    offered = job.repeats_offered()
    real.rest.clear(job.dag, run)
    real.succeeded(job.dag, run)
    assert job.held() == (MINUTES, MINUTES, 0)
    assert job.repeats_offered() == offered
    assert "this request was done before: nothing is sent" in real.told(job.dag, run)


def test_what_arrived_is_an_event_of_its_asset_and_the_mark_is_there_to_read(
    real: Real, begun: dict[str, str]
) -> None:
    job, rest = real.jobs["hourly"], real.rest
    real.succeeded(job.dag, begun["hourly"])
    name = f"{job.name}/inferences"
    (asset,) = (one["id"] for one in rest.get("/assets", name_pattern=name)["assets"] if one["name"] == name)
    event = rest.get("/assets/events", asset_id=asset, order_by="timestamp")["asset_events"][0]["extra"]
    assert event["rows"] == MINUTES
    mirror = rest.get(f"/assets/{asset}/state-store")["asset_state_store"]
    assert {one["key"]: one["value"] for one in mirror} == {"high_water_mark": event["mark"]}


def test_a_backfill_beside_live_runs_sends_every_row_once(real: Real, begun: dict[str, str]) -> None:
    job = real.jobs["backfilled"]
    real.succeeded(job.dag, begun["backfilled"])
    until(lambda: len(real.rest.runs(job.dag, run_type="backfill")) == 2, "the backfill's runs", seconds=SECONDS)
    runs = real.rest.runs(job.dag)
    for run in runs:
        real.succeeded(job.dag, run["dag_run_id"])
    assert {run["run_type"] for run in runs} == {"backfill", "manual", "scheduled"}
    assert job.held() == (MINUTES, MINUTES, 0)
    assert job.repeats_offered() == 0


@pytest.mark.parametrize(
    "wrong", [{"mode": "everything"}, {"dry_run": "perhaps"}, {"from": 7}], ids=["mode", "dry run", "from"]
)
def test_the_form_refuses_a_wrong_value(real: Real, wrong: dict[str, Any]) -> None:
    job = real.jobs["asked"]
    before = len(real.rest.runs(job.dag))
    answer = real.rest.answer("POST", f"/dags/{job.dag}/dagRuns", {"logical_date": None, "conf": wrong})
    assert 400 <= answer.status_code < 500
    assert len(real.rest.runs(job.dag)) == before


def test_a_run_by_hand_does_what_its_form_says(real: Real, begun: dict[str, str]) -> None:
    job = real.jobs["asked"]
    real.succeeded(job.dag, begun["asked"])
    assert job.held() == (0, 0, 0)
    real.ran(job.dag, mode="range", **WINDOW)
    assert job.held() == (60, 60, 0)
    job.platform.process.lose(job.model_id, [f"r{number:06d}" for number in range(10)])
    assert job.held() == (50, 50, 0)
    real.ran(job.dag, mode="resend", **WINDOW)
    assert job.held() == (60, 60, 0)
    said = real.told(job.dag, real.ran(job.dag, mode="reconcile", **WINDOW))
    assert re.search(r"arrived +60", said), said
    assert re.search(r"lost +0", said), said
