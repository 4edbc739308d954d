"""The numbers that leave through Airflow's own metrics, as its OpenTelemetry backend records them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.airflow.running import Ran
from tests.world import World, rows

from tidepost.steps import Uploaded

pytestmark = pytest.mark.usefixtures("airflow_home")

Received = Callable[[], dict[str, Any]]


@pytest.fixture
def received(airflow_home: object) -> Iterator[Received]:
    """Calling it gives the sums and values since the last call, by name and tags: `rows{job=flights}`."""
    from airflow.sdk._shared.observability.metrics.otel_logger import SafeOtelLogger  # noqa: PLC0415
    from airflow.sdk.observability import stats  # noqa: PLC0415
    from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader  # noqa: PLC0415

    delta = AggregationTemporality.DELTA
    reader = InMemoryMetricReader({Counter: delta, Histogram: delta})
    provider = MeterProvider([reader])
    stats.initialize(factory=lambda: SafeOtelLogger(provider), export_legacy_names=True)

    def found() -> dict[str, Any]:
        data = reader.get_metrics_data()
        metrics = [
            one
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for one in scope.metrics
            if one.name.startswith("airflow.tidepost.")
        ]
        return {
            f"{one.name.removeprefix('airflow.tidepost.')}{_tags(point.attributes)}": _value(point)
            for one in metrics
            for point in one.data.data_points
        }

    yield found
    stats.initialize(factory=stats_off(), export_legacy_names=True)
    provider.shutdown()


def _tags(found: Any) -> str:
    return "{" + ", ".join(f"{name}={value}" for name, value in sorted(found.items())) + "}"


def _value(point: Any) -> Any:
    return point.sum if hasattr(point, "sum") else point.value


def stats_off() -> Any:
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger  # noqa: PLC0415

    return NoStatsLogger


def test_a_cut_counts_its_rows_bytes_rejects_and_seconds(received: Received) -> None:
    from tidepost.airflow import metrics  # noqa: PLC0415

    rejected = {"null_id": 2, "conflicting_id": 1}
    metrics.of_cut("flights", Uploaded(1, "a", "b", slice=1, rows=40, size=5000, rejected=rejected, seconds=1.5))
    assert received() == {
        "rows{job=flights, stream=inferences}": 40,
        "flights.rows{stream=inferences}": 40,
        "bytes{job=flights, stream=inferences}": 5000,
        "flights.bytes{stream=inferences}": 5000,
        "rejects{job=flights, stream=inferences}": 3,
        "flights.rejects{stream=inferences}": 3,
        "seconds{job=flights, stream=inferences}": 1500,
        "flights.seconds{stream=inferences}": 1500,
    }


def test_a_run_counts_what_arrived_and_tells_its_lag(received: Received) -> None:
    from tidepost.airflow import metrics  # noqa: PLC0415

    metrics.of_run("flights", arrived=9, refused=0, retries=0, lag=60.5)
    assert received() == {
        "arrived{job=flights, stream=inferences}": 9,
        "flights.arrived{stream=inferences}": 9,
        "lag{job=flights, stream=inferences}": 60.5,
        "flights.lag{stream=inferences}": 60.5,
    }


def test_a_cut_that_was_done_before_counts_nothing_again(received: Received) -> None:
    from tidepost.airflow import metrics  # noqa: PLC0415

    metrics.of_cut("flights", Uploaded(1, "a", "b", rows=40, size=5000, before=True))
    metrics.of_cut("flights", Uploaded(1, "a", "b", rows=40, size=5000, elsewhere="another host"))
    assert received() == {}


def test_an_upload_counts_what_it_did(
    world: World, run_dag: Callable[..., Ran], received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import DAG  # noqa: PLC0415

    from tidepost.airflow.operators import UploadOperator  # noqa: PLC0415

    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    world.define(name="measured", limits={"cut_rows": 1000, "rejects": "10%"})
    world.log("monday", [*rows(98), *rows(2, first=98, score=None)])
    with DAG("uploads_measured", schedule=None) as dag:
        UploadOperator(task_id="upload", job="measured", project=str(world.root))
    assert run_dag(dag).state == "success"
    found = ours(received())
    size = sum(
        path.stat().st_size for path in (world.root / ".tidepost/staging/measured/inferences/data").rglob("*.parquet")
    )
    assert found["rows"] == found["arrived"] == 98
    assert found["bytes"] == size
    assert found["rejects"] == 2
    assert found["seconds"] > 1
    assert found["lag"] > 365 * 86_400
    assert "retries" not in found
    assert run_dag(dag).state == "success"
    again = ours(received())
    assert set(again) == {"lag"}, again


def test_requests_that_were_made_again_are_counted(
    world: World, run_dag: Callable[..., Ran], received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import DAG  # noqa: PLC0415

    from tidepost.airflow.operators import UploadOperator  # noqa: PLC0415

    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    world.define(name="repeated")
    world.log("monday", rows(30))
    with DAG("uploads_repeated", schedule=None) as dag:
        UploadOperator(task_id="upload", job="repeated", project=str(world.root))
    world.platform.process.configure(faults=[{"fault": "fail", "status": 500, "kind": "file", "count": 1}])
    assert run_dag(dag).state == "success"
    assert ours(received())["retries"] == 1


def ours(found: dict[str, Any]) -> dict[str, Any]:
    """Those that have their job as a tag, by what they are."""
    return {name.partition("{")[0]: value for name, value in found.items() if "{job=" in name}
