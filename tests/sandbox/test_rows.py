"""Rows as JSON: one result a row, in row order. Arthur API v3, as its Python SDK 3.33.3 speaks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tidepost.errors import Misconfigured
from tidepost.sandbox import SandboxProcess

if TYPE_CHECKING:
    from tests.sandbox.conftest import Client


def test_rows_are_answered_one_by_one_and_can_be_counted_at_once(api: Client) -> None:
    answer = api.send("a", "b", "c")
    assert answer["counts"] == {"success": 3, "failure": 0, "total": 3}
    assert answer["results"] == [{"message": "success", "status": 200}] * 3
    assert api.ids() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probability": None}, "probability is missing or null"),
        ({"probability": ...}, "probability is missing or null"),
        ({"probability": "high"}, "probability must be of type FLOAT"),
        ({"probability": True}, "probability must be of type FLOAT"),
        ({"distance": ...}, "distance is missing"),
        ({"seats": 1.5}, "seats must be of type INTEGER"),
        ({"seats": 2**63}, "seats must be of type INTEGER"),
        ({"carrier": 7}, "carrier must be of type STRING"),
        ({"weekend": 1}, "weekend must be of type BOOLEAN"),
        ({"booked_at": "2024-05-01T10:00:00"}, "booked_at must have a time zone"),
        ({"colour": "red"}, "'colour' is not an attribute of the model"),
        ({"delayed": 1}, "'delayed' does not belong in inference_data"),
        ({"inference_timestamp": None}, "inference_timestamp is missing or null"),
        ({"inference_timestamp": "2024-05-01T12:00:00"}, "inference_timestamp must have a time zone"),
        ({"inference_timestamp": "yesterday"}, "inference_timestamp must be an ISO 8601 timestamp"),
        ({"partner_inference_id": ...}, "partner_inference_id is missing or null"),
        ({"partner_inference_id": 12}, "partner_inference_id must be of type STRING"),
        ({"partner_inference_id": ""}, "partner_inference_id is empty"),
        ({"inference_data": ...}, "inference_data is missing"),
        ({"ground_truth_data": {"delayed": 1}}, "ground_truth_timestamp is missing or null"),
    ],
)
def test_a_row_that_breaks_a_rule_fails_alone(api: Client, changes: dict[str, Any], message: str) -> None:
    rows = [api.row("before"), api.row("wrong", **changes), api.row("after")]
    answer = api.on("POST", "/inferences", json=rows).json()
    assert answer["counts"] == {"success": 2, "failure": 1, "total": 3}
    assert [result["status"] for result in answer["results"]] == [200, 400, 200]
    assert message in answer["results"][1]["message"]
    assert api.ids() == ["after", "before"]


def test_what_may_be_null_or_absent_may(api: Client) -> None:
    rows = [api.row("null", distance=None, seats=None, weekend=None), api.row("absent", seats=...)]
    assert api.on("POST", "/inferences", json=rows).json()["counts"]["success"] == 2


def test_an_instant_is_the_same_in_every_zone(api: Client) -> None:
    api.on("POST", "/inferences", json=[api.row("a", inference_timestamp="2024-05-01T14:30:00.1239+05:30")])
    assert api.query({"select": [{"property": "inference_timestamp"}]}) == [
        {"inference_timestamp": "2024-05-01T09:00:00.123Z"}
    ]


@pytest.mark.parametrize("body", [b"{}", b"nonsense", b""])
def test_a_body_that_is_no_array_is_refused_whole(api: Client, body: bytes) -> None:
    assert api.on("POST", "/inferences", data=body).status_code == 400


@pytest.mark.parametrize("path", ["/inferences", "/ground_truth"])
def test_ground_truth_goes_to_either_twin_and_only_for_known_ids(api: Client, path: str) -> None:
    api.send("a", "b")
    answer = api.on("PATCH", path, json=[api.label("b"), api.label("stranger"), api.label("a", 0)]).json()
    assert answer["counts"] == {"success": 2, "failure": 1, "total": 3}
    assert [result["status"] for result in answer["results"]] == [200, 404, 200]
    assert api.labels() == {"a": 0, "b": 1}


def test_a_label_may_change_and_the_last_one_counts(api: Client) -> None:
    api.send("a")
    api.on("PATCH", "/inferences", json=[api.label("a", 1)])
    api.on("PATCH", "/inferences", json=[api.label("a", 2), api.label("a", 3)])
    assert api.labels() == {"a": 3}


@pytest.mark.parametrize(
    ("value_type", "label"), [("INTEGER", 0), ("FLOAT", 0.0), ("BOOLEAN", False), ("STRING", "")]
)
def test_a_label_may_be_falsy_but_not_null(api: Client, value_type: str, label: object) -> None:
    attributes = [
        {"name": "p", "value_type": "FLOAT", "stage": "PREDICTED_VALUE"},
        {"name": "delayed", "value_type": value_type, "stage": "GROUND_TRUTH"},
    ]
    model = api.registered(f"labels {value_type}", attributes=attributes)
    names = ("inference_data", "inference_timestamp", "partner_inference_id")
    rows = [{**model.row(name), "inference_data": {"p": 0.5}} for name in ("a", "b")]
    assert set(rows[0]) == set(names)
    model.on("POST", "/inferences", json=rows)
    answer = model.on("PATCH", "/inferences", json=[model.label("a", label), model.label("b", None)]).json()
    assert [result["status"] for result in answer["results"]] == [200, 400]
    assert model.labels() == {"a": label}


def test_a_label_may_come_with_its_inference(api: Client) -> None:
    label: dict[str, Any] = {"ground_truth_data": {"delayed": 1}, "ground_truth_timestamp": "2024-05-02T00:00:00Z"}
    api.on("POST", "/inferences", json=[api.row("a", **label), api.row("b")])
    assert api.labels() == {"a": 1}


def test_an_inference_is_immutable(api: Client) -> None:
    api.send("a")
    answer = api.on("POST", "/inferences", json=[api.row("a", probability=0.75), api.row("b")]).json()
    assert [result["status"] for result in answer["results"]] == [409, 200]
    assert {row["probability"] for row in api.query({"select": [{"property": "probability"}]})} == {0.25}


def test_a_batch_model_needs_a_batch(api: Client) -> None:
    model = api.registered("rows in batches", is_batch=True)
    rows = [model.row("a"), model.row("b", batch_id="2024-05-01")]
    answer = model.on("POST", "/inferences", json=rows).json()
    assert answer["results"][0]["message"] == "batch_id is missing or null"
    assert model.ids() == ["b"]


def test_what_becomes_of_a_repeat_is_a_setting(sandbox: SandboxProcess, api: Client) -> None:
    outcomes = {}
    for choice in ("refuse", "merge", "keep"):
        sandbox.configure(on_repeat=choice)
        model = api.registered(f"repeats, {choice}")
        model.send("a", "b")
        answer = model.send("b", "c", "c")
        stats = sandbox.model_stats(model.model_id)
        assert stats["repeats_offered"] == 2
        assert stats["distinct"] == 3
        outcomes[choice] = (answer["counts"]["success"], sorted(model.ids()), stats["doubled"])
    assert outcomes == {
        "refuse": (1, ["a", "b", "c"], 0),
        "merge": (3, ["a", "b", "c"], 0),
        "keep": (3, ["a", "b", "b", "c", "c"], 2),
    }


def test_rows_can_be_lost_on_demand(sandbox: SandboxProcess, api: Client) -> None:
    api.send("a", "b", "c")
    assert sandbox.lose(api.model_id, ["a", "c", "never there"]) == 2
    assert api.ids() == ["b"]
    assert sandbox.model_stats(api.model_id)["rows"] == 1
    with pytest.raises(Misconfigured, match="must be a list"):
        sandbox.lose(api.model_id, [1])  # type: ignore[list-item]
