"""Jobs of one project that a real Airflow runs: each with a log, and a model of its own at the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tests.world import Platform, Row, table

from tidepost.definition.project import load_project
from tidepost.ledger.sql import SqlLedger
from tidepost.ledger.summary import StreamSummary
from tidepost.wire import ledger_of


@dataclass
class Upload:
    """A job whose log lies in `log/NAME/`."""

    root: Path
    name: str
    platform: Platform
    model_id: str

    @classmethod
    def define(cls, root: Path, name: str, platform: Platform, *, cut_rows: int = 1000, **job: Any) -> Upload:
        """Write a job's definition, with `job` on top of what is usual, and register its model."""
        model, model_id = platform.register()
        (root / "jobs").mkdir(parents=True, exist_ok=True)
        (root / "log" / name).mkdir(parents=True)
        (root / "tidepost.yaml").write_text("version: 1\n")
        usual = {
            "version": 1,
            "name": name,
            "schedule": "@hourly",
            "source": f"log/{name}/*.parquet",
            "cursor": {"column": "logged_at", "start": "2024-05-01T00:00:00Z", "settle": "10m", "lookback": "1d"},
            "mapping": {
                "partner_inference_id": "id",
                "inference_timestamp": "at",
                "inputs": ["distance", "carrier"],
                "predictions": ["score"],
                "non_inputs": ["note"],
            },
            "limits": {"cut_rows": cut_rows, "memory": "200MB", "threads": 1},
            "destination": {
                "type": "arthur",
                "url": "${SANDBOX_URL}",
                "api_key": "${ARTHUR_API_KEY}",
                "model": model,
                "loading": "5s",
                "poll": "1s",
            },
            "airflow": {"retry_delay": "2s"},
        }
        (root / "jobs" / f"{name}.yaml").write_text(json.dumps(usual | job, indent=1))
        return cls(root, name, platform, model_id)

    @property
    def dag(self) -> str:
        """The id of its DAG."""
        return f"upload_{self.name}"

    def log(self, name: str, of: Sequence[Row]) -> None:
        """Write a file of the log, whole, as a log shipper does."""
        path = self.root / "log" / self.name / f"{name}.parquet"
        draft = path.with_suffix(".draft")
        pq.write_table(table(of), draft)
        draft.replace(path)

    def held(self) -> tuple[int, int, int]:
        """Rows, ids, and ids that are there twice, at the platform."""
        self.platform.process.wait_until_loaded()
        stats = self.platform.process.model_stats(self.model_id)
        return int(stats["rows"]), int(stats["distinct"]), int(stats["doubled"])

    def repeats_offered(self) -> int:
        """Rows that came to the platform with an id that was there."""
        return int(self.platform.process.model_stats(self.model_id)["repeats_offered"])

    @contextmanager
    def ledger(self) -> Iterator[SqlLedger]:
        with ledger_of(load_project(self.root)) as ledger:
            yield ledger

    def summary(self) -> StreamSummary | None:
        """What the ledger knows of it; None before its first run."""
        with self.ledger() as ledger:
            return next(iter(ledger.reports.summary(self.name)), None)

    def deliveries(self) -> dict[str, int]:
        """Its deliveries by their state."""
        found = self.summary()
        if found is None or not found.destinations:
            return {}
        return {state.value: number for state, number in found.destinations[0].deliveries.items()}
