"""A bare consumer: it reads a topic's partitions from their beginning to their end, decodes each message's JSON, and
writes what it took as a parquet file, batch by batch. It checks nothing, remembers nothing, and sends nothing.
Arguments: the brokers, the topic, the file."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, TopicPartition

BATCH_ROWS = 10_000
SCHEMA = pa.schema(
    [
        ("partner_inference_id", pa.string()),
        ("inference_timestamp", pa.timestamp("us", "UTC")),
        ("distance", pa.int64()),
        ("carrier", pa.string()),
        ("score", pa.float64()),
        ("note", pa.string()),
    ]
)


def row(message: dict[str, Any]) -> tuple[object, ...]:
    """A message as a row of `SCHEMA`."""
    features = message["features"]
    return (
        message["request"]["id"],
        datetime.fromisoformat(message["request"]["at"]),
        features["distance"],
        features["carrier"],
        message["scores"][0],
        message["note"],
    )


def main(bootstrap: str, topic: str, file: str) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bare",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 10,  # by the default, a second, it would wait for most of its time
        }
    )
    partitions = [TopicPartition(topic, number, 0) for number in consumer.list_topics(topic).topics[topic].partitions]
    left = sum(consumer.get_watermark_offsets(one)[1] for one in partitions)
    consumer.assign(partitions)
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        while left > 0:
            messages = consumer.consume(min(left, BATCH_ROWS), timeout=1.0)
            left -= len(messages)
            rows = [row(json.loads(one.value() or b"")) for one in messages]
            if rows:
                columns = zip(*rows, strict=True)
                arrays = [pa.array(one, field.type) for one, field in zip(columns, SCHEMA, strict=True)]
                writer.write_table(pa.table(arrays, schema=SCHEMA))
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
