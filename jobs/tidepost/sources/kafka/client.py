"""Reaching Kafka's brokers, and what they answer in our own errors. By confluent-kafka, which is librdkafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tidepost.errors import Misconfigured, Retryable, TidepostError
from tidepost.ports import Extent

T = TypeVar("T")
PATIENCE: Final = (1.0, 2.0, 4.0, 8.0, 15.0)
"""How long a broker may take to answer, in seconds, question by question: that it refuses the client is heard only
between two of them."""
QUEUE_KILOBYTES: Final = 16_384
"""What librdkafka may fetch ahead."""
BACKOFF_MILLISECONDS: Final = 10
"""How long it waits once that much is there; by its default, a second, it would idle long after all was taken."""
REFUSED: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError._SSL,
        KafkaError._INVALID_ARG,
    }
)
_SASL: Final = "Check sasl.mechanism, sasl.username and sasl.password in source.kafka.options."
_HINTS: Final = {
    KafkaError._AUTHENTICATION: _SASL,
    KafkaError.SASL_AUTHENTICATION_FAILED: _SASL,
    KafkaError._SSL: "Check ssl.ca.location, and the certificates, in source.kafka.options.",
}
_AWAY: Final = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN})
NOT_OURS: Final = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError._ASSIGNMENT_LOST,
    }
)
"""The group's members commit for themselves."""


class Client(Consumer):
    """A consumer that remembers the first of each kind of error that it heard of its brokers."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._heard: dict[int, KafkaError] = {}
        super().__init__({**settings, "error_cb": lambda error: self._heard.setdefault(error.code(), error)})

    def refusal(self) -> KafkaError | None:
        """The first that says that the client is wrong, and not only its brokers away."""
        with _quietly():
            self.poll(0)  # gives what was heard meanwhile
        return next((one for one in self._heard.values() if one.code() in REFUSED), None)

    def asked(self, question: Callable[[float], T]) -> T:
        """What brokers answer, who are given so many seconds. Raises KafkaException: what they refuse, at once."""
        for seconds in PATIENCE:
            try:
                return question(seconds)
            except KafkaException as error:
                refusal = self.refusal()
                if refusal is not None:
                    raise KafkaException(refusal) from None
                if error.args[0].code() not in _AWAY or seconds == PATIENCE[-1]:
                    raise
        raise AssertionError("the last question ends it")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A topic, and how to reach it. `options` hold secrets and stay out of every text."""

    bootstrap: str
    topic: str
    group: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @contextmanager
    def consumer(self, **more: Any) -> Iterator[Client]:
        """A consumer that commits nothing by itself and reads only what is committed; closed when the block ends."""
        settings = {
            "fetch.queue.backoff.ms": BACKOFF_MILLISECONDS,
            **self.options,
            "bootstrap.servers": self.bootstrap,
            "group.id": self.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            "queued.max.messages.kbytes": QUEUE_KILOBYTES,
            "log_level": 0,
            **more,
        }
        try:
            consumer = Client(settings)
        except KafkaException as error:
            raise self.told(error.args[0]) from None
        try:
            yield consumer
        except KafkaException as error:
            raise self.told(consumer.refusal() or error.args[0]) from None
        finally:
            consumer.close()

    def told(self, error: KafkaError) -> TidepostError:
        """A broker's or the client's error as one of ours."""
        message = f"kafka: {self.topic} at {self.bootstrap}: {error.str()}"
        if error.code() in REFUSED:
            return Misconfigured(
                message,
                safe="Nothing was lost.",
                hint=_HINTS.get(
                    error.code(), "Check source.kafka.options, and the rights to read the topic and its group."
                ),
            )
        return Retryable(message, safe="Nothing was lost.", hint="Run again when the brokers answer.")

    def partitions(self, consumer: Client) -> tuple[int, ...]:
        """The topic's partitions. Raises Misconfigured where there is no such topic."""
        topic = consumer.asked(lambda seconds: consumer.list_topics(self.topic, timeout=seconds)).topics[self.topic]
        if topic.error is not None and topic.error.code() in (
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError._UNKNOWN_TOPIC,
        ):
            raise Misconfigured(
                f"kafka: there is no topic {self.topic} at {self.bootstrap}",
                safe="Nothing was lost.",
                hint="Mend source.kafka.topic, or create the topic.",
            )
        if topic.error is not None:
            raise self.told(topic.error)
        return tuple(sorted(topic.partitions))

    def held(self, consumer: Client, partition: int) -> Extent:
        """What can be read of a partition now: its end is where the oldest open transaction begins."""

        def asked(seconds: float) -> tuple[int, int]:
            found = consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=seconds)
            if found is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return found

        found = consumer.asked(asked)
        return Extent(found[0], max(found))

    def commit(self, consumer: Consumer, marks: Mapping[int, int], *, wait: bool = True) -> None:
        """Commit offsets of the group, by partition; those of partitions that others hold are theirs.
        wait: for the answer, which a member has only when the group is not being shared out anew"""
        offsets = [TopicPartition(self.topic, partition, mark) for partition, mark in marks.items()]
        try:
            if not wait:
                consumer.commit(offsets=offsets, asynchronous=True)
                return
            consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in NOT_OURS:
                raise


def partitions_of(names: Sequence[str]) -> list[int]:
    """The partitions of lanes."""
    return [int(name.rpartition("/")[2]) for name in names]


@contextmanager
def _quietly() -> Iterator[None]:
    try:
        yield
    except KafkaException:
        return
