"""Labels on Airflow: in the DAG of their job or in one of their own, from files too, and whatever becomes of the
inferences."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.airflow.running import Ran
from tests.labels import LANDED, label, labels, of_labels, run_both, shown
from tests.world import START, World, after, rows

from tidepost.airflow.asked import Asked, asked
from tidepost.airflow.telling import Teller
from tidepost.errors import Misconfigured

DAY = timedelta(days=1)
INTERVAL = (START.replace(hour=0), START.replace(hour=0) + DAY)
GROUP = ("ground_truth.plan", "ground_truth.upload[0]", "ground_truth.confirm")


@pytest.fixture
def world(world: World, airflow_home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> World:
    """A world whose labels are dropped as well, in an Airflow that tells it from those of other tests."""
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    (world.root / "drops").mkdir()
    of_labels(world, files="drops/*.csv")
    world.define(schedule="@daily", limits={"cut_rows": 30}, airflow={"retry_delay": "1s", "retries": 0})
    return world


@pytest.fixture
def dags(world: World, request: pytest.FixtureRequest) -> Callable[[], dict[str, Any]]:
    """The DAGs of the world's job as it is defined now, by what follows the prefix."""
    from tidepost.airflow import upload_dags  # noqa: PLC0415 - the fixture makes Airflow's settings first

    prefix = f"{request.node.name}_"
    return lambda: {name.removeprefix(prefix): dag for name, dag in upload_dags(world.root, prefix=prefix).items()}


@pytest.fixture
def go(dags: Callable[[], dict[str, Any]], run_dag: Callable[..., Ran]) -> Callable[..., Ran]:
    """Runs a DAG of the job's."""
    return lambda name="flights", **how: run_dag(dags()[name], **how)


def drop(world: World, name: str, *lines: str, at: float | None = None, folder: str = "drops") -> Path:
    """A CSV file of labels, last modified an hour ago unless told."""
    path = world.root / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["id,late,landed_at", *lines]) + "\n")
    modified = time.time() - 3600 if at is None else at
    os.utime(path, (modified, modified))
    return path


def line(number: int, late: int) -> str:
    return f"r{number:06d},{late},2024-05-01T15:00:00Z"


