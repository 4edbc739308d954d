"""Arthur's own Python SDK, in the version whose calls the sandbox answers, works against it unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.environment import environment, output_of

from tidepost.sandbox import SandboxProcess


@pytest.fixture(scope="module")
def sdk_python() -> Path:
    """The interpreter of an environment that holds the SDK."""
    return environment("arthur-sdk") / "python"


@pytest.fixture(scope="module")
def seen(
    sdk_python: Path, shared: SandboxProcess, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What the SDK saw."""
    script = Path(__file__).parent / "arthur_sdk_client.py"
    printed = output_of(sdk_python, script, shared.url, tmp_path_factory.mktemp("files"))
    answers: dict[str, dict[str, Any]] = json.loads(printed.splitlines()[-1])
    return answers


def test_it_registers_a_model_and_gets_it_by_either_id(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["streaming"]["status"] == "Ready"
    assert seen["streaming"]["same"] is True
    assert seen["streaming"]["stages"] == {
        "distance": "PIPELINE_INPUT",
        "carrier": "PIPELINE_INPUT",
        "seats": "NON_INPUT_DATA",
        "delay": "PREDICTED_VALUE",
        "actual_delay": "GROUND_TRUTH",
    }


def test_it_sends_rows_and_their_labels(seen: dict[str, dict[str, Any]]) -> None:
    success = {"success": 3, "failure": 0, "total": 3}
    assert seen["streaming"]["rows"]["counts"] == seen["streaming"]["row labels"]["counts"] == success
    first = seen["streaming"]["rows"]["results"][0]
    assert first == {"message": "success", "status": 200, "partner_inference_id": "flight-0"}
    assert seen["streaming"]["again"] == {"success": 0, "failure": 1, "total": 1}


def test_it_sends_frames_and_directories(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["streaming"]["frame"] == {"counts": {"success": 4, "failure": 0, "total": 4}, "failures": [[]]}
    assert seen["streaming"]["directory"]["counts"] == {"success": 12, "failure": 0, "total": 12}
    assert seen["streaming"]["file labels"]["counts"] == {"success": 10, "failure": 0, "total": 10}


def test_it_asks_what_arrived(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["streaming"]["count"] == [{"count": 19}]
    assert seen["streaming"]["by carrier"] == [{"carrier": "AA", "count": 10}, {"carrier": "UA", "count": 9}]
    assert seen["streaming"]["enrichments"] == ["anomaly_detection", "bias_mitigation", "explainability", "hotspots"]


def test_it_archives_a_model(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["streaming"]["archived"] is True


def test_it_sends_and_closes_batches_and_the_reference_set(
    seen: dict[str, dict[str, Any]], shared: SandboxProcess
) -> None:
    assert seen["batches"]["sent"] == {"success": 4, "failure": 0, "total": 4}
    assert seen["batches"]["closed"]["dataset_close_result"]["status"] == "uploaded"
    names = ("2024-05-01", "2024-05-02", "2024-05-03")
    assert seen["batches"]["by batch"] == [
        {"batch_id": name, "count": rows} for name, rows in zip(names, (3, 4, 2), strict=True)
    ]
    stats = shared.model_stats(seen["batches"]["id"])
    assert [(batch["status"], batch["total_record_count"]) for batch in stats["batches"]] == [
        ("uploaded", 3),
        ("uploaded", 4),
        ("uploading", None),
    ]
    assert stats["reference_rows"] == 40
