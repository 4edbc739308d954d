"""tidepost's own part of a case: a project with one job, and runs of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.data import ATTRIBUTES, NON_INPUTS, URL, day
from tests.benchmarks.measure import Contender, nothing, sample

PYTHON = Path(sys.executable)
MODEL = "uploads-model"
LATER = day(10_000)
"""A clock by which everything has settled."""
MEMORY, THREADS = "256MB", min(4, os.cpu_count() or 1)
"""tidepost's own defaults, which bare DuckDB is given too."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project in a folder. Its job is named `uploads`."""

    root: Path

    @classmethod
    def make(
        cls, root: Path, source: object, *, start: datetime, cut_rows: int, lookback: str = "0s", url: str = URL
    ) -> Project:
        """A project whose job reads a source from a time on, and looks ids up within `lookback`."""
        shutil.rmtree(root, ignore_errors=True)
        (root / "jobs").mkdir(parents=True)
        (root / "tidepost.yaml").write_text("version: 1\n")
        definition: dict[str, Any] = {
            "version": 1,
            "name": "uploads",
            "source": source,
            "cursor": {"column": "logged_at", "start": start.isoformat(), "settle": "0s", "lookback": lookback},
            "mapping": {
                "partner_inference_id": "id",
                "inference_timestamp": "at",
                "inputs": ["distance", "carrier"],
                "predictions": ["score"],
                "non_inputs": list(NON_INPUTS),
            },
            "limits": {"cut_rows": cut_rows, "memory": MEMORY, "threads": THREADS},
            "destination": {"type": "arthur", "url": url, "api_key": "${BENCH_KEY}", "model": MODEL},
        }
        (root / "jobs" / "uploads.yaml").write_text(json.dumps(definition, indent=1))
        return cls(root)

    def change(self, section: str, **changes: object) -> Project:
        """Change keys of the job's definition."""
        path = self.root / "jobs" / "uploads.yaml"
        definition = json.loads(path.read_text())
        definition[section] |= changes
        path.write_text(json.dumps(definition, indent=1))
        return self

    def put(self, section: str, **content: object) -> Project:
        """Write a section of the job's definition anew."""
        path = self.root / "jobs" / "uploads.yaml"
        path.write_text(json.dumps({**json.loads(path.read_text()), section: content}, indent=1))
        return self

    def copied(self, root: Path) -> Project:
        """A copy as it is now; staged files, which never change, are the same ones."""
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.root, root, copy_function=_copy)
        return Project(root)

    def forget(self) -> None:
        """Remove the ledger and everything that was staged."""
        shutil.rmtree(self.root / ".tidepost", ignore_errors=True)

    @property
    def ledger(self) -> Path:
        return self.root / ".tidepost" / "ledger.db"

    @property
    def staged(self) -> Path:
        return self.root / ".tidepost" / "staging" / "uploads" / "inferences"

    def run(
        self,
        name: str,
        *,
        what: str = "stage",
        now: datetime = LATER,
        before: Callable[[], object] = nothing,
        env: Sequence[tuple[str, str]] = (),
    ) -> Contender:
        """A run as a contender; `what` is `stage` or `label` to send nothing, else `deliver`."""

        def prepare() -> None:
            before()

        arguments = (self.root, now.timestamp(), what)
        settings = {"BENCH_KEY": "an-access-key", **dict(env)}
        return Contender(name, PYTHON, "tidepost_run.py", arguments, prepare, settings)

    def done(self, scratch: Path, *, now: datetime = LATER, what: str = "stage") -> Project:
        """The project after a run."""
        sample(self.run("tidepost", now=now, what=what), scratch)
        return self


def model() -> dict[str, Any]:
    """The definition of the model that the job uploads to, as the platform shows it."""
    attributes = [
        {"name": name, "value_type": type_, "stage": stage, "position": position}
        for position, (name, type_, stage) in enumerate(ATTRIBUTES)
    ]
    return {
        "id": "5a9d0000-0000-4000-8000-000000000002",
        "partner_model_id": MODEL,
        "display_name": MODEL,
        "input_type": "TABULAR",
        "output_type": "REGRESSION",
        "is_batch": False,
        "status": "Ready",
        "attributes": attributes,
    }


def _copy(source: str, target: str) -> None:
    if source.endswith(".parquet"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)