def events(uri: str) -> list[dict[str, Any]]:
    """What the events of an asset hold, newest last."""
    from airflow.models.asset import AssetEvent, AssetModel  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415

    with create_session() as session:
        found = session.query(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return [dict(one.extra) for one in found.filter(AssetModel.uri == uri).order_by(AssetEvent.id)]


def test_labels_of_query_and_files_go_in_the_same_run_after_the_inferences(
    world: World, go: Callable[..., Ran], capfd: pytest.CaptureFixture[str]
) -> None:
    from tidepost.airflow.deadline import late_text  # noqa: PLC0415

    world.define(name="after_inferences")
    world.log("monday", rows(20))
    labels(world, "monday", [label(0, 7), label(1, 0), label(99, 1)])
    drop(world, "week.csv", line(2, 5))
    ran = go("after_inferences", run_type="scheduled", interval=INTERVAL, run_id="first")
    expected = dict.fromkeys(("plan", "upload[0]", "confirm", *GROUP, "ground_truth.upload[1]"), "success")
    assert ran.states == expected | {"follow": "skipped", "ground_truth.follow": "skipped"}
    assert shown(world) == {"r000000": 7, "r000001": 0, "r000002": 5}
    assert (ran.xcom("confirm")["arrived"], ran.xcom("ground_truth.confirm")["arrived"]) == (20, 3)
    assert ran.xcom("ground_truth.confirm")["waiting"] == 1
    assert [one["rows"] for one in events("tidepost://after_inferences/ground_truth")] == [3]
    assert "after_inferences, ground truth: 2 cuts" in capfd.readouterr().out
    late = late_text("after_inferences", 60.0, "first", str(world.root))
    assert "arthur, inferences: the mark stands at" in late
    assert "arthur, ground truth: the mark stands at" in late
    labels(world, "tuesday", [label(3, 1)])
    again = go("after_inferences", run_type="scheduled", interval=INTERVAL, run_id="first")
    assert again.xcom("ground_truth.plan", "begun")["closed"]
    assert len(shown(world)) == 3, "what is new is the next run's"


def test_labels_go_though_some_inferences_do_not_and_what_waits_arrives_in_a_later_run(
    world: World, go: Callable[..., Ran], capfd: pytest.CaptureFixture[str]
) -> None:
    world.define(name="held_back", limits={"cut_rows": 10, "rejects": 0})
    world.log("monday", [*rows(9), *rows(1, first=9, at=after(minutes=9), score=None)])
    world.log("later", rows(10, first=10, at=after(hours=2)))
    labels(world, "monday", [label(0, 7), label(12, 3, known=LANDED + timedelta(hours=1))])
    world.define(ground_truth={"limits": {"cut_rows": 1}})
    ran = go("held_back", run_id="one")
    assert (ran.state, ran.states["confirm"]) == ("failed", "failed")
    assert ran.states["ground_truth.confirm"] == "success"
    assert shown(world) == {"r000012": 3}
    assert ran.xcom("ground_truth.confirm")["arrived"] == 1
    assert "deliveries whose turn is later" in capfd.readouterr().out
    with world.ledger() as ledger:
        stream = ledger.plans.find("held_back", "inferences")  # type: ignore[arg-type]
        (held,) = ledger.deliveries.held(stream, "arthur")  # type: ignore[arg-type]
        ledger.deliveries.release(stream, held.sequence, who="me", why="let it go")  # type: ignore[arg-type]
    ran = go("held_back", run_id="two")
    assert ran.state == "success"
    assert shown(world) == {"r000000": 7, "r000012": 3}
    assert ran.xcom("ground_truth.confirm")["arrived"] == 1
    assert [one["rows"] for one in events("tidepost://held_back/ground_truth")] == [1, 1]


def test_labels_with_a_schedule_of_their_own_have_their_own_dag(
    world: World, go: Callable[..., Ran], dags: Callable[[], dict[str, Any]]
) -> None:
    world.define(
        ground_truth={"schedule": "30 4 * * *", "limits": {"cut_rows": 1}},
        timezone="Europe/Berlin",
        airflow={"freshness": "2h"},
    )
    made = dags()
    assert set(made) == {"flights", "flights_ground_truth"}
    assert "ground_truth.plan" not in made["flights"].task_ids
    own = made["flights_ground_truth"]
    assert own.task_ids == ["plan", "upload", "confirm", "follow"]
    assert (own.timetable.expression, str(own.timetable.timezone)) == ("30 4 * * *", "Europe/Berlin")
    assert [dag.deadline[0].callback.kwargs.get("stream") for dag in made.values()] == ["inferences", "ground_truth"]
    assert list(own.params.get_param("mode").schema["enum"]) == ["incremental", "range", "resend", "reconcile"]
    world.log("monday", rows(20))
    labels(world, "monday", [label(n, n, known=LANDED + timedelta(minutes=n)) for n in range(2)])
    world.run()
    span = {"mode": "range", "from": LANDED.isoformat(), "to": (LANDED + timedelta(seconds=30)).isoformat()}
    assert go("flights_ground_truth", conf=span).state == "success"
    assert shown(world) == {"r000000": 0}
    assert go("flights_ground_truth").state == "success"
    assert shown(world) == {"r000000": 0, "r000001": 1}


def test_what_a_platform_lost_of_labels_is_told_of_and_sent_again(
    world: World, go: Callable[..., Ran], capfd: pytest.CaptureFixture[str]
) -> None:
    from tidepost.airflow import ReconcileOperator, acts, comparing  # noqa: PLC0415 - the fixture makes its settings
    from tidepost.airflow.world import opened  # noqa: PLC0415

    world.define(destination={"loading": "1s", "poll": "1s"})
    world.log("monday", rows(5))
    world.run()
    teller, here = Teller(logging.getLogger()), (str(world.root), "flights")
    with opened(*here, stream="ground_truth", looking=True) as it:
        assert comparing.compare(it, None, None, by_event=False, tell=teller) == {}, "labels never ran"
    labels(world, "a", [label(n, 1) for n in range(3)])
    drop(world, "week.csv", line(3, 5), at=START.timestamp())
    run_both(world)
    labels(world, "b", [label(0, 2, known=LANDED + timedelta(hours=1))])
    run_both(world)
    found = {"r000000": 2, "r000001": 1, "r000002": 1, "r000003": 5}
    assert shown(world) == found

    lost = ["r000000", "r000003"]
    assert world.platform.process.lose(world.model_id, lost, stream="ground_truth") == 2
    ran = go(conf={"mode": "reconcile"}, run_id="compared")
    assert (ran.states["confirm"], ran.states["ground_truth.confirm"]) == ("success", "failed")
    told = capfd.readouterr().out
    assert "flights, ground truth: of 4 rows 2 lost at arthur" in told
    assert "tidepost reconcile flights --stream ground_truth --repair" in told
    assert not form(mode="resend", stream="ground_truth").concerns("inferences")
    day = {"from": "2024-05-02T00:00:00Z", "to": "2024-05-03T00:00:00Z", "by_event": True}
    with opened(*here, stream="ground_truth") as it:
        for what in (form(mode="resend", dry_run=True), form(mode="resend", **day)):
            assert acts.begin(it, what, most=500, tell=teller).done == ()
    world.platform.process.lose(world.model_id, ["r000004"])
    ran = go(conf={"mode": "resend"}, run_id="again")
    assert ran.state == "success"
    assert (shown(world), world.platform_rows()) == (found, 5)
    task = ReconcileOperator(task_id="compare", job="flights", project=str(world.root), stream="ground_truth")
    at = task.execute({"dag": SimpleNamespace(fileloc=None)})["at"]["arthur"]
    assert (at["arrived"], at["replaced"], at["lost"]) == (4, 1, 0)


def form(**params: Any) -> Asked:
    """What a run by hand asks."""
    run = SimpleNamespace(dag_id="d", run_id="r", run_type="manual", conf=params)
    return asked({"dag_run": run, "params": params})


def test_files_are_uploaded_by_hand_wherever_they_lie(world: World, go: Callable[..., Ran]) -> None:
    from tidepost.airflow import acts  # noqa: PLC0415
    from tidepost.airflow.world import opened  # noqa: PLC0415

    world.log("monday", rows(5))
    labels(world, "none", [])
    world.run()
    world.log("tuesday", rows(1, first=5, at=after(hours=1)))
    elsewhere = drop(world, "one.csv", line(1, 4), at=time.time(), folder="elsewhere")
    drop(world, "two.csv", line(2, 6), at=time.time(), folder="elsewhere")
    with (
        pytest.raises(Misconfigured, match=r"none\.csv is not there"),
        opened(str(world.root), "flights", stream="ground_truth") as it,
    ):
        acts.begin(it, form(files=[str(elsewhere), "elsewhere/none.csv"]), most=500, tell=Teller(logging.getLogger()))
    with opened(str(world.root), "flights", stream="ground_truth", looking=True) as it:
        acts.begin(it, form(files=[str(elsewhere)], dry_run=True), most=500, tell=Teller(logging.getLogger()))
        assert it.stream is None, "a dry run writes nothing"
    ran = go(conf={"files": [str(elsewhere), "elsewhere/two.csv"]}, run_id="mine")
    assert (ran.state, ran.states["plan"], ran.states["confirm"]) == ("success", "skipped", "skipped")
    assert shown(world) == {"r000001": 4, "r000002": 6}
    assert world.platform_rows() == 5, "files are of labels alone"
    elsewhere.unlink()
    assert go(conf={"files": [str(elsewhere), "elsewhere/two.csv"]}, run_id="mine").state == "success"


def test_a_backfill_looks_at_the_interval_of_both_streams_and_each_goes_on_by_itself(
    world: World, go: Callable[..., Ran], dags: Callable[[], dict[str, Any]], run_dag: Callable[..., Ran]
) -> None:
    world.define(ground_truth={"limits": {"cut_rows": 1}})
    world.log("monday", rows(5))
    labels(
        world, "days", [label(0, 3), label(1, 4, known=LANDED + timedelta(hours=1)), label(2, 5, known=LANDED + DAY)]
    )
    dag = dags()["flights"]
    dag.get_task("ground_truth.plan").most = 1
    ran = run_dag(dag, run_type="backfill", interval=INTERVAL, run_id="one")
    assert (ran.state, ran.states["follow"], ran.states["ground_truth.follow"]) == ("success", "skipped", "success")
    assert shown(world) == {"r000000": 3}
    ran = go(run_id="part2__ground_truth__one")
    assert (ran.state, ran.states["plan"]) == ("success", "skipped")
    assert shown(world) == {"r000000": 3, "r000001": 4}, "the third is known after the interval"


def test_a_file_of_labels_is_waited_for_without_a_worker(world: World, run_dag: Callable[..., Ran]) -> None:
    from airflow.sdk import DAG  # noqa: PLC0415 - the fixture makes its settings first
    from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException, TaskDeferred  # noqa: PLC0415

    from tidepost.airflow import GroundTruthFileSensor, UploadOperator  # noqa: PLC0415

    def sensor(**options: Any) -> Any:
        return GroundTruthFileSensor(task_id="wait", job="flights", project=str(world.root), **options)

    def looked(of: Any, since: float | None = None) -> Any:
        return of.resume({"dag": SimpleNamespace(fileloc=None)}, {"since": time.time() if since is None else since})

    with pytest.raises(TaskDeferred) as none:
        looked(sensor())
    assert 50 < none.value.trigger.at - time.time() <= 60
    drop(world, "week.csv", line(1, 4), at=time.time() - 280)
    with pytest.raises(TaskDeferred) as unquiet:
        looked(sensor())
    assert unquiet.value.trigger.at - time.time() <= 20, "as soon as it is quiet"
    with pytest.raises(AirflowSensorTimeout, match="no file of labels within"):
        looked(sensor(timeout=timedelta(hours=1)), since=time.time() - 3601)
    with pytest.raises(AirflowSkipException):
        looked(sensor(timeout=3600, soft_fail=True), since=time.time() - 3601)
    assert not (world.root / ".tidepost" / "ledger.db").exists(), "looking writes nothing"

    drop(world, "week.csv", line(1, 4))
    labels(world, "none", [])
    world.log("monday", rows(5))
    world.run()
    with DAG("waits_for_labels", schedule=None) as dag:
        here: dict[str, Any] = {"job": "flights", "project": str(world.root)}
        sensor() >> UploadOperator(task_id="labels", stream="ground_truth", **here)
    ran = run_dag(dag)
    assert (ran.state, ran.xcom("wait"), ran.xcom("labels")["arrived"]) == ("success", 1, 1)
    assert shown(world) == {"r000001": 4}
    with pytest.raises(TaskDeferred):
        looked(sensor())
    world.define(ground_truth={"files": None})
    with pytest.raises(Misconfigured, match="names no files of labels"):
        looked(sensor())


def test_what_a_form_cannot_say_of_labels_is_refused_at_once() -> None:
    assert form(stream="both").key == form().key
    assert form(files=["a.csv"]).key != form().key
    for params in (
        {"files": ["a.csv"], "mode": "reconcile"},
        {"files": ["a.csv"], "stream": "inferences"},
        {"stream": "labels"},
    ):
        with pytest.raises(Misconfigured):
            form(**params)


def test_a_dag_of_labels_does_not_take_the_name_of_another_job(
    world: World, dags: Callable[[], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    world.define(ground_truth={"schedule": "@daily"})
    text = (world.root / "jobs" / "flights.yaml").read_text()
    (world.root / "jobs" / "other.yaml").write_text(text.replace('"flights"', '"flights_ground_truth"'))
    assert set(dags()) == {"flights", "flights_ground_truth", "flights_ground_truth_ground_truth"}
    assert "ground_truth.schedule: the DAG of these labels has the name of the one of job" in caplog.text
