"""Runs of a job's DAG in every mode, on a platform that keeps whatever it is sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.airflow.running import Ran
from tests.world import KEY, START, World, after, row, rows

DAY = timedelta(days=1)
INTERVAL = (START.replace(hour=0), START.replace(hour=0) + DAY)
"""The day that the worlds' first rows are logged in."""


@pytest.fixture
def told() -> list[str]:
    """What people were told."""
    return []


@pytest.fixture
def dag(
    world: World, airflow_home: Path, told: list[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Any:
    """The DAG of the world's job, whose runs a test's environment reaches."""
    from tidepost.airflow import upload_dags  # noqa: PLC0415 - the fixture makes Airflow's settings first

    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    world.define(schedule="@daily", limits={"cut_rows": 30}, airflow={"retry_delay": "1s", "freshness": "2h"})

    def note(text: str, context: Mapping[str, Any]) -> None:
        told.append(text)

    prefix = f"{request.node.name}_"
    return upload_dags(world.root, prefix=prefix, notify=note)[f"{prefix}flights"]


@pytest.fixture
def go(dag: Any, run_dag: Callable[..., Ran]) -> Callable[..., Ran]:
    """Runs the DAG."""
    return lambda **how: run_dag(dag, **how)


def between(start: datetime, end: datetime, mode: str = "range", **more: Any) -> dict[str, Any]:
    return {"mode": mode, "from": start.isoformat(), "to": end.isoformat(), **more}


def test_a_scheduled_run_uploads_what_is_new_and_cleared_sends_nothing(
    world: World, go: Callable[..., Ran], capfd: pytest.CaptureFixture[str]
) -> None:
    world.log("monday", rows(50))
    ran = go(run_type="scheduled", interval=INTERVAL, run_id="first")
    assert ran.state == "success"
    assert ran.states == {
        **dict.fromkeys(("plan", "upload[0]", "upload[1]", "confirm"), "success"),
        "follow": "skipped",
    }
    assert ran.xcom("confirm")["arrived"] == 50
    world.log("tuesday", rows(10, first=50, at=after(hours=2)))
    capfd.readouterr()
    again = go(run_type="scheduled", interval=INTERVAL, run_id="first")
    assert again.state == "success"
    assert "this request was done before: nothing is sent" in capfd.readouterr().out
    assert world.everything_arrived_once(50), "what is new is the next run's"
    go(run_type="scheduled", interval=(INTERVAL[1], INTERVAL[1] + DAY))
    assert world.everything_arrived_once(60)


def test_a_backfill_looks_at_its_own_interval_and_again_when_it_is_reprocessed(
    world: World, go: Callable[..., Ran]
) -> None:
    world.log("days", [*rows(30), *rows(30, first=30, at=START + DAY)])
    assert go(run_type="backfill", interval=INTERVAL, run_id="one").state == "success"
    assert world.everything_arrived_once(30)
    world.log("late", [row(100, after(minutes=5))])
    assert go(run_type="backfill", interval=INTERVAL, run_id="one").state == "success"
    assert world.everything_arrived_once(31)
    assert go(run_type="scheduled", interval=(INTERVAL[1], INTERVAL[1] + DAY)).state == "success"
    assert world.everything_arrived_once(61)


def test_by_hand_a_range_is_uploaded_or_only_told_of(world: World, go: Callable[..., Ran]) -> None:
    world.log("monday", rows(50))
    dry = go(conf=between(START, after(minutes=30), dry_run=True))
    assert dry.state == "success"
    assert world.platform_rows() == 0
    assert go(conf=between(START, after(minutes=30))).state == "success"
    assert world.everything_arrived_once(30)


def test_by_hand_both_sides_are_compared_and_what_is_lost_is_sent_again(
    world: World, go: Callable[..., Ran], told: list[str]
) -> None:
    world.log("monday", rows(40))
    assert go(conf={}).state == "success"
    assert go(conf=between(START, after(hours=1), "reconcile", by_event=True)).state == "success"
    world.platform.process.lose(world.model_id, ["r000003", "r000025"])
    differs = go(conf={"mode": "reconcile"})
    assert (differs.state, differs.states["confirm"]) == ("failed", "failed")
    assert "2 lost at arthur" in told[0]
    assert go(conf={"mode": "resend"}).state == "success"
    assert world.everything_arrived_once(40)


def test_more_cuts_than_a_run_takes_are_the_next_run_s_which_is_triggered_once(
    world: World, dag: Any, go: Callable[..., Ran]
) -> None:
    dag.get_task("plan").most = 1
    world.log("monday", rows(90))
    first = go(run_type="scheduled", interval=INTERVAL, run_id="first")
    assert (first.state, first.states["follow"]) == ("success", "success")
    assert world.everything_arrived_once(30)
    assert triggered(dag) == ["part2__first"]
    assert go(run_type="scheduled", interval=INTERVAL, run_id="first").state == "success"
    assert triggered(dag) == ["part2__first"], "cleared, it triggers nothing more"
    second = go(run_id="part2__first")
    assert second.state == "success"
    assert triggered(dag) == ["part2__first", "part3__first"]
    third = go(run_id="part3__first")
    assert (third.state, third.states["follow"]) == ("success", "skipped")
    assert world.everything_arrived_once(90)


def test_a_range_of_more_cuts_goes_on_where_it_was_left(world: World, dag: Any, go: Callable[..., Ran]) -> None:
    dag.get_task("plan").most = 1
    world.log("monday", rows(60))
    assert go(run_type="backfill", interval=INTERVAL, run_id="one").states["follow"] == "success"
    assert world.everything_arrived_once(30)
    assert go(run_id="part2__one").states["follow"] == "skipped"
    assert world.everything_arrived_once(60)


def triggered(dag: Any) -> list[str]:
    """The runs that follow others, by their ids."""
    from airflow.models import DagRun  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415

    with create_session() as session:
        found = session.query(DagRun.run_id).filter(DagRun.dag_id == dag.dag_id)
        return sorted(run_id for (run_id,) in found if run_id.startswith("part"))


# -------------------------------------------------------------------------------------------------- failures


def test_what_no_retry_can_mend_fails_at_once_and_people_are_told_once(
    world: World, go: Callable[..., Ran], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARTHUR_API_KEY")
    ran = go(conf={}, run_id="mine")
    assert (ran.state, ran.states["plan"], ran.states["confirm"]) == ("failed", "failed", "failed")
    assert [one.try_number for one in ran.run.get_task_instances() if one.task_id == "plan"] == [1]
    (text,) = told
    assert text.startswith("The upload of flights failed: task plan of run mine\n")
    assert "destination.api_key: ARTHUR_API_KEY is not set in the environment" in text
    assert "export ARTHUR_API_KEY" in text
    assert KEY not in text


def test_a_form_that_does_not_go_together_is_refused_by_the_first_task(
    world: World, go: Callable[..., Ran], told: list[str]
) -> None:
    world.log("monday", rows(5))
    ran = go(conf={"mode": "range", "from": START.isoformat()})
    assert ran.states["plan"] == "failed"
    assert 'to is missing: mode "range" needs both' in told[0]
    assert world.platform_rows() == 0


def test_who_is_late_is_told_the_mark_by_what_the_triggerer_runs(
    world: World, dag: Any, go: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.triggers.callback import CallbackTrigger  # noqa: PLC0415

    (alert,) = dag.deadline

    async def missed() -> str:
        context = {"dag_run": {"dag_run_id": "scheduled__2024"}, "deadline": {}}
        trigger = CallbackTrigger(alert.callback.path, {**alert.callback.kwargs, "context": context})
        *_, last = [event async for event in trigger.run()]
        assert last.payload["state"] == "success", last.payload
        return str(last.payload["body"])

    assert asyncio.run(missed()) == (
        "flights is late: its run scheduled__2024 has not ended within 2h\n"
        "  Nothing was uploaded yet.\n"
        "  See:  tidepost status flights"
    )
    world.log("monday", rows(60))
    go(conf={})
    text = asyncio.run(missed())
    assert "arthur: the mark stands at 2024-05-01T12:59:00.000001Z, " in text
    assert " behind" in text
    (world.root / "tidepost.yaml").unlink()
    assert "Its mark cannot be read from here: " in asyncio.run(missed())
