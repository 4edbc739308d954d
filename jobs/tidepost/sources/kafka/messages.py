"""Messages of one partition as Arrow batches, in order and in bounded memory."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import lt
from typing import Any, Final

import pyarrow as pa
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, Message, TopicPartition

from tidepost.errors import Misconfigured, Retryable
from tidepost.ranges import Range
from tidepost.sources.kafka.client import Client, Cluster
from tidepost.sources.kafka.columns import NO_VALUE, NOT_UTF8

MOST_MESSAGES, MOST_BYTES = 5_000, 8_000_000
"""Of one batch; a single message may be larger."""
QUIET: Final = 60.0
"""Seconds without a message or an end after which a partition counts as silent."""


def schema(headers: int) -> pa.Schema:
    """Of arriving messages, as `columns.py` reads them."""
    texts = ["k", "v", *(f"h{number}" for number in range(headers)), "bad"]
    return pa.schema([("o", pa.int64()), ("t", pa.int64()), *((name, pa.string()) for name in texts)])


Texts = Callable[[Sequence[bytes | None], list[str | None]], pa.Array]
"""Makes texts of values, and says of each that it cannot why, in the list beside them."""


@dataclass(slots=True)
class Arriving:
    """Reads a range of offsets of one partition once.

    keyed:   whether keys are read; otherwise they may hold anything
    missing: told of offsets that are gone before they were read; raises, or lets the rest be read
    texts:   makes values texts of JSON; None where they are
    failed:  what ended the reading
    """

    cluster: Cluster
    consumer: Client
    partition: int
    window: Range
    headers: Sequence[str]
    keyed: bool
    missing: Callable[[Range], None]
    texts: Texts | None = None
    failed: BaseException | None = None
    _position: int = field(init=False)
    _size: float = 1_000.0

    def __post_init__(self) -> None:
        self._position = self.window.start

    def begin(self) -> None:
        """Go to the first offset of the range that is not read yet. Raises Misconfigured where the partition ends
        before it, and what `missing` raises."""
        has = self.cluster.held(self.consumer, self.partition)
        if has.end < self._position:
            raise Misconfigured(
                f"kafka: {self.cluster.topic}/{self.partition} ends at offset {has.end}, and {self._position} is to "
                "be read: its topic was created anew, or lost its newest messages",
                safe="Nothing was staged.",
                hint="To upload the new topic from its start, give the job another name (`name:` in its file).",
            )
        if has.first > self._position:
            end = min(has.first, self.window.end)
            self.missing(Range(self._position, end))
            self._position = end
        if self._position < self.window.end:
            self.consumer.assign([TopicPartition(self.cluster.topic, self.partition, self._position)])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The messages; what fails is kept in `failed`, as who reads them wraps it in an error of its own."""
        try:
            yield from self._batches()
        except Exception as error:
            self.failed = error
            raise

    def _batches(self) -> Iterator[pa.RecordBatch]:
        heard = time.monotonic()
        while self._position < self.window.end:
            most = max(1, min(MOST_MESSAGES, int(MOST_BYTES / self._size)))
            messages = self.consumer.consume(most, timeout=0.1)
            taken = self._taken(messages)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > QUIET:
                raise Retryable(
                    f"kafka: {self.cluster.topic}/{self.partition} at offset {self._position}: no answer for "
                    f"{QUIET:.0f} s",
                    safe="Nothing was lost.",
                    hint="Run again when the brokers answer.",
                )
            if taken:
                yield self._batch(taken)

    def _taken(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages of the range; where one tells of an error instead, what follows from it."""
        if messages and not any(map(Message.error, messages)):
            offsets = [int(at or 0) for at in map(Message.offset, messages)]
            if self._position <= offsets[0] and offsets[-1] < self.window.end and all(map(lt, offsets, offsets[1:])):
                self._position = offsets[-1] + 1  # as nearly always: all of them, at little cost
                return messages
        taken = []
        for message in messages:
            error = message.error()
            if error is None:
                offset = int(message.offset() or 0)
                if self._position <= offset < self.window.end:
                    taken.append(message)
                self._position = max(self._position, min(offset + 1, self.window.end))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._position = max(self._position, min(int(message.offset() or 0), self.window.end))
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                self.begin()
                break
            else:
                raise self.cluster.told(error)
        return taken

    def _batch(self, messages: Sequence[Message]) -> pa.RecordBatch:
        values = list(map(Message.value, messages))
        self._size = max(1.0, sum(map(len, filter(None, values))) / len(values))
        bad: list[str | None] = [None] * len(values)
        if None in values:
            bad = [NO_VALUE if value is None else None for value in values]
        times = [None if kind == TIMESTAMP_NOT_AVAILABLE else at for kind, at in map(Message.timestamp, messages)]
        given = [dict(message.headers() or ()) for message in messages] if self.headers else []
        columns = [
            pa.array(list(map(Message.offset, messages)), pa.int64()),
            pa.array(times, pa.int64()),
            _texts(list(map(Message.key, messages)) if self.keyed else [None] * len(messages), bad),
            (self.texts or _texts)(values, bad),
            *(_texts([one.get(name) for one in given], bad) for name in self.headers),
            pa.array(bad, pa.string()),
        ]
        return pa.record_batch(columns, schema=schema(len(self.headers)))


def _texts(values: Sequence[Any], bad: list[str | None]) -> pa.Array:
    """Bytes as text; where they are not UTF-8, base64, and the message is poison."""
    found = pa.array(values, pa.binary())
    try:
        return found.cast(pa.string())
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        for number, value in enumerate(values):
            try:
                texts.append(None if value is None else bytes(value).decode())
            except UnicodeDecodeError:
                texts.append(base64.b64encode(value).decode())
                bad[number] = bad[number] or NOT_UTF8
        return pa.array(texts, pa.string())
