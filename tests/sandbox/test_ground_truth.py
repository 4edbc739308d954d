"""The life of labels on the platform. Arthur API v3, as its Python SDK 3.33.3 speaks it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pytest
import requests

from tidepost.errors import Misconfigured
from tidepost.sandbox import Fault, SandboxProcess

if TYPE_CHECKING:
    from tests.sandbox.conftest import Client

NAMES = [f"{at:04}" for at in range(400)]


def hours(api: Client, name: str) -> dict[str, int]:
    """Labels by the hour of one of their times."""
    rounded = {"property": name, "time_interval": "hour"}
    select = [{"function": "roundTimestamp", "alias": "hour", "parameters": rounded}, {"function": "count"}]
    rows = api.query({"select": select, "from": "ground_truth", "group_by": [{"alias": "hour"}]})
    return {row["hour"]: row["count"] for row in rows}


def send(api: Client, kind: str, names: list[str], value: int = 1) -> dict[str, Any]:
    """Labels by rows or by file; the answer."""
    if kind == "rows":
        answer = api.on("PATCH", "/inferences", json=[api.label(name, value) for name in names])
    else:
        answer = api.upload(api.label_columns(names, [value] * len(names)), part="ground_truth_data")
    found: dict[str, Any] = answer.json()
    return found


def test_labels_are_counted_by_the_hour_of_either_time_and_listed_by_it(api: Client) -> None:
    api.on("POST", "/inferences", json=[api.row(name, minutes=at * 40) for at, name in enumerate("abc")])
    api.on("PATCH", "/inferences", json=[api.label(name, at, hours=at) for at, name in enumerate("ab")])
    assert hours(api, "inference_timestamp") == {"2024-05-01T12:00:00.000Z": 2}
    assert hours(api, "ground_truth_timestamp") == {"2024-05-02T12:00:00.000Z": 1, "2024-05-02T13:00:00.000Z": 1}
    since = {"property": "ground_truth_timestamp", "comparator": "gte", "value": "2024-05-02T13:00:00Z"}
    select = [{"property": "partner_inference_id"}, {"property": "delayed"}]
    assert api.query({"select": select, "from": "ground_truth", "filter": [since]}) == [
        {"partner_inference_id": "b", "delayed": 1}
    ]


def test_a_changed_label_leaves_the_hour_that_it_was_counted_in(api: Client) -> None:
    api.send("a")
    api.on("PATCH", "/inferences", json=[api.label("a", 0)])
    api.on("PATCH", "/ground_truth", json=[api.label("a", 1, hours=3)])
    assert hours(api, "ground_truth_timestamp") == {"2024-05-02T15:00:00.000Z": 1}
    assert api.labels() == {"a": 1}


def test_what_is_loaded_last_wins_however_old_it_is(sandbox: SandboxProcess, api: Client) -> None:
    api.send("a")
    sandbox.configure(loading_delay=30)
    api.upload(api.label_columns(["a"], [0]), part="ground_truth_data")
    api.on("PATCH", "/inferences", json=[api.label("a", 1, hours=1)])
    assert api.labels() == {"a": 1}
    sandbox.configure(loading_delay=0)
    sandbox.wait_until_loaded()
    assert api.labels() == {"a": 0}


def test_rows_of_labels_need_their_inference_to_be_loaded(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.configure(loading_delay=30)
    api.upload(api.columns(["a"]))
    result = send(api, "rows", ["a"])["results"][0]
    assert result == {"message": "no inference has this partner_inference_id", "status": 404}
    sandbox.configure(loading_delay=0)
    sandbox.wait_until_loaded()
    assert api.labels() == {}
    assert send(api, "rows", ["a"])["results"][0]["status"] == 200


def test_a_file_says_how_many_labels_have_no_inference_and_names_none(sandbox: SandboxProcess, api: Client) -> None:
    api.send("a")
    answer = send(api, "file", ["a", "stranger", "other"])
    assert answer == {
        "counts": {"success": 1, "failure": 2, "total": 3},
        "failures": [{"message": "2 rows: no inference has this partner_inference_id", "status": 404}],
    }
    sandbox.wait_until_loaded()
    assert api.labels() == {"a": 1}


def test_a_file_of_labels_as_json_is_taken(api: Client, sandbox: SandboxProcess) -> None:
    api.send("a", "b")
    body = str([api.label("a", 0), api.label("b", 1), api.row("b")]).replace("'", '"').encode()
    answer = api.upload(body, part="ground_truth_data").json()
    assert answer["counts"] == {"success": 2, "failure": 1, "total": 3}
    sandbox.wait_until_loaded()
    assert api.labels() == {"a": 0, "b": 1}


def test_a_file_with_another_column_than_labels_is_refused_whole(sandbox: SandboxProcess, api: Client) -> None:
    api.send("a")
    good = api.label_columns(["a"], [1])
    for wrong, message in (
        (good.append_column("carrier", pa.array(["UA"])), "'carrier' is not an attribute"),
        (good.drop_columns("delayed"), "'delayed' is missing"),
        (good.drop_columns("ground_truth_timestamp"), "'ground_truth_timestamp' is missing"),
        (good.set_column(2, "delayed", pa.array(["1"])), "'delayed' must be of type INTEGER"),
    ):
        answer = api.upload(wrong, part="ground_truth_data")
        assert answer.status_code == 400
        assert message in answer.json()["message"]
    sandbox.wait_until_loaded()
    assert api.labels() == {}


@pytest.mark.parametrize("kind", ["rows", "file"])
def test_faults_hit_labels_too(sandbox: SandboxProcess, api: Client, kind: Literal["rows", "file"]) -> None:
    api.send(*NAMES)
    sandbox.fault(Fault("lose_reply", kind=kind, count=1))
    with pytest.raises(requests.ConnectionError):
        send(api, kind, NAMES[:1])
    sandbox.wait_until_loaded()
    assert api.labels() == {NAMES[0]: 1}
    sandbox.fault(Fault("fail", kind=kind, count=1, status=500))
    assert "was told to fail" in send(api, kind, NAMES[:1], 0)["message"]
    sandbox.fault(Fault("drop", kind=kind, count=1, rows=0.5))
    assert send(api, kind, NAMES, 2)["counts"]["success"] == len(NAMES)
    sandbox.wait_until_loaded()
    arrived = [name for name, value in api.labels().items() if value == 2]
    assert 100 < len(arrived) < 300
    assert sandbox.model_stats(api.model_id)["dropped_rows"] == len(NAMES) - len(arrived)


def test_labels_of_a_file_show_only_when_they_are_loaded(sandbox: SandboxProcess, api: Client) -> None:
    api.send("a")
    sandbox.configure(loading_delay=30)
    assert send(api, "file", ["a"])["counts"]["success"] == 1
    assert api.labels() == {}
    sandbox.configure(loading_delay=0)
    sandbox.wait_until_loaded()
    assert api.labels() == {"a": 1}


def test_labelled_and_unlabelled_inferences_are_told_apart(sandbox: SandboxProcess, api: Client) -> None:
    model = api.registered("told apart")
    model.send("a", "b", "c")
    send(model, "rows", ["a", "b", "stranger"])
    send(model, "rows", ["b"], 0)
    stats = sandbox.model_stats(model.model_id)
    assert (stats["distinct"], stats["labels"], stats["unlabelled"]) == (3, 2, 1)
    page = requests.get(f"{sandbox.url}/", timeout=10).text
    assert "2024-05-01: 3 rows, 2 labelled" in page
    section = page[page.index(">told apart<") :]
    assert re.search(r"labelled\s+2\s+unlabelled\s+1", re.sub(r"<[^>]+>", " ", section))


def test_labels_can_be_lost_alone_or_with_their_inferences(sandbox: SandboxProcess, api: Client) -> None:
    api.send("a", "b", "c")
    send(api, "rows", ["a", "b", "c"])
    assert sandbox.lose(api.model_id, ["a", "never there"], stream="ground_truth") == 1
    assert (api.ids(), sorted(api.labels())) == (["a", "b", "c"], ["b", "c"])
    assert sandbox.lose(api.model_id, ["b"]) == 1
    assert (api.ids(), sorted(api.labels())) == (["a", "c"], ["c"])
    with pytest.raises(Misconfigured, match="neither 'inferences' nor 'ground_truth'"):
        sandbox.lose(api.model_id, ["c"], stream="reference")
