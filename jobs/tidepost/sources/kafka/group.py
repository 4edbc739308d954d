"""Which partitions this process follows: some that were named, or those that its consumer group gives it.

A member of the group takes no messages by it. The group only says whose partitions are whose, and keeps offsets; what
is read, and from where, the ledger says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from tidepost.errors import Misconfigured, TidepostError
from tidepost.sources.kafka.client import REFUSED, Client, Cluster

POLL: Final = 0.2


class Following(Protocol):
    """The partitions that are ours now, and their offsets in the group."""

    def partitions(self) -> frozenset[int]: ...
    def commit(self, marks: Mapping[int, int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Named:
    """Partitions that were named, for as long as this process lives."""

    cluster: Cluster
    named: frozenset[int]

    def partitions(self) -> frozenset[int]:
        return self.named

    def commit(self, marks: Mapping[int, int]) -> None:
        with self.cluster.consumer() as consumer:
            self.cluster.commit(consumer, marks)


@dataclass(slots=True)
class Member:
    """A member of the group: partitions come and go while it lives. Who asks for them is told what it was refused."""

    cluster: Cluster
    consumer: Client
    _refused: TidepostError | None = None
    _mine: set[int] = field(default_factory=set)
    _marks: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def partitions(self) -> frozenset[int]:
        with self._lock:
            if self._refused is not None:
                raise self._refused
            return frozenset(self._mine)

    def commit(self, marks: Mapping[int, int]) -> None:
        with self._lock:
            self._marks |= marks

    def follow(self) -> None:
        """Take part in the group until `end`; for a thread of its own."""
        self.consumer.subscribe(
            [self.cluster.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )
        while not self._ended.is_set():
            told = self.consumer.poll(POLL)  # no messages arrive: all partitions are paused
            self._hear(told)
            self._commit()
        self._commit()

    def _hear(self, told: Message | None) -> None:
        """Remember what the group refuses: nothing comes of waiting then. Anything else passes."""
        error = None if told is None else told.error()
        if error is not None and error.code() in REFUSED:
            with self._lock:
                self._refused = self.cluster.told(error)

    def _commit(self) -> None:
        """Only from the thread that polls: a commit from another one would wait for its calls to end."""
        with self._lock:
            ours = {partition: mark for partition, mark in self._marks.items() if partition in self._mine}
            self._marks = {}
        if ours:
            with suppress(KafkaException):  # the next batch commits again
                self.cluster.commit(self.consumer, ours, wait=False)

    def end(self) -> None:
        self._ended.set()

    def _assigned(self, consumer: Consumer, given: Sequence[TopicPartition]) -> None:
        at_end = [TopicPartition(one.topic, one.partition, OFFSET_END) for one in given]
        consumer.incremental_assign(at_end)
        consumer.pause(at_end)
        with self._lock:
            self._mine |= {one.partition for one in given}

    def _revoked(self, _: Consumer, taken: Sequence[TopicPartition]) -> None:
        with self._lock:
            self._mine -= {one.partition for one in taken}


@contextmanager
def named(cluster: Cluster, only: Sequence[int]) -> Iterator[Named]:
    """Follow partitions by number. Raises Misconfigured for one that the topic has not."""
    with cluster.consumer() as consumer:
        there = cluster.partitions(consumer)
    unknown = sorted(set(only) - set(there))
    if unknown:
        raise Misconfigured(
            f"kafka: {cluster.topic} has no partition {unknown[0]}",
            safe="Nothing was done.",
            hint=f"It has {there[0]} to {there[-1]}.",
        )
    yield Named(cluster, frozenset(only))


@contextmanager
def member(cluster: Cluster) -> Iterator[Member]:
    """Follow what the group gives; it is given back when the block ends. Raises Misconfigured, Retryable."""
    with cluster.consumer(
        **{
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.partition.eof": False,
            "auto.offset.reset": "latest",
        }
    ) as consumer:
        cluster.partitions(consumer)  # a topic that is not there would be waited for
        one = Member(cluster, consumer)
        thread = threading.Thread(target=one.follow, name="tidepost-group", daemon=True)
        thread.start()
        try:
            yield one
        finally:
            one.end()
            thread.join()
