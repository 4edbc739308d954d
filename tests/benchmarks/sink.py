"""A platform that takes files as fast as they come: enough of Arthur's API v3, and of Arize's, for an upload,
and no more.

It keeps no rows, only how many came for each hour, which is what a client asks for that wants to know what arrived.
Run as `python -m tests.benchmarks.sink LATENCY MODEL`: seconds before each answer, and a file that holds the model's
definition. Prints its port. `POST /forget` makes it as new.
"""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

ORGANIZATION = "5a9d0000-0000-4000-8000-000000000001"
HOUR = 3600


class Sink(ThreadingHTTPServer):
    """What arrived, by hour of event time."""

    request_queue_size = 128

    def __init__(self, latency: float, model: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.latency, self.model = latency, model
        self.hours: Counter[int] = Counter()
        self.lock = threading.Lock()

    def take(self, file: bytes) -> int:
        """Count a parquet file's rows; returns how many there are."""
        times = pq.read_table(io.BytesIO(file), columns=["inference_timestamp"]).column(0)
        seconds = pc.divide(times.cast("int64"), 1_000_000)
        counted = pc.value_counts(pc.divide(seconds, HOUR)).to_pylist()
        with self.lock:
            self.hours.update({one["values"]: one["counts"] for one in counted})
        return len(times)

    def counts(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows by hour, of the window that a query's filter names."""
        ends = {one["comparator"]: datetime.fromisoformat(one["value"]).timestamp() for one in question["filter"]}
        with self.lock:
            found = sorted(self.hours.items())
        return [
            {"bucket": datetime.fromtimestamp(hour * HOUR, UTC).isoformat(), "rows": rows}
            for hour, rows in found
            if ends["gte"] <= hour * HOUR < ends["lt"]
        ]


class Handler(BaseHTTPRequestHandler):
    server: Sink
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        if self.path.startswith("/api/v3/users/me"):
            self._answer(200, {"login": "sink", "organization_id": ORGANIZATION})
        else:
            self._answer(200, self.server.model)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/forget":
            self.server.hours.clear()
            self._answer(200, {})
        elif self.path.endswith("/inferences/file"):
            rows = self.server.take(_file(body, self.headers["Content-Type"]))
            self._answer(207, {"counts": {"success": rows, "failure": 0, "total": rows}, "failures": []})
        elif self.path == "/v1/pandas_arrow":
            self._answer(200, {"realTimeIngestionUri": "/"})
        else:
            self._answer(200, {"query_result": self.server.counts(json.loads(body))})

    def _answer(self, status: int, content: object) -> None:
        time.sleep(self.server.latency)
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


def _file(body: bytes, content_type: str) -> bytes:
    """The parquet file in a form whose last part it is."""
    boundary = content_type.partition("boundary=")[2].strip('"')
    return body[body.index(b"\r\n\r\nPAR1") + 4 : body.rindex(f"\r\n--{boundary}--".encode())]


def main() -> None:
    sink = Sink(float(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
    print(sink.server_address[1], flush=True)
    sink.serve_forever()


if __name__ == "__main__":
    main()
