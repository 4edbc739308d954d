"""The tasks of an upload, as Airflow runs them: each mode, again, cleared, and in parts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.airflow.running import Ran
from tests.world import KEY, START, World, after, rows

from tidepost.errors import Retryable
from tidepost.sandbox.settings import Fault

DAY = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC)
NEXT_DAY = DAY[1], datetime(2024, 5, 3, tzinfo=UTC)


@pytest.fixture
def world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that tasks find: its variables are this process's."""
    world.define(limits={"cut_rows": 100})
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    return world


@pytest.fixture
def go(run_dag: Callable[..., Ran], world: World, request: pytest.FixtureRequest) -> Callable[..., Ran]:
    """Runs plan, upload and confirm, as a job's own DAG has them; `most` cuts a run."""
    from airflow.sdk import DAG  # noqa: PLC0415 - the fixture makes its settings first

    from tidepost.airflow.operators import ConfirmOperator, CutOperator, PlanOperator  # noqa: PLC0415

    def run(*, most: int = 500, deadline: float | None = None, **how: Any) -> Ran:
        here = {"job": "jobs/flights.yaml", "project": str(world.root)}
        form = {"mode": "incremental", "from": None, "to": None, "by_event": False, "dry_run": False}
        with DAG(request.node.originalname, schedule=None, params=form) as dag:
            plan = PlanOperator(task_id="plan", most=most, **here)
            upload = CutOperator.partial(task_id="upload", **here).expand(cut=plan.output)
            upload >> ConfirmOperator(task_id="confirm", deadline=deadline, **here)
            plan >> dag.get_task("confirm")
        return run_dag(dag, **how)

    return run


@pytest.fixture
def alone(run_dag: Callable[..., Ran], world: World, request: pytest.FixtureRequest) -> Callable[..., Ran]:
    """Runs one task of a hand-written DAG."""
    from airflow.sdk import DAG  # noqa: PLC0415

    from tidepost.airflow import operators  # noqa: PLC0415

    def run(kind: str, *, how: dict[str, Any] | None = None, **options: Any) -> Ran:
        with DAG(request.node.originalname, schedule=None) as dag:
            getattr(operators, kind)(task_id="it", job="flights", project=str(world.root), **options)
        return run_dag(dag, **(how or {}))

    return run


