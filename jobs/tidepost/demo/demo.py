"""The demo run: real logs, and a platform on this machine. `proof.py` shows that every row arrived once.

Whatever was killed at whatever moment, the same call again ends with the same numbers.
"""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

from tidepost.cursor import to_datetime, to_nanoseconds
from tidepost.demo.flights import day_start, write_log
from tidepost.demo.growing import LogSummary
from tidepost.demo.landings import drop_reports, write_landings
from tidepost.errors import Misconfigured, Retryable
from tidepost.sandbox import SandboxProcess

JOB: Final = "flights"
PORT: Final = 8765
KEY: Final = "demo"
"""The sandbox takes any key; the demo's own is no secret, and a real one is never sent to it."""
SETTLED: Final = timedelta(hours=1)
"""From the end of the log to the demo's clock: longer than the job's settle, so that every row may be read."""
_HOST: Final = "127.0.0.1"
_MODEL: Final = "arthur_model.json"
_ASKING_SECONDS: Final = 2.0
_STAYING_SECONDS: Final = 1.0
_ENDING_SECONDS: Final = 10.0
_READY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a demo goes: the log holds what was logged before `until`, and the run's clock stands at `clock`."""

    until: int
    clock: float

    @classmethod
    def after(cls, days: int) -> Moment:
        end = day_start(days)
        return cls(to_nanoseconds(end), (end + SETTLED).timestamp())

    @classmethod
    def at(cls, nanoseconds: int) -> Moment:
        return cls(nanoseconds, to_datetime(nanoseconds).timestamp())


def create_project(root: Path) -> tuple[Path, ...]:
    """Put the demo's project into a folder; files that are there stay as they are. Returns what was created."""
    created = []
    with as_file(files("tidepost.demo") / "project") as template:
        for source in sorted(path for path in template.rglob("*") if path.is_file()):
            target = root / source.relative_to(template)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                created.append(target)
    return tuple(created)


@dataclass(frozen=True, slots=True)
class Logged:
    """What lies in the project for the job to upload: inferences, labels, and labels that were reported weekly."""

    flights: LogSummary
    landings: LogSummary
    reports: LogSummary


def log_flights(root: Path, moment: Moment) -> Logged:
    """Bring the project's logs up to the moment. Raises Misconfigured without the package of flights."""
    until = to_datetime(moment.until)
    return Logged(
        write_log(root / "log" / JOB, until=until),
        write_landings(root / "log" / "landings", until=until),
        drop_reports(root / "log" / "reports", until=until),
    )


# ------------------------------------------------------------------------------------------------- platform


@contextmanager
def platform(data: Path, port: int) -> Iterator[str]:
    """The URL of a sandbox on `data`: one that runs there already, else one of our own, which ends with the block.

    It keeps rows that come twice, so that a second copy would be seen. Raises Misconfigured where the port is taken
    by something else, or where the data are in use by a sandbox on another port.
    """
    data = data.resolve()
    deadline = time.monotonic() + _ENDING_SECONDS
    while True:
        if port and (found := _identity(port)) is not None:
            if found.get("name") != "tidepost sandbox" or found.get("data") != str(data):
                what = f"a sandbox on {found['data']}" if found.get("data") else "something else"
                raise Misconfigured(
                    f"port {port} is taken by {what}", hint="Name another port:  tidepost demo --port 8766"
                )
            if _goes_away(port):
                continue
            yield f"http://{_HOST}:{port}"
            return
        sandbox = SandboxProcess(data, port=port, on_repeat="keep")
        try:
            sandbox.start()
        except Misconfigured as error:
            if "another sandbox" not in error.message:
                raise
            # The sandbox of a demo that was killed ends by itself, a moment after it.
            if time.monotonic() > deadline:
                hint = "Stop it, or name the port that it serves:  tidepost demo --port PORT"
                raise Misconfigured(error.message.splitlines()[0], hint=hint) from None
            time.sleep(0.2)
            continue
        try:
            yield sandbox.url
        finally:
            sandbox.stop()
        return


def _goes_away(port: int) -> bool:
    """Whether a sandbox is about to end: that of a demo that was just killed still answers for a moment."""
    until = time.monotonic() + _STAYING_SECONDS
    while time.monotonic() < until:
        time.sleep(_STAYING_SECONDS / 5)
        if _identity(port) is None:
            return True
    return False


def _identity(port: int) -> dict[str, Any] | None:
    """What answers at a port: a sandbox's name and data, an empty mapping for something else, None for nothing."""
    connection = http.client.HTTPConnection(_HOST, port, timeout=_ASKING_SECONDS)
    try:
        connection.request("GET", "/sandbox")
        found = json.loads(connection.getresponse().read())
    except ConnectionError:
        return None
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return found if isinstance(found, dict) else {}


def register_model(url: str) -> bool:
    """Register the model that the flights are inferences of. False where it was there. Raises Retryable."""
    definition = (files("tidepost.demo") / _MODEL).read_bytes()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=_READY_SECONDS)
    headers = {"Authorization": KEY, "Content-Type": "application/json"}
    try:
        connection.request("POST", "/api/v3/models", body=definition, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise Retryable(f"the sandbox at {url} does not answer: {error}", hint="Run the demo again.") from error
    finally:
        connection.close()
    if answer.status not in (http.HTTPStatus.CREATED, http.HTTPStatus.CONFLICT):
        raise Misconfigured(f"the sandbox did not take the model: {answer.status} {text[:200]}")
    return answer.status == http.HTTPStatus.CREATED


def environment(url: str, env: Mapping[str, str]) -> dict[str, str]:
    """The environment that the demo's job is wired in: its sandbox, and a key of its own."""
    return {**env, "SANDBOX_URL": url, "ARTHUR_API_KEY": KEY}
