"""Messages of a Kafka topic, from the broker to a platform, beside a bare consumer that writes a parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from tests.benchmarks.cases.delivery import forget, sink
from tests.benchmarks.data import START, Data
from tests.benchmarks.measure import Case, Contender
from tests.benchmarks.project import PYTHON, Project
from tests.kafka import broker, flood

TOPIC = "inferences"
SECONDS = 30.0
EVERY = timedelta(milliseconds=17)
"""Between two events."""
COLUMNS = {
    "id": "request.id",
    "at": {"path": "request.at", "type": "timestamp"},
    "distance": {"path": "features.distance", "type": "integer"},
    "carrier": "features.carrier",
    "score": {"path": "scores[0]", "type": "float"},
    "note": "note",
}


@contextmanager
def kafka(data: Data) -> Iterator[Case]:
    """One partition, from its first message to its last, with all that a run does for it."""
    with broker(groups=True) as bootstrap, sink(data, 0.0) as url:
        produce(bootstrap, data.sizes.messages)
        source = {"kafka": {"bootstrap": bootstrap, "topic": TOPIC, "columns": COLUMNS}}
        project = Project.make(data.folder / "kafka", source, start=START, cut_rows=100_000, url=url)
        project.put("cursor", column="offset", start=0)
        project.change("mapping", non_inputs=["note"])

        def prepare() -> None:
            forget(url)
            project.forget()

        arguments = (bootstrap, TOPIC, data.folder / "messages.parquet")
        bare = Contender("a bare consumer to a parquet file", PYTHON, "kafka_consumer.py", arguments)
        ours = project.run("tidepost, until all has arrived", what="deliver", before=prepare)
        yield Case(f"{data.sizes.messages:,} JSON messages of a Kafka topic", (bare, ours), base=bare.name)


def produce(bootstrap: str, count: int) -> None:
    """Messages of about 190 bytes in a new topic."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(SECONDS)
    flood(bootstrap, TOPIC, map(message, range(count)))


def message(number: int) -> bytes:
    """An inference as an application may log it."""
    score = number % 101 / 100
    content = {
        "request": {"id": f"inference-{number}", "at": (START + number * EVERY).isoformat()},
        "features": {"distance": number % 900, "carrier": ("UA", "AA", "DL")[number % 3]},
        "scores": [score, 1 - score],
        "note": f"note {number % 5000}",
    }
    return json.dumps(content).encode()