def test_a_run_uploads_what_is_new_a_task_for_each_cut(
    go: Callable[..., Ran], world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.log("monday", rows(250, every=20))
    ran = go(run_id="first")
    assert ran.states == {f"upload[{n}]": "success" for n in range(3)} | {"plan": "success", "confirm": "success"}
    assert world.everything_arrived_once(250)
    assert ran.xcom("confirm")["arrived"] == 250
    each = [ran.xcom("upload", index=n) for n in range(3)]
    assert [(one["cut"], one["rows"], one["rejected"]) for one in each] == [(1, 100, 0), (2, 100, 0), (3, 50, 0)]
    assert all(isinstance(value, int | float) for one in each for value in one.values()), "ids and counts only"
    log = told(capfd)
    assert "cut 2 2024-05-01T12:33:20Z → 2024-05-01T13:06:40Z: 100 rows published as slice" in log
    assert "rows arrived                            250" in log
    assert KEY not in log


def test_a_run_that_is_cleared_says_that_it_was_done_and_sends_nothing(go: Callable[..., Ran], world: World) -> None:
    world.log("monday", rows(150, every=20))
    go(run_id="same")
    world.log("tuesday", rows(50, first=150, at=after(hours=5)))
    again = go(run_id="same")
    assert again.xcom("plan", "begun")["closed"]
    assert again.xcom("plan") == []
    assert again.state == "success"
    assert world.everything_arrived_once(150)
    go(run_id="other")
    assert world.everything_arrived_once(200)


def test_a_run_that_failed_goes_on_with_the_same_cuts_when_it_is_cleared(
    go: Callable[..., Ran], world: World
) -> None:
    world.log("monday", rows(150, every=20))
    world.platform.process.fault(Fault("fail", kind="file", status=429))
    first = go(run_id="again", deadline=0)
    assert first.state == "failed"
    cuts = first.xcom("plan")
    world.platform.reset()
    world.log("tuesday", rows(50, first=150, at=after(hours=5)))
    second = go(run_id="again")
    assert second.state == "success"
    begun = second.xcom("plan", "begun")
    assert sorted([*begun["done"], *second.xcom("plan")]) == cuts
    assert world.everything_arrived_once(150)


@pytest.mark.parametrize(("mended", "tries"), [(False, 1), (True, 3)])
def test_what_no_retry_can_mend_fails_at_once_and_the_rest_is_tried_again(
    alone: Callable[..., Ran], world: World, mended: bool, tries: int
) -> None:
    from tidepost.airflow.policy import Retries  # noqa: PLC0415 - it imports Airflow

    world.log("monday", rows(10))
    if mended:
        world.platform.process.fault(Fault("fail", kind="any", status=503))
    else:
        world.define(mapping={"inputs": ["distance", "carrier", "nothing"]})
    ran = alone("UploadOperator", retries=2, retry_delay=0, retry_policy=Retries())
    assert ran.states["it"] == "failed"
    assert ran.run.get_task_instance("it").try_number == tries


def test_a_run_takes_so_many_cuts_and_says_that_more_remain(go: Callable[..., Ran], world: World) -> None:
    world.log("monday", rows(150, every=20))
    first = go(most=1, run_id="first")
    assert len(first.xcom("plan")) == 1
    assert first.xcom("plan", "begun")["more"]
    second = go(most=1, run_id="second")
    assert not second.xcom("plan", "begun")["more"]
    assert world.everything_arrived_once(150)


def test_a_backfill_scans_its_own_interval(go: Callable[..., Ran], world: World) -> None:
    world.log("monday", rows(100, every=20))
    world.log("tuesday", rows(100, first=100, at=after(hours=14), every=20))
    go(run_type="backfill", interval=NEXT_DAY, run_id="tuesday")
    assert world.everything_arrived_once(100)
    assert world.mark() == "2024-05-01T00:00:00Z"
    go(run_type="backfill", interval=DAY, run_id="monday")
    assert world.everything_arrived_once(200)


def test_a_range_by_hand_is_planned_in_parts(go: Callable[..., Ran], world: World) -> None:
    world.log("monday", rows(150, every=20))
    form = {"mode": "range", "from": "2024-05-01T12:00Z", "to": "2024-05-01T20:00Z"}
    first = go(most=1, conf=form, run_id="first").xcom("plan", "begun")
    assert first["more"]
    assert first["rest"][1] == "2024-05-01T20:00:00Z"
    second = go(most=1, conf=form | {"from": first["rest"][0]}, run_id="second").xcom("plan", "begun")
    assert (second["more"], second["rest"]) == (False, None)
    assert world.everything_arrived_once(150)


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    go: Callable[..., Ran], world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.log("monday", rows(250, every=20))
    ran = go(conf={"dry_run": True})
    assert "would scan incremental 2024-05-01T00:00Z → 2024-05-01T12:33:20Z: about 100 rows" in told(capfd)
    assert ran.state == "success"
    assert ran.xcom("plan") == []
    assert ran.xcom("plan", "begun")["rows"] == 250
    assert not (world.root / ".tidepost" / "ledger.db").exists()
    assert world.platform_rows() == 0


def test_all_sides_are_compared_and_what_a_platform_lost_is_sent_again(go: Callable[..., Ran], world: World) -> None:
    world.log("monday", rows(150, every=20))
    go(run_id="first")
    assert go(conf={"mode": "reconcile"}, run_id="same").xcom("confirm")["published"] == 150
    world.platform.process.lose(world.model_id, world.ids()[:5])
    assert go(conf={"mode": "reconcile"}, run_id="differs").states["confirm"] == "failed"
    assert go(conf={"mode": "resend", "dry_run": True}, run_id="dry").state == "success"
    assert world.platform_rows() == 145
    assert go(conf={"mode": "resend"}, run_id="resend").state == "success"
    assert world.everything_arrived_once(150)


def test_a_slice_that_is_held_fails_the_run_after_everything_else_was_delivered(
    go: Callable[..., Ran], world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.define(limits={"rejects": 0})
    bad = rows(100, at=START, every=20, score=None)
    world.log("monday", [*bad, *rows(100, first=100, at=after(hours=2), every=20)])
    ran = go()
    assert ran.states["confirm"] == "failed"
    assert world.platform_rows() == 100
    held = ran.xcom("upload", index=0)["slice"]
    assert f'tidepost release flights {held} --why "…"' in told(capfd)


def test_a_cut_that_was_left_is_done_by_confirm(
    go: Callable[..., Ran], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidepost.airflow.operators import CutOperator  # noqa: PLC0415 - it imports Airflow

    world.log("monday", rows(150, every=20))
    execute = CutOperator.execute

    def dead(self: Any, context: Any) -> Any:
        if self.cut == 1:
            raise Retryable("gone")
        return execute(self, context)

    monkeypatch.setattr(CutOperator, "execute", dead)
    ran = go()
    assert (ran.states["upload[0]"], ran.states["confirm"]) == ("failed", "success")
    assert world.everything_arrived_once(150)


def test_what_does_not_load_is_waited_for_and_fails_with_what_is_missing_at_the_deadline(
    go: Callable[..., Ran], world: World, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidepost.airflow import acts  # noqa: PLC0415 - it imports the engine

    looked = acts.settle

    def loading_after(*args: Any, **options: Any) -> Any:
        standing = looked(*args, **options)
        world.platform.process.configure(loading_delay=0)
        return standing

    world.log("monday", rows(100, every=20))
    world.define(destination={"loading": "60s"})
    world.platform.process.configure(loading_delay=600)
    with monkeypatch.context() as patch:
        patch.setattr(acts, "settle", loading_after)
        assert go(run_id="first").state == "success"
    assert "looking again in" in told(capfd)
    world.log("tuesday", rows(100, first=100, at=after(hours=5), every=20))
    world.platform.process.configure(loading_delay=600)
    assert go(run_id="second", deadline=0).states["confirm"] == "failed"
    assert "100 rows of 1 delivery and 0 cuts are missing" in told(capfd)


def test_one_task_uploads_a_job_in_as_many_parts_as_it_takes(alone: Callable[..., Ran], world: World) -> None:
    world.log("monday", rows(350, every=20))
    ran = alone("UploadOperator", most=2)
    assert ran.xcom("it")["arrived"] == 350
    assert world.everything_arrived_once(350)
    again = alone("UploadOperator", start="2024-05-01 12:00:00+00:00", end="{{ '2024-05-01T20:00Z' }}", most=2)
    assert (again.state, again.xcom("it")["rows"]) == ("success", 0)


def test_one_task_compares_all_sides(alone: Callable[..., Ran], world: World) -> None:
    world.log("monday", rows(50))
    assert alone("ReconcileOperator", how={"run_id": "before"}).state == "failed"
    alone("UploadOperator", how={"run_id": "upload"})
    ran = alone("ReconcileOperator", how={"run_id": "compare"}, start="2024-05-01", end="2024-05-03", by_event=True)
    assert ran.xcom("it")["published"] == 50


def test_a_task_that_is_told_to_end_leaves_the_rest_for_the_next_try(
    go: Callable[..., Ran], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidepost.airflow import acts  # noqa: PLC0415 - it imports the engine
    from tidepost.airflow.operators import CutOperator  # noqa: PLC0415

    world.log("monday", rows(50))
    plain = acts.upload

    def killed(it: Any, cut: int, null_cursors: int, *, tell: Any, stop: Any) -> Any:
        running[-1].on_kill()
        return plain(it, cut, null_cursors, tell=tell, stop=stop)

    execute = CutOperator.execute

    def remembered(self: Any, context: Any) -> Any:
        running.append(self)
        return execute(self, context)

    running: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(acts, "upload", killed)
        patch.setattr(acts, "settle", lambda *_, **__: pytest.fail("not reached"))
        patch.setattr(CutOperator, "execute", remembered)
        assert go(run_id="killed").states["upload[0]"] == "failed"
    assert world.platform_rows() == 0
    assert go(run_id="killed").state == "success"
    assert world.everything_arrived_once(50)


def told(capfd: pytest.CaptureFixture[str]) -> str:
    """What was logged since it was asked last."""
    out, err = capfd.readouterr()
    return out + err
