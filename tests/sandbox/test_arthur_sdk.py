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


def counts(success: int, failure: int = 0) -> dict[str, int]:
    return {"success": success, "failure": failure, "total": success + failure}


def test_it_sends_labels_by_rows_frames_and_directories(seen: dict[str, dict[str, Any]]) -> None:
    labels = seen["ground truth"]
    assert labels["rows"] == counts(3)
    assert labels["frame"] == {"counts": counts(2), "failures": [[]]}
    assert labels["directory"]["counts"] == counts(3)


def test_it_hears_of_labels_without_an_inference_by_row_or_as_a_count(seen: dict[str, dict[str, Any]]) -> None:
    answered, refused = seen["ground truth"]["unknown row"]
    assert answered == counts(1, 1)
    assert refused == {"message": "no inference has this partner_inference_id", "status": 404}
    by_file = seen["ground truth"]["unknown in a frame"]
    assert by_file["counts"] == counts(2, 1)
    assert by_file["failures"] == [[{"message": "1 rows: no inference has this partner_inference_id", "status": 404}]]


def test_it_changes_labels_and_asks_for_their_values(seen: dict[str, dict[str, Any]]) -> None:
    labels = seen["ground truth"]
    assert labels["changed by rows"] == labels["changed by file"] == counts(1)
    assert labels["labelled"] == [{"count": 11}]
    assert labels["by hour"] == [{"hour": "2024-05-03T00:00:00.000Z", "count": 11}]
    unchanged = {f"flight-{number}": float(number % 5) for number in range(2, 11)}
    assert labels["values"] == {"flight-0": 1.0, "flight-1": 2.0, **unchanged}


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
