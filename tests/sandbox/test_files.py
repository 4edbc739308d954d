"""Files: accepted first, loaded in the background. Arthur API v3, as its Python SDK 3.33.3 speaks it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import requests

from tidepost.sandbox import SandboxProcess

if TYPE_CHECKING:
    from tests.sandbox.conftest import Client


def loaded(sandbox: SandboxProcess, api: Client) -> list[str]:
    """The ids, once everything accepted is loaded."""
    sandbox.wait_until_loaded()
    return api.ids()


def test_a_parquet_file_is_accepted_with_exact_counts_and_loaded_later(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.configure(loading_delay=30)
    response = api.upload(api.columns(["a", "b"]))
    assert response.status_code == 207
    assert response.json() == {"counts": {"success": 2, "failure": 0, "total": 2}, "failures": []}
    assert api.count() == 0
    assert sandbox.model_stats(api.model_id)["files"] == {"accepted": 1, "loaded": 0, "pending": 1}
    sandbox.configure(loading_delay=0)
    assert loaded(sandbox, api) == ["a", "b"]
    assert sandbox.model_stats(api.model_id)["files"] == {"accepted": 1, "loaded": 1, "pending": 0}


def test_a_json_array_is_told_from_parquet_by_its_content(
    sandbox: SandboxProcess, api: Client, json_file: Callable[[object], bytes]
) -> None:
    rows = [api.row("a"), api.row("b", probability=None), api.row("c", carrier="Zürich ]}")]
    answer = api.upload(json_file(rows)).json()
    assert answer["counts"] == {"success": 2, "failure": 1, "total": 3}
    assert answer["failures"] == [{"message": "1 rows: probability is missing or null", "status": 400}]
    assert loaded(sandbox, api) == ["a", "c"]
    assert sandbox.model_stats(api.model_id)["refused_rows"] == 1


def test_a_json_file_larger_than_a_chunk_is_read_in_pieces(
    sandbox: SandboxProcess, api: Client, json_file: Callable[[object], bytes]
) -> None:
    rows = [api.row(f"{at:06}", carrier="é" * 40, minutes=at / 1000) for at in range(25_000)]
    body = json_file(rows)
    assert len(body) > 6 << 20
    assert api.upload(body).json()["counts"]["success"] == 25_000
    assert loaded(sandbox, api) == [f"{at:06}" for at in range(25_000)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probability": ...}, "'probability' is missing"),
        ({"carrier": ...}, "'carrier' is missing"),
        ({"partner_inference_id": ...}, "'partner_inference_id' is missing"),
        ({"partner_inference_id": pa.array([1, 2])}, "'partner_inference_id' must be of type STRING"),
        ({"colour": pa.array(["red", "blue"])}, "'colour' is not an attribute"),
        ({"seats": pa.array([1.0, 2.0])}, "'seats' must be of type INTEGER"),
        ({"weekend": pa.array([1, 0])}, "'weekend' must be of type BOOLEAN"),
        (
            {"inference_timestamp": pa.array([datetime(2024, 5, 1)] * 2)},  # noqa: DTZ001  # the want of a zone is the point
            "'inference_timestamp' is a timestamp without a time zone",
        ),
        ({"delayed": pa.array([0, 1])}, "'ground_truth_timestamp' is missing"),
    ],
)
def test_a_file_with_a_wrong_column_is_refused_whole_and_the_column_named(
    sandbox: SandboxProcess, api: Client, changes: dict[str, Any], message: str
) -> None:
    response = api.upload(api.columns(["a", "b"], **changes))
    assert response.status_code == 400
    assert message in response.json()["message"]
    assert loaded(sandbox, api) == []


@pytest.mark.parametrize("body", [b"PAR1 and nothing else", b'{"not": "an array"}', b'[{"cut": 1}, {', b"plain"])
def test_a_file_that_cannot_be_read_is_refused(sandbox: SandboxProcess, api: Client, body: bytes) -> None:
    assert api.upload(body).status_code == 400
    assert loaded(sandbox, api) == []


@pytest.mark.parametrize(
    "files",
    [
        [("batch_id", (None, "")), ("inference_data", ("empty", b""))],
        [("batch_id", (None, ""))],
        [("something", ("x", b"PAR1"))],
        [("inference_data", ("x", b"PAR1")), ("ground_truth_data", ("y", b"PAR1"))],
    ],
)
def test_a_form_without_exactly_one_full_file_is_refused(api: Client, files: list[Any]) -> None:
    assert api.on("POST", "/inferences/file", files=files).status_code == 400


def test_a_body_that_is_no_form_is_refused(api: Client) -> None:
    assert api.on("POST", "/inferences/file", data=b"PAR1").status_code == 400
    cut = b'--x\r\nContent-Disposition: form-data; name="inference_data"\r\n\r\nPAR1'
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert api.on("POST", "/inferences/file", data=cut, headers=form).status_code == 400


def test_bad_rows_of_a_file_fail_and_the_others_are_loaded(sandbox: SandboxProcess, api: Client) -> None:
    table = api.columns(
        ["a", None, "c", "d", ""],  # type: ignore[list-item]
        probability=pa.array([0.5, 0.5, None, float("nan"), 0.5]),
    )
    answer = api.upload(table).json()
    assert answer["counts"] == {"success": 1, "failure": 4, "total": 5}
    assert {failure["message"] for failure in answer["failures"]} == {
        "1 rows: partner_inference_id is empty",
        "1 rows: partner_inference_id is null",
        "1 rows: probability is not a finite number",
        "1 rows: probability is null",
    }
    assert loaded(sandbox, api) == ["a"]


def test_a_column_that_is_null_throughout_fits_every_type(sandbox: SandboxProcess, api: Client) -> None:
    table = api.columns(["a"], carrier=pa.array([None], pa.int32()), weekend=pa.array([None], pa.string()))
    assert api.upload(table).json()["counts"]["success"] == 1
    wrong = api.columns(["b"], probability=pa.array([None], pa.int32()))
    assert api.upload(wrong).json()["counts"]["failure"] == 1
    assert loaded(sandbox, api) == ["a"]


def test_nanoseconds_and_other_zones_are_taken(sandbox: SandboxProcess, api: Client) -> None:
    moments = pa.array([1714564800_123456789], pa.timestamp("ns", "Asia/Kolkata"))
    api.upload(api.columns(["a"], inference_timestamp=moments))
    assert loaded(sandbox, api) == ["a"]
    assert api.query({"select": [{"property": "inference_timestamp"}]}) == [
        {"inference_timestamp": "2024-05-01T12:00:00.123Z"}
    ]


def test_ground_truth_by_file_is_loaded_for_known_ids(sandbox: SandboxProcess, api: Client) -> None:
    api.upload(api.columns(["a", "b", "c"]))
    sandbox.wait_until_loaded()
    table = api.label_columns(["a", "b", "stranger", "c"], [0, 1, 1, None])
    answer = api.upload(table, part="ground_truth_data").json()
    assert answer["counts"] == {"success": 2, "failure": 2, "total": 4}
    sandbox.wait_until_loaded()
    assert api.labels() == {"a": 0, "b": 1}


def test_ground_truth_may_follow_inferences_that_are_not_loaded_yet(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.configure(loading_delay=30)
    api.upload(api.columns(["a"]))
    answer = api.upload(api.label_columns(["a", "stranger"], [1, 1]), part="ground_truth_data").json()
    assert answer["counts"]["success"] == 2  # nobody can know yet
    sandbox.configure(loading_delay=0)
    sandbox.wait_until_loaded()
    assert api.labels() == {"a": 1}
    assert sandbox.model_stats(api.model_id)["refused_rows"] == 1


def test_labels_may_lie_beside_their_inferences(sandbox: SandboxProcess, api: Client) -> None:
    known_at = pa.array(["2024-05-02"] * 3).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    labels = {"delayed": pa.array([0, None, 1]), "ground_truth_timestamp": known_at}
    assert api.upload(api.columns(["a", "b", "c"], **labels)).json()["counts"]["success"] == 3
    assert loaded(sandbox, api) == ["a", "b", "c"]
    assert api.labels() == {"a": 0, "c": 1}


@pytest.mark.parametrize(
    ("choice", "failed", "kept"),
    [("refuse", 3, ["a", "b", "c"]), ("merge", 0, ["a", "b", "c"]), ("keep", 0, ["a", "b", "b", "b", "c", "c"])],
)
def test_what_becomes_of_a_file_sent_again_is_a_setting(
    sandbox: SandboxProcess, api: Client, choice: str, failed: int, kept: list[str]
) -> None:
    sandbox.configure(on_repeat=choice)
    api.upload(api.columns(["a", "b"]))
    sandbox.wait_until_loaded()
    answer = api.upload(api.columns(["b", "b", "c", "c"])).json()
    assert answer["counts"] == {"success": 4 - failed, "failure": failed, "total": 4}
    assert sorted(loaded(sandbox, api)) == kept
    stats = sandbox.model_stats(api.model_id)
    assert (stats["repeats_offered"], stats["distinct"]) == (3, 3)


def test_a_repeat_of_a_file_still_pending_is_accepted_and_not_loaded_twice(
    sandbox: SandboxProcess, api: Client
) -> None:
    sandbox.configure(loading_delay=30)
    for _ in range(2):
        assert api.upload(api.columns(["a", "b"])).json()["counts"]["failure"] == 0
    sandbox.configure(loading_delay=0)
    assert loaded(sandbox, api) == ["a", "b"]
    assert sandbox.model_stats(api.model_id)["repeats_offered"] == 2


def test_a_label_is_one_even_when_its_inference_is_kept_twice(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.configure(on_repeat="keep")
    label: dict[str, Any] = {"ground_truth_data": {"delayed": 1}, "ground_truth_timestamp": "2024-05-02T00:00:00Z"}
    for _ in range(2):
        api.on("POST", "/inferences", json=[api.row("a", **label)])
    api.upload(api.label_columns(["a"], [0]), part="ground_truth_data")
    assert loaded(sandbox, api) == ["a", "a"]
    assert sandbox.model_stats(api.model_id)["labels"] == 1
    assert api.labels() == {"a": 0}


def test_a_batch_is_named_by_the_form_or_by_a_column_and_the_form_wins(sandbox: SandboxProcess, api: Client) -> None:
    model = api.registered("files in batches", is_batch=True)
    assert "'batch_id' is missing" in model.upload(model.columns(["a"])).json()["message"]
    assert model.upload(model.columns(["b"]), batch_id="from the form").status_code == 207
    column = pa.array(["from the column", None])
    assert model.upload(model.columns(["c", "d"], batch_id=column)).json()["counts"]["failure"] == 1
    assert model.upload(model.columns(["e", "f"], batch_id=column), batch_id="from the form").status_code == 207
    sandbox.wait_until_loaded()
    rows = model.query({"select": [{"property": "partner_inference_id"}, {"property": "batch_id"}]})
    assert {row["partner_inference_id"]: row["batch_id"] for row in rows} == {
        "b": "from the form",
        "c": "from the column",
        "e": "from the form",
        "f": "from the form",
    }


@pytest.mark.parametrize("batch", ["2024-05-01", "eu/2024 05 01%2F?#"])
def test_a_batch_is_open_until_it_is_closed_with_its_count(sandbox: SandboxProcess, api: Client, batch: str) -> None:
    sandbox.configure(loading_delay=30)
    assert api.close_batch(batch, 2).status_code == 404
    api.upload(api.columns(["a", "b"]), batch_id=batch)
    closed = api.close_batch(batch, 2)  # as the SDK does, at once
    assert (closed.status_code, closed.json()["status"]) == (200, "uploaded")
    sandbox.configure(loading_delay=0)
    sandbox.wait_until_loaded()
    api.on("POST", "/inferences", json=[api.row("c", batch_id="another")])
    batches: list[dict[str, Any]] = [
        {"batch_id": batch, "status": "uploaded", "total_record_count": 2, "rows": 2},
        {"batch_id": "another", "status": "uploading", "total_record_count": None, "rows": 1},
    ]
    shown = sandbox.model_stats(api.model_id)["batches"]
    assert shown == sorted(batches, key=lambda entry: str(entry["batch_id"]))


def test_a_batch_id_that_is_not_encoded_is_another_path(api: Client) -> None:
    api.upload(api.columns(["a"]), batch_id="eu/1")
    body = {"status": "uploaded", "total_record_count": 1}
    assert api.on("PATCH", "/batches/eu/1", json=body).status_code == 404
    assert api.on("PATCH", "/batches/eu%2F1", json={"status": "done"}).status_code == 400
    assert api.on("PATCH", "/batches/eu%2F1", json=body).status_code == 200


def test_reference_data_is_sent_then_closed(
    sandbox: SandboxProcess, api: Client, json_file: Callable[[object], bytes]
) -> None:
    closing = {"status": "uploaded", "total_record_count": 3}
    assert api.on("PATCH", "/reference_data", json=closing).status_code == 404
    columns = ("distance", "carrier", "probability")
    table = api.columns(["x", "y"]).select(columns)
    assert api.upload(table, part="reference_data").json()["counts"] == {"success": 2, "failure": 0, "total": 2}
    row = {"distance": 1.0, "carrier": "UA", "probability": 0.5, "delayed": 1}
    bad = row | {"probability": None}
    body = json_file([{"reference_data": row}, {"reference_data": bad}])
    assert api.upload(body, part="reference_data").json()["counts"] == {"success": 1, "failure": 1, "total": 2}
    assert api.upload(table.drop_columns("carrier"), part="reference_data").status_code == 400
    assert api.on("PATCH", "/reference_data", json=closing).status_code == 200
    stats = sandbox.model_stats(api.model_id)
    assert (stats["reference_rows"], stats["rows"]) == (3, 0)


def test_an_upload_that_its_client_gives_up_leaves_nothing(sandbox: SandboxProcess, api: Client) -> None:
    head = (
        f"POST /api/v3/models/{api.model_id}/inferences/file HTTP/1.1\r\nHost: x\r\nAuthorization: k\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 99999\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="inference_data"\r\n\r\nPAR1'
    )
    with socket.create_connection(("127.0.0.1", int(sandbox.url.rpartition(":")[2])), timeout=10) as raw:
        raw.sendall(head.encode())
    until = time.monotonic() + 30
    while sandbox.stats()["requests"][0]["path"] != f"/api/v3/models/{api.model_id}/inferences/file":
        assert time.monotonic() < until
    assert list((sandbox.data / "incoming").iterdir()) == []
    assert (sandbox.data / "sandbox.log").read_text() == ""


def test_a_refusal_reaches_a_client_that_is_still_sending(sandbox: SandboxProcess) -> None:
    large = b"x" * (32 << 20)
    url = f"{sandbox.url}/api/v3/models/unknown/inferences/file"
    assert requests.post(url, files={"inference_data": ("large", large)}, timeout=30).status_code == 401
