"""Every way to misbehave, on demand."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tidepost.errors import Misconfigured
from tidepost.sandbox import Fault, SandboxProcess

if TYPE_CHECKING:
    from tests.sandbox.conftest import Client


def last_request(sandbox: SandboxProcess) -> dict[str, Any]:
    """The newest entry of the record."""
    newest: dict[str, Any] = sandbox.stats()["requests"][0]
    return newest


def test_the_next_requests_of_a_kind_fail_and_accept_nothing(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.fault(Fault("fail", kind="file", count=2, status=502))
    assert api.send("a")["counts"]["success"] == 1  # of another kind
    table = api.columns(["b"])
    assert [api.upload(table).status_code for _ in range(3)] == [502, 502, 207]
    sandbox.wait_until_loaded()
    assert sorted(api.ids()) == ["a", "b"]
    assert sandbox.model_stats(api.model_id)["repeats_offered"] == 0


def test_a_fault_may_skip_requests_first(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.fault(Fault("fail", kind="rows", count=1, skip=2, status=400))
    statuses = [api.on("POST", "/inferences", json=[api.row(name)]).status_code for name in "abcd"]
    assert statuses == [207, 207, 400, 207]


def test_one_shot_faults_hit_one_request_each_in_their_order(sandbox: SandboxProcess, api: Client) -> None:
    for status in (500, 504):
        sandbox.fault(Fault("fail", kind="query", count=1, status=status))
    query = {"select": [{"function": "count"}]}
    assert [api.on("POST", "/inferences/query", json=query).status_code for _ in range(3)] == [500, 504, 200]


def test_throttling_names_the_seconds_to_wait(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.fault(Fault("throttle", kind="file", count=1, retry_after=7))
    response = api.upload(api.columns(["a"]))
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")
    assert sandbox.model_stats(api.model_id)["files"]["accepted"] == 0


def test_an_error_after_accepting_leaves_the_rows_there(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.fault(Fault("fail_after", kind="rows", count=1, status=500))
    assert api.on("POST", "/inferences", json=[api.row("a")]).status_code == 500
    assert api.ids() == ["a"]


@pytest.mark.parametrize("kind", ["rows", "file"])
def test_a_lost_reply_is_not_a_byte_and_the_rows_are_there(sandbox: SandboxProcess, api: Client, kind: str) -> None:
    sandbox.configure(faults=[{"fault": "lose_reply", "kind": kind, "count": 1}])
    with pytest.raises(requests.ConnectionError, match="Remote end closed connection without response"):
        _ = api.send("a") if kind == "rows" else api.upload(api.columns(["a"]))
    assert (last_request(sandbox)["status"], last_request(sandbox)["fault"]) == (None, "lose_reply")
    sandbox.wait_until_loaded()
    assert api.ids() == ["a"]


def test_a_reset_comes_in_mid_body_and_nothing_is_accepted(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.fault(Fault("reset", kind="file", count=1, after_bytes=100_000))
    with socket.create_connection(("127.0.0.1", int(sandbox.url.rpartition(":")[2])), timeout=10) as raw:
        target = f"/api/v3/models/{api.model_id}/inferences/file"
        raw.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode())
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            raw.sendall(b"x" * 32_000_000)
    seen = last_request(sandbox)
    assert seen["fault"] == "reset"
    assert 100_000 <= seen["bytes"] < 32 << 20
    assert sandbox.model_stats(api.model_id)["files"]["accepted"] == 0
    assert api.upload(api.columns(["a"])).status_code == 207


def test_a_body_shorter_than_that_is_reset_at_its_end(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.fault(Fault("reset", kind="rows", count=1, after_bytes=10_000_000))
    with pytest.raises(requests.ConnectionError):
        api.send("a")
    assert api.count() == 0


def test_a_delay_goes_together_with_another_fault(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.fault(Fault("delay", kind="query", count=1, seconds=0.3))
    sandbox.fault(Fault("fail", kind="query", count=1, status=503))
    started = time.monotonic()
    assert api.on("POST", "/inferences/query", json={"select": [{"function": "count"}]}).status_code == 503
    assert time.monotonic() - started >= 0.3
    assert last_request(sandbox)["fault"] == "delay, fail"


@pytest.mark.parametrize("kind", ["rows", "file"])
def test_rows_are_dropped_after_a_yes(sandbox: SandboxProcess, api: Client, kind: str) -> None:
    sandbox.configure(faults=[{"fault": "drop", "kind": kind, "rows": 0.25, "count": 1}])
    names = [f"{at:04}" for at in range(2000)]
    answer = api.send(*names) if kind == "rows" else api.upload(api.columns(names)).json()
    assert answer["counts"] == {"success": 2000, "failure": 0, "total": 2000}
    sandbox.wait_until_loaded()
    assert 1400 < api.count() < 1600
    assert sandbox.model_stats(api.model_id)["dropped_rows"] == 2000 - api.count()
    again = api.upload(api.columns(names)).json()
    assert again["counts"]["failure"] == 2000 - sandbox.model_stats(api.model_id)["dropped_rows"]
    sandbox.wait_until_loaded()
    assert sorted(api.ids()) == names


def test_the_same_rows_are_dropped_for_the_same_seed(sandbox: SandboxProcess, api: Client) -> None:
    kept = []
    for run, seed in enumerate((7, 7, 8)):
        sandbox.configure(seed=seed, faults=[{"fault": "drop", "rows": 0.5}])
        model = api.registered(f"dropped, run {run}")
        model.send(*(f"{at:03}" for at in range(200)))
        kept.append(model.ids())
    assert kept[0] == kept[1] != kept[2]


def test_a_share_of_requests_fails_and_a_seed_repeats_which(sandbox: SandboxProcess, api: Client) -> None:
    runs = []
    for _ in range(2):
        sandbox.configure(seed=3, faults=[{"fault": "fail", "kind": "other", "share": 0.3}])
        runs.append([api.call("GET", "/users/me").status_code for _ in range(40)])
    assert runs[0] == runs[1]
    assert 4 <= runs[0].count(503) <= 20


def test_slow_loading_takes_its_time(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.configure(loading_rate=1000)
    api.upload(api.columns([f"{at}" for at in range(300)]))
    started = time.monotonic()
    assert api.count() == 0
    sandbox.wait_until_loaded()
    assert time.monotonic() - started >= 0.2
    assert api.count() == 300


def test_faults_may_be_given_at_the_start(
    start: Callable[..., SandboxProcess], client: Callable[[SandboxProcess], Client]
) -> None:
    faults = [Fault("fail", kind="other", skip=1, count=1, status=500), Fault("delay", seconds=0.01)]
    own = client(start(faults=faults))
    assert [own.call("GET", "/users/me").status_code for _ in range(3)] == [200, 500, 200]


def test_settings_show_what_is_in_force_and_never_the_key(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.fault(Fault("fail", kind="other", count=3))
    api.call("GET", "/users/me")
    shown = requests.get(f"{sandbox.url}/sandbox/settings", timeout=10).json()
    assert [fault["count"] for fault in shown.pop("faults")] == [2]
    assert shown == {
        "on_repeat": "refuse",
        "loading_delay": 0.0,
        "loading_rate": None,
        "provisioning_delay": 0.0,
        "seed": 0,
        "now": None,
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on_repeat": "forget"}, "on_repeat 'forget'"),
        ({"port": 1}, "'port' is none of"),
        ({"loading_delay": "long"}, "loading_delay must be of type float"),
        ({"loading_delay": -1}, "cannot be negative"),
        ({"loading_rate": 0}, "above 0"),
        ({"faults": {}}, "faults must be a list"),
        ({"faults": [{"kind": "file"}]}, "a fault is an object"),
        ({"faults": [{"fault": "explode"}]}, "fault 'explode'"),
        ({"faults": [{"fault": "fail", "kind": "cake"}]}, "kind 'cake'"),
        ({"faults": [{"fault": "fail", "share": 2}]}, "share"),
        ({"faults": [{"fault": "fail", "status": 200}]}, "status 200"),
        ({"faults": [{"fault": "fail", "count": 0}]}, "count"),
        ({"faults": [{"fault": "delay", "seconds": -1}]}, "negative"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_and_changes_nothing(
    sandbox: SandboxProcess, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(Misconfigured, match=message):
        sandbox.configure(seed=9, **values)
    assert requests.get(f"{sandbox.url}/sandbox/settings", timeout=10).json()["seed"] == 0


@pytest.mark.parametrize("text", ["fail,kind=file,share", "fail,cake=1", "fail,count=x"])
def test_a_fault_on_a_command_line_is_read_strictly(text: str) -> None:
    with pytest.raises(Misconfigured):
        Fault.from_text(text)


def test_a_fault_survives_being_written_as_text() -> None:
    for name, count in itertools.product(("fail", "reset", "drop"), (None, 3)):
        fault = Fault.from_mapping({"fault": name, "kind": "file", "share": 0.5, "count": count, "after_bytes": 10})
        assert Fault.from_text(fault.to_text()) == fault
