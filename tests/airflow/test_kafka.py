"""A job of a topic under Airflow: a DAG like any other, whose positions are offsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.airflow.running import Ran
from tests.airflow.test_modes import DAY, INTERVAL
from tests.kafka import Kafka, Reading, message
from tests.world import World, rows


@pytest.fixture
def topic(world: World, reading: Reading) -> str:
    """What the world's job reads."""
    found = reading(partitions=2)
    world.define(schedule="@daily", limits={"cut_rows": 10})
    return found


@pytest.fixture
def told() -> list[str]:
    """What people were told."""
    return []


@pytest.fixture
def dag(world: World, topic: str, airflow_home: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    from tidepost.airflow import upload_dags  # noqa: PLC0415 - the fixture makes Airflow's settings first

    for name, value in world.env.items():
        monkeypatch.setenv(name, value)

    def note(text: str, context: Mapping[str, Any]) -> None:
        told.append(text)

    return upload_dags(world.root, prefix="topic_", notify=note)["topic_flights"]


def test_a_job_of_a_topic_runs_in_every_mode(
    world: World, kafka: Kafka, topic: str, *, dag: Any, told: list[str], run_dag: Callable[..., Ran]
) -> None:
    assert f"| source | topic `{topic}` at `${{KAFKA}}` |" in dag.doc_md

    def send(count: int, first: int, partition: int) -> None:
        kafka.send(topic, [message(one) for one in rows(count, first=first)], partition=partition)

    send(15, 0, 0)
    send(5, 15, 1)
    first = run_dag(dag, run_type="scheduled", interval=INTERVAL)
    assert first.state == "success", told
    assert [name for name in first.states if name.startswith("upload")] == ["upload[0]", "upload[1]", "upload[2]"]
    assert world.everything_arrived_once(20)
    assert (kafka.committed(topic, 0), kafka.committed(topic, 1)) == (15, 5)
    assert first.xcom("confirm")["arrived"] == 20
    assert announced(dag) == [f"{topic}/0 15, {topic}/1 5"]

    send(5, 20, 1)
    assert run_dag(dag, conf={"mode": "range", "from": "3", "to": "10"}).state == "success", told
    assert world.everything_arrived_once(25)

    refused = run_dag(dag, run_type="backfill", interval=(INTERVAL[1], INTERVAL[1] + DAY))
    assert refused.states["plan"] == "failed"
    assert "a backfill's data intervals are times" in told[-1]
    assert 'mode "range"' in told[-1]

    world.platform.process.wait_until_loaded()
    world.platform.process.lose(world.model_id, ["r000003", "r000017"])
    assert run_dag(dag, conf={"mode": "reconcile"}).state == "failed"
    assert "of 25 rows 2 lost at arthur" in told[-1]
    assert run_dag(dag, conf={"mode": "resend"}).state == "success", told
    assert world.everything_arrived_once(25)


def announced(dag: Any) -> list[str]:
    """The marks that events of the DAG's asset told."""
    from airflow.models.asset import AssetEvent  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415

    with create_session() as session:
        found = session.query(AssetEvent).filter(AssetEvent.source_dag_id == dag.dag_id)
        return sorted({one.extra["mark"] for one in found})
