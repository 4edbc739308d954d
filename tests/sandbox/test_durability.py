"""What was accepted is there exactly once, whatever happens to the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import requests

from tidepost.errors import Misconfigured
from tidepost.sandbox import SandboxProcess, Settings
from tidepost.sandbox.server import serve

if TYPE_CHECKING:
    from tests.sandbox.conftest import Client

Start = Callable[..., SandboxProcess]
MakeClient = Callable[[SandboxProcess], "Client"]


def test_kills_while_loading_lose_nothing_and_double_nothing(start: Start, client: MakeClient) -> None:
    sandbox = start(loading_delay=30, on_repeat="keep")
    api = client(sandbox).registered("killed")
    files = [[f"{part:02}-{at:05}" for at in range(20_000)] for part in range(10)]
    for names in files:
        assert api.upload(api.columns(names)).status_code == 207
    for moment in (0.0, 0.12, 0.3):
        sandbox.configure(loading_delay=0)
        time.sleep(moment)
        sandbox.kill()
        sandbox.restart()
    assert sandbox.url == api.url
    sandbox.configure(loading_delay=0)
    sandbox.wait_until_loaded()
    ids = requests.get(f"{sandbox.url}/sandbox/models/{api.model_id}/ids", timeout=30).json()
    assert ids == {"rows": 200_000, "distinct": 200_000, "doubled": 0, "ids": []}
    assert sandbox.model_stats(api.model_id)["files"] == {"accepted": 10, "loaded": 10, "pending": 0}


def test_a_kill_right_after_the_answer_loses_no_row(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.configure(loading_delay=0.2)
    api.send("row")
    api.on("PATCH", "/inferences", json=[api.label("row", 5)])
    api.upload(api.columns(["file"]))
    sandbox.kill()
    sandbox.restart()
    sandbox.wait_until_loaded()
    assert sorted(api.ids()) == ["file", "row"]
    assert api.labels() == {"row": 5}


def test_a_kill_in_the_middle_of_an_upload_leaves_nothing_of_it(sandbox: SandboxProcess, api: Client) -> None:

    def half() -> object:
        yield b'--x\r\nContent-Disposition: form-data; name="inference_data"\r\n\r\nPAR1'
        time.sleep(0.1)
        sandbox.kill()

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    with pytest.raises(requests.ConnectionError):
        api.on("POST", "/inferences/file", data=half(), headers=form)
    sandbox.restart()
    assert list((sandbox.data / "incoming").iterdir()) == []
    assert sandbox.model_stats(api.model_id)["files"]["accepted"] == 0


def test_a_file_half_queued_by_a_crash_was_not_accepted(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.kill()
    (sandbox.data / "intake" / "000000000009.parquet").write_bytes(b"PAR1")
    sandbox.restart()
    sandbox.wait_until_loaded()
    assert api.count() == 0
    assert list((sandbox.data / "intake").iterdir()) == []


def test_a_file_that_cannot_be_loaded_now_stays_queued_and_holds_no_other_up(
    sandbox: SandboxProcess, api: Client
) -> None:
    sandbox.configure(loading_delay=30)
    api.upload(api.columns(["a"]))
    api.upload(api.columns(["b"]))
    first = sorted((sandbox.data / "intake").glob("*.parquet"))[0]
    aside = first.rename(sandbox.data / "aside")
    sandbox.configure(loading_delay=0)
    until = time.monotonic() + 30
    while api.ids() != ["b"]:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert sandbox.stats()["loading_errors"]
    assert sandbox.model_stats(api.model_id)["files"] == {"accepted": 2, "loaded": 1, "pending": 1}
    aside.rename(first)
    sandbox.restart()
    sandbox.configure(loading_delay=0)
    sandbox.wait_until_loaded()
    assert api.ids() == ["a", "b"]


def test_a_stop_in_the_middle_of_loading_is_quick_and_keeps_the_queue(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.configure(loading_rate=10)
    api.upload(api.columns([f"{at}" for at in range(100)]))
    started = time.monotonic()
    sandbox.stop()
    assert time.monotonic() - started < 2
    sandbox.start()
    sandbox.configure(loading_rate=None)
    assert sandbox.model_stats(api.model_id)["files"]["accepted"] == 1


def test_a_second_sandbox_on_the_same_data_is_refused(sandbox: SandboxProcess) -> None:
    with pytest.raises(Misconfigured, match=rf"another sandbox \(process {sandbox.pid}\) is using"):
        serve(Settings(data=sandbox.data, port=0), announce=pytest.fail)


def test_a_port_that_is_taken_is_refused_and_the_option_named(sandbox: SandboxProcess, tmp_path: Path) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(Misconfigured, match=rf"port {port} on 127.0.0.1 is taken\n.*--port"):
        serve(Settings(data=tmp_path, port=port), announce=pytest.fail)


def test_a_process_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "sandbox.duckdb").write_text("something else")
    with pytest.raises(Misconfigured, match="not a valid DuckDB database"), SandboxProcess(tmp_path):
        pytest.fail("it started")


def test_a_sandbox_ends_with_its_parent_however_that_dies(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time; from tidepost.sandbox import SandboxProcess\n"
        "process = SandboxProcess(pathlib.Path(sys.argv[1])).start()\n"
        "print(process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "data")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        child.wait(timeout=30)


def test_a_signal_ends_the_program_in_order(start: Start) -> None:
    sandbox = start()
    process = psutil.Process(sandbox.pid)
    os.kill(sandbox.pid, signal.SIGINT)
    until = time.monotonic() + 30
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert (sandbox.data / "sandbox.log").read_text() == ""
