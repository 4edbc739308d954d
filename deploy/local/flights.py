"""The flights as a service logs them: the demo's project, the platform that they go to, and a log that grows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidepost.cursor import HOUR
from tidepost.demo.demo import JOB, KEY, Moment, create_project, log_flights, register_model
from tidepost.sandbox import SandboxProcess

DAYS: Final = 7
DAG: Final = f"upload_{JOB}"
"""The id of the job's DAG."""


@dataclass
class Flights:
    """The demo's project in a folder, with a platform of its own.

    moment: the log holds what was logged before it
    """

    root: Path
    sandbox: SandboxProcess
    moment: Moment

    @property
    def env(self) -> dict[str, str]:
        """What the job's definition refers to."""
        return {"SANDBOX_URL": self.sandbox.url, "ARTHUR_API_KEY": KEY}

    def grow(self) -> None:
        """Another hour of flights is logged."""
        self.reach(Moment.at(self.moment.until + HOUR))

    def reach(self, moment: Moment) -> None:
        """Flights are logged up to a moment."""
        self.moment = moment
        log_flights(self.root, moment)

    def arrived(self) -> int:
        """Rows at the platform, repeats counted."""
        return sum(int(model["rows"]) for model in self.sandbox.stats()["models"])


@contextmanager
def flights(folder: Path, *, days: int = DAYS, port: int = 0) -> Iterator[Flights]:
    """The project and its running platform for the block; what both held is kept. Where the log held these days
    already, it holds one more."""
    root = folder / "project"
    create_project(root)
    known = len(list((root / "log" / JOB).glob("*.parquet")))
    moment = Moment.after(max(days, known + 1))
    log_flights(root, moment)
    with SandboxProcess(folder / "sandbox", port=port, on_repeat="keep") as sandbox:
        register_model(sandbox.url)
        yield Flights(root, sandbox, moment)
