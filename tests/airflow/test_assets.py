"""What Airflow learns of arrivals: events, partitions, and a copy of the mark."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.airflow.running import Ran
from tests.environment import ROOT
from tests.world import KEY, START, World, rows

from tidepost.cursor import CursorKind, CursorType

pytestmark = pytest.mark.usefixtures("airflow_home")


@pytest.fixture
def project(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that tasks find on their own."""
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARTHUR_API_KEY", KEY)
    return world


@pytest.fixture
def session() -> Iterator[Any]:
    from airflow.utils.session import create_session  # noqa: PLC0415

    with create_session() as session:
        yield session


def uploading(world: World, name: str) -> Any:
    """A DAG that uploads a world's job in one task, which declares its assets."""
    from airflow.sdk import DAG  # noqa: PLC0415

    from tidepost.airflow.assets import outlets  # noqa: PLC0415
    from tidepost.airflow.operators import UploadOperator  # noqa: PLC0415

    with DAG(f"uploads_{name}", schedule=None) as dag:
        UploadOperator(task_id="upload", job=name, project=str(world.root), outlets=outlets(name))
    return dag


def renamed(world: World, name: str) -> str:
    """Each test's job has a name of its own, as all share one Airflow."""
    world.define(name=name)
    return name


def events(session: Any, asset: Any) -> list[tuple[str | None, dict[str, Any]]]:
    """Partition and extra of an asset's events, in order."""
    from airflow.models.asset import AssetEvent, AssetModel  # noqa: PLC0415

    session.expire_all()
    found = session.query(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
    return [
        (one.partition_key, one.extra) for one in found.filter(AssetModel.uri == asset.uri).order_by(AssetEvent.id)
    ]


def test_an_asset_is_named_by_job_and_stream_alone() -> None:
    from tidepost.airflow.assets import asset, outlets, partitions  # noqa: PLC0415

    assert (asset("flights").name, asset("flights").uri) == ("flights/inferences", "tidepost://flights/inferences")
    assert partitions("flights").uri == "tidepost://flights/inferences/partitions"
    assert outlets("flights") == [asset("flights"), partitions("flights")]
    assert asset("flights", "ground_truth").uri == "tidepost://flights/ground_truth"


def test_a_partition_is_named_as_airflows_mappers_read_it() -> None:
    from airflow.partition_mappers.temporal import StartOfDayMapper  # noqa: PLC0415

    from tidepost.airflow.assets import keys  # noqa: PLC0415

    hours = [472_236, 472_237, 472_260]
    assert keys(hours, "hour") == ["2023-11-15T12:00:00", "2023-11-15T13:00:00", "2023-11-16T12:00:00"]
    assert keys(hours, "day") == ["2023-11-15T00:00:00", "2023-11-16T00:00:00"]
    assert keys([-1], "day") == ["1969-12-31T00:00:00"]
    assert StartOfDayMapper().to_downstream(keys(hours, "hour")[1]) == "2023-11-15"


def test_the_mark_is_the_one_that_all_destinations_have_reached() -> None:
    from tidepost.airflow.acts import least  # noqa: PLC0415

    times, numbers = CursorKind(CursorType.TIMESTAMP), CursorKind(CursorType.INTEGER)
    assert least(times, ["2024-05-02T00:00:00Z", "2024-05-01T12:00:00.5Z"]) == "2024-05-01T12:00:00.5Z"
    assert least(numbers, ["1000", "999"]) == "999"
    assert least(numbers, ["1000", None]) is None
    assert least(numbers, []) is None


def test_what_arrived_is_announced_with_rows_mark_and_partitions(
    project: World, run_dag: Callable[..., Ran], session: Any
) -> None:
    from tidepost.airflow.assets import MARK, asset, partitions  # noqa: PLC0415

    name = renamed(project, "announced")
    project.define(staging={"partition": "hour"})
    project.log("monday", rows(150))
    ran = run_dag(uploading(project, name))
    assert ran.state == "success"
    ((partition, extra),) = events(session, asset(name))
    assert partition is None
    mark = extra.pop("mark")
    assert extra == {
        "job": name,
        "stream": "inferences",
        "rows": 150,
        "from": "2024-05-01T12:00:00",
        "to": "2024-05-01T15:00:00",
    }
    assert mark.startswith("2024-05-01T14:29:00")
    hours = ["2024-05-01T12:00:00", "2024-05-01T13:00:00", "2024-05-01T14:00:00"]
    assert sorted(key or "" for key, _ in events(session, partitions(name))) == hours
    assert stored(session, asset(name), MARK) == mark


def stored(session: Any, asset: Any, key: str) -> Any:
    """What Airflow's store of an asset's state holds."""
    from airflow.models.asset import AssetModel  # noqa: PLC0415
    from airflow.models.asset_state_store import AssetStateStoreModel  # noqa: PLC0415

    found = session.query(AssetStateStoreModel).join(AssetModel, AssetModel.id == AssetStateStoreModel.asset_id)
    return json.loads(found.filter(AssetModel.uri == asset.uri, AssetStateStoreModel.key == key).one().value)


def test_a_run_that_brings_nothing_is_no_event(project: World, run_dag: Callable[..., Ran], session: Any) -> None:
    from tidepost.airflow.assets import asset, partitions  # noqa: PLC0415

    name = renamed(project, "nothing_new")
    project.log("monday", rows(10))
    assert run_dag(uploading(project, name)).state == "success"
    assert run_dag(uploading(project, name)).state == "success"
    assert [extra["rows"] for _, extra in events(session, asset(name))] == [10]
    assert [key for key, _ in events(session, partitions(name))] == [f"{START:%Y-%m-%d}T00:00:00"]


def test_arrivals_start_the_dags_that_wait_for_them(
    project: World, run_dag: Callable[..., Ran], session: Any, airflow_home: Path
) -> None:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db  # noqa: PLC0415
    from airflow.models import DagModel  # noqa: PLC0415
    from airflow.models.asset import AssetDagRunQueue, AssetPartitionDagRun  # noqa: PLC0415
    from airflow.sdk import DAG, PartitionedAssetTimetable  # noqa: PLC0415

    from tidepost.airflow.assets import asset, partitions  # noqa: PLC0415

    name = renamed(project, "waited_for")
    bag = DagBag(collect_dags=False)
    bag.bag_dag(DAG("by_run", schedule=[asset(name)]))
    bag.bag_dag(DAG("by_day", schedule=PartitionedAssetTimetable(assets=partitions(name))))
    sync_bag_to_db(bag, "dags-folder", None)
    session.query(DagModel).filter(DagModel.dag_id.in_(["by_run", "by_day"])).update({"is_paused": False})
    session.commit()
    project.log("monday", rows(20, every=3600.0))
    assert run_dag(uploading(project, name)).state == "success"
    session.expire_all()
    queued = session.query(AssetDagRunQueue).filter_by(target_dag_id="by_run").count()
    started = session.query(AssetPartitionDagRun).filter_by(target_dag_id="by_day")
    assert queued == 1
    assert sorted(one.partition_key for one in started) == ["2024-05-01T00:00:00", "2024-05-02T00:00:00"]
    assert session.query(AssetPartitionDagRun).filter_by(target_dag_id="by_run").count() == 0


def test_the_dag_of_a_job_announces_its_stream(project: World, run_dag: Callable[..., Ran], session: Any) -> None:
    from tidepost.airflow import upload_dags  # noqa: PLC0415
    from tidepost.airflow.assets import asset, partitions  # noqa: PLC0415

    name = renamed(project, "of_a_dag")
    project.log("monday", rows(10))
    dag = upload_dags(project.root)[f"upload_{name}"]
    assert run_dag(dag).states["confirm"] == "success"
    assert [extra["rows"] for _, extra in events(session, asset(name))] == [10]
    assert [key for key, _ in events(session, partitions(name))] == ["2024-05-01T00:00:00"]


@pytest.mark.parametrize("form", [{"mode": "reconcile"}, {"dry_run": True}, {"mode": "resend", "dry_run": True}])
def test_a_run_that_only_looks_is_no_event(
    project: World, run_dag: Callable[..., Ran], session: Any, form: dict[str, Any]
) -> None:
    from tidepost.airflow import upload_dags  # noqa: PLC0415
    from tidepost.airflow.assets import asset, partitions  # noqa: PLC0415

    name = renamed(project, f"looked_at_{form.get('mode', 'dry')}_{len(form)}")
    project.log("monday", rows(10))
    dag = upload_dags(project.root)[f"upload_{name}"]
    assert run_dag(dag).states["confirm"] == "success"
    assert run_dag(dag, run_id="looked", conf=form).states["confirm"] == "success"
    assert len(events(session, asset(name))) == 1
    assert len(events(session, partitions(name))) == 1


def test_a_task_that_declares_no_asset_announces_nothing(
    project: World, run_dag: Callable[..., Ran], session: Any
) -> None:
    from airflow.sdk import DAG  # noqa: PLC0415

    from tidepost.airflow.assets import asset  # noqa: PLC0415
    from tidepost.airflow.operators import UploadOperator  # noqa: PLC0415

    name = renamed(project, "unannounced")
    project.log("monday", rows(10))
    with DAG("uploads_unannounced", schedule=None) as dag:
        UploadOperator(task_id="upload", job=name, project=str(project.root))
    ran = run_dag(dag)
    assert ran.xcom("upload")["arrived"] == 10
    assert events(session, asset(name)) == []


def test_the_example_of_the_documentation_waits_for_a_streams_partitions(airflow_home: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415

    from tidepost.airflow.assets import partitions  # noqa: PLC0415

    text = (ROOT / "docs" / "airflow.md").read_text()
    (example,) = [one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "look_for_drift" in one]
    file = airflow_home / "dags" / "example_of_the_documentation.py"
    file.write_text(example)
    try:
        bag = DagBag(str(file), bundle_path=airflow_home / "dags")
        assert bag.import_errors == {}
        (dag,) = bag.dags.values()
        assert dag.timetable.asset_condition == partitions("flights")
    finally:
        file.unlink()
