"""A sandbox as a process of its own: started, asked, killed and started again by a program."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from tidepost.errors import Misconfigured, TidepostError
from tidepost.sandbox.catalog import Stream
from tidepost.sandbox.settings import Fault, OnRepeat

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 30.0
_PROGRAM: Final = (sys.executable, "-m", "tidepost.sandbox", "--until-stdin-ends")
_API_KEY_VARIABLE: Final = "TIDEPOST_SANDBOX_API_KEY"


class SandboxProcess:
    """A sandbox in a session of its own, on `data`; it ends with the block, and with this process at the latest,
    however this process ends. What it writes to standard error is in `data/sandbox.log`.

    The keywords are those of `Settings`. Raises Misconfigured when it cannot start, with what it said.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int = 0,
        api_key: str | None = None,
        on_repeat: OnRepeat = "refuse",
        loading_delay: float = 0.0,
        loading_rate: float | None = None,
        provisioning_delay: float = 0.0,
        memory_limit: str = "1GB",
        faults: Sequence[Fault] = (),
        seed: int = 0,
    ) -> None:
        self.data = data
        self._port = port
        self._api_key = api_key
        self._options = [
            f"--on-repeat={on_repeat}",
            f"--loading-delay={loading_delay}",
            f"--provisioning-delay={provisioning_delay}",
            f"--memory-limit={memory_limit}",
            f"--seed={seed}",
            *([] if loading_rate is None else [f"--loading-rate={loading_rate}"]),
            *(f"--fault={fault.to_text()}" for fault in faults),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end; it stays the same over `restart`."""
        return self._url

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._running().pid

    def start(self) -> Self:
        """Starts it and waits until it accepts connections."""
        self.data.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name != _API_KEY_VARIABLE}
        if self._api_key is not None:
            environment[_API_KEY_VARIABLE] = self._api_key
        log = self.data / "sandbox.log"
        with log.open("ab") as errors:
            said = errors.tell()
            self._process = subprocess.Popen(  # noqa: S603  # our own module
                [*_PROGRAM, f"--port={self._port}", f"--data={self.data}", *self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        line = self._first_line()
        if not line:
            self._end(signal.SIGKILL)
            message = log.read_bytes()[said:].decode(errors="replace").strip()
            raise Misconfigured(message or f"the sandbox did not start within {_START_SECONDS:g} s")
        self._url = json.loads(line)["url"]
        self._port = int(self._url.rpartition(":")[2])
        return self

    def stop(self) -> None:
        """Ends it in order; does nothing when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it as a crash would, with SIGKILL; does nothing when it does not run."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Starts it again on the same data and port, after ending it when it still runs."""
        self.stop()
        self.start()

    def stats(self) -> dict[str, Any]:
        """What GET /sandbox/stats answers."""
        return self._call("GET", "/sandbox/stats")

    def model_stats(self, model_id: str) -> dict[str, Any]:
        """The stats of one model, by its id."""
        (found,) = self._call("GET", f"/sandbox/stats?model={quote(model_id, safe='')}")["models"]
        return dict(found)

    def arize(self, space: str, model: str) -> dict[str, Any] | None:
        """The numbers of a model at Arize's side (see `arize/store.py`), None where nothing of it came."""
        found = self._call("GET", f"/sandbox/arize/stats?space={quote(space)}&model={quote(model)}")["models"]
        return dict(found[0]) if found else None

    def arize_records(self, space: str, model: str, ids: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """What of a model arrived at Arize's side, by prediction id: those asked for, or the first 10,000."""
        asked = {"space": space, "model": model, "ids": list(ids)}
        return {one["id"]: one for one in self._call("POST", "/sandbox/arize/records", asked)["records"]}

    def configure(self, **settings: Any) -> dict[str, Any]:
        """Changes settings while it runs (PATCH /sandbox/settings) and returns those in force."""
        return self._call("PATCH", "/sandbox/settings", settings)

    def fault(self, fault: Fault) -> None:
        """Puts one more fault in force; with a `count`, for that many requests."""
        self._call("POST", "/sandbox/faults", asdict(fault))

    def lose(self, model_id: str, ids: Sequence[str], *, stream: Stream = "inferences") -> int:
        """Let a model's inferences with these ids be gone, or their labels alone; returns how many rows went."""
        path = f"/sandbox/models/{quote(model_id, safe='')}/lose"
        return int(self._call("POST", path, {"ids": list(ids), "stream": stream})["rows"])

    def wait_until_loaded(self, *, seconds: float = 60.0) -> None:
        """Returns when nothing accepted is left to load; TidepostError when that takes longer than `seconds`."""
        until = time.monotonic() + seconds
        while self._call("GET", "/sandbox/queue")["pending"]:
            if time.monotonic() > until:
                raise TidepostError(f"the sandbox is still loading after {seconds:g} s")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise TidepostError("the sandbox does not run")
        return self._process

    def _first_line(self) -> bytes:
        """The line that says it is up; empty when it ended, or did not come up in time."""
        stdout = self._running().stdout
        assert stdout is not None  # noqa: S101  # it was asked for as a pipe
        ready, _, _ = select.select([stdout], [], [], _START_SECONDS)
        return stdout.readline() if ready else b""

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            for attempt in (how, signal.SIGKILL):
                if process.poll() is None:
                    os.killpg(process.pid, attempt)
                try:
                    process.wait(_STOP_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._url.removeprefix("http://"), timeout=_ANSWER_SECONDS)
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise Misconfigured(f"the sandbox answered {response.status}: {answer['message']}")
        return answer
