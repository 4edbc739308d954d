"""A sandbox to test against, and a small client of Arthur's API that hides nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from tidepost.sandbox import SandboxProcess

KEY = "an-access-key"
START = datetime(2024, 5, 1, 12, tzinfo=UTC)
ATTRIBUTES = (
    ("distance", "FLOAT", "PIPELINE_INPUT"),
    ("carrier", "STRING", "PIPELINE_INPUT"),
    ("seats", "INTEGER", "NON_INPUT_DATA"),
    ("weekend", "BOOLEAN", "NON_INPUT_DATA"),
    ("booked_at", "TIMESTAMP", "NON_INPUT_DATA"),
    ("probability", "FLOAT", "PREDICTED_VALUE"),
    ("delayed", "INTEGER", "GROUND_TRUTH"),
)


class Client:
    """Calls of Arthur's API on one model, which `registered` makes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.model_id = ""

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """One call below /api/v3, with the headers that every call carries."""
        headers = {"Authorization": KEY, "Arthur-Organization-ID": "an-organisation", "Accept": "application/json"}
        headers |= options.pop("headers", {})
        return requests.request(method, f"{self.url}/api/v3{path}", headers=headers, timeout=30, **options)

    def definition(self, name: str, **changes: Any) -> dict[str, Any]:
        """A model that may be registered."""
        attributes = [{"name": n, "value_type": v, "stage": s, "position": 0} for n, v, s in ATTRIBUTES]
        plain = {"partner_model_id": name, "display_name": name, "input_type": "TABULAR", "is_batch": False}
        return plain | {"output_type": "REGRESSION", "attributes": attributes} | changes

    def registered(self, name: str, **changes: Any) -> Client:
        """A client of a new model, on the same sandbox."""
        response = self.call("POST", "/models?async_model_provisioning=True", json=self.definition(name, **changes))
        assert response.status_code == 201, response.text
        other = Client(self.url)
        other.model_id = response.json()["id"]
        return other

    def on(self, method: str, path: str, **options: Any) -> requests.Response:
        """One call on this model."""
        return self.call(method, f"/models/{self.model_id}{path}", **options)

    def row(self, name: str, *, minutes: float = 0.0, **changes: Any) -> dict[str, Any]:
        """An inference as JSON; a change goes where its key belongs, and `...` takes the key away."""
        data: dict[str, Any] = {"distance": 512.5, "carrier": "UA", "seats": 180, "probability": 0.25}
        row: dict[str, Any] = {
            "partner_inference_id": name,
            "inference_timestamp": (START + timedelta(minutes=minutes)).isoformat(),
            "inference_data": data,
        }
        for key, value in changes.items():
            target = row if key in ("batch_id", "ground_truth_data", "ground_truth_timestamp", *row) else data
            target[key] = value
            if value is ...:
                del target[key]
        return row

    def label(self, name: str, value: object = 1, *, hours: float = 0) -> dict[str, Any]:
        """Ground truth as JSON, known a day and some hours after the start."""
        known_at = (START + timedelta(days=1, hours=hours)).isoformat()
        return {
            "partner_inference_id": name,
            "ground_truth_timestamp": known_at,
            "ground_truth_data": {"delayed": value},
        }

    def send(self, *names: str) -> dict[str, Any]:
        """Sends one inference a name, a minute apart, as JSON."""
        rows = [self.row(name, minutes=at) for at, name in enumerate(names)]
        response = self.on("POST", "/inferences", json=rows)
        assert response.status_code == 207, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def columns(self, names: Sequence[str], **changes: Any) -> pa.Table:
        """Inferences as a table, a minute apart; a change replaces a column, and `...` takes it away."""
        columns: dict[str, Any] = {
            "partner_inference_id": pa.array(names, pa.string()),
            "inference_timestamp": pa.array(
                [START + timedelta(minutes=at) for at in range(len(names))], pa.timestamp("us", "UTC")
            ),
            "distance": pa.array([512.5] * len(names)),
            "carrier": pa.array(["UA"] * len(names)),
            "seats": pa.array([180] * len(names)),
            "probability": pa.array([0.25] * len(names)),
        }
        columns = {name: array for name, array in (columns | changes).items() if array is not ...}
        return pa.table(columns)

    def label_columns(self, names: Sequence[str], values: Sequence[int | None]) -> pa.Table:
        """Ground truth as a table."""
        known_at = pa.array([START + timedelta(days=1)] * len(names), pa.timestamp("us", "UTC"))
        labels = pa.array(values, pa.int64())
        return pa.table({"partner_inference_id": names, "ground_truth_timestamp": known_at, "delayed": labels})

    def upload(
        self, data: pa.Table | bytes, *, part: str = "inference_data", batch_id: str = ""
    ) -> requests.Response:
        """Sends a file as the SDK does: the batch first, then the data without a content type."""
        path = "/reference_data" if part == "reference_data" else "/inferences/file"
        parts: list[tuple[str, Any]] = [] if part != "inference_data" else [("batch_id", (None, batch_id))]
        return self.on("POST", path, files=[*parts, (part, ("data", as_file(data)))])

    def query(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of a query that is answered."""
        response = self.on("POST", "/inferences/query", json=body)
        assert response.status_code == 200, response.text
        rows: list[dict[str, Any]] = response.json()["query_result"]
        return rows

    def count(self) -> int:
        """How many inferences the model has."""
        return int(self.query({"select": [{"function": "count"}]})[0]["count"])

    def ids(self) -> list[str]:
        """The ids of all inferences, in order of time and id, each as often as it is stored."""
        order = [{"property": "inference_timestamp"}, {"property": "partner_inference_id"}]
        rows = self.query({"select": [{"property": "partner_inference_id"}], "order_by": order})
        return [row["partner_inference_id"] for row in rows]

    def labels(self) -> dict[str, Any]:
        """The labels by id."""
        select = [{"property": "partner_inference_id"}, {"property": "delayed"}]
        rows = self.query({"select": select, "from": "ground_truth"})
        return {row["partner_inference_id"]: row["delayed"] for row in rows}

    def close_batch(self, batch_id: str, total: int) -> requests.Response:
        """Closes a batch as the protocol wants it: its id percent-encoded."""
        body = {"status": "uploaded", "total_record_count": total}
        return self.on("PATCH", f"/batches/{quote(batch_id, safe='')}", json=body)


def as_file(data: pa.Table | bytes) -> bytes:
    """A table as a parquet file; bytes as they are."""
    if isinstance(data, bytes):
        return data
    target = io.BytesIO()
    pq.write_table(data, target)
    return target.getvalue()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """One sandbox for the tests that need none of their own."""
    with SandboxProcess(tmp_path_factory.mktemp("sandbox") / "data") as process:
        yield process


@pytest.fixture
def sandbox(shared: SandboxProcess) -> Iterator[SandboxProcess]:
    """The shared sandbox; what a test changes is put back."""
    before = {"on_repeat": "refuse", "loading_delay": 0, "loading_rate": None, "provisioning_delay": 0, "seed": 0}
    yield shared
    shared.configure(**before, faults=[])


@pytest.fixture
def api(sandbox: SandboxProcess, request: pytest.FixtureRequest) -> Client:
    """A client of a new model on the shared sandbox, named after the test."""
    return Client(sandbox.url).registered(request.node.name)


@pytest.fixture
def client() -> Callable[[SandboxProcess], Client]:
    """Makes a client of a sandbox of the test's own."""
    return lambda process: Client(process.url)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., SandboxProcess]]:
    """Starts sandboxes of the test's own, with the settings it gives; they end with the test."""
    with ExitStack() as stack:

        def started(**settings: Any) -> SandboxProcess:
            data = settings.pop("data", tmp_path / "data")
            return stack.enter_context(SandboxProcess(data, **settings))

        yield started


@pytest.fixture
def json_file() -> Callable[[object], bytes]:
    """Writes JSON as the body of a file."""
    return lambda value: json.dumps(value, indent=1).encode()
