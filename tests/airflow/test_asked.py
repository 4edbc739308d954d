"""What a run asks, by Airflow's own account of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.airflow.running import Ran

from tidepost.airflow.asked import asked

DAY = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC)


@pytest.fixture
def ask(run_dag: Callable[..., Ran], request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """Runs a DAG whose only task says what was asked."""
    from airflow.sdk import DAG, task  # noqa: PLC0415 - the fixture makes its settings first

    with DAG(request.node.name, schedule=None, params={"mode": "incremental", "from": None, "to": None}) as dag:

        @task
        def told(**context: Any) -> dict[str, Any]:
            return asdict(asked(context))

        told()

    def run(**how: Any) -> dict[str, Any]:
        ran = run_dag(dag, **how)
        assert ran.state == "success"
        return dict(ran.xcom("told"))

    return run


def test_a_scheduled_run_asks_for_what_is_new(ask: Callable[..., dict[str, Any]]) -> None:
    found = ask(run_type="scheduled", interval=DAY)
    assert (found["mode"], found["start"], found["end"]) == ("incremental", None, None)


def test_a_backfill_asks_for_its_interval_and_a_cleared_one_anew(ask: Callable[..., dict[str, Any]]) -> None:
    first = ask(run_type="backfill", interval=DAY, run_id="one")
    assert (first["mode"], first["start"], first["end"]) == ("range", "2024-05-01T00:00:00Z", "2024-05-02T00:00:00Z")
    again = ask(run_type="backfill", interval=DAY, run_id="one")
    assert again["key"] != first["key"]
