"""A topic that is uploaded to several destinations: whose marks its offsets follow, and who waits for whom."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from tests.integration.test_destinations import Two, _other, other, refusing, two  # noqa: F401 - fixtures
from tests.kafka import Kafka, message, read_topic
from tests.world import eventually, rows

from tidepost.follow import Pace, follow
from tidepost.ports import OfLanes
from tidepost.sandbox.settings import Fault

DOWN = Fault("throttle", kind="file", retry_after=1800)


def feed(kafka: Kafka, topic: str, first: int, count: int = 10) -> None:
    kafka.send(topic, [message(one) for one in rows(count, first=first, every=1)])


def has(two: Two, count: int) -> bool:  # noqa: F811 - the fixture's name
    """Whether the first platform has so many rows."""
    return two.platform_rows() == count


@contextmanager
def followed(two: Two) -> Iterator[None]:  # noqa: F811 - the fixture's name
    """The topic's partition 0 is followed for the block."""
    stop = threading.Event()
    with two.wired() as wired, ThreadPoolExecutor(1) as pool:
        assert isinstance(wired.source, OfLanes)
        with wired.source.share([0]) as source:
            world = replace(wired, source=source)
            ended = pool.submit(
                follow, world, Pace(10, 0.2), notice=two.events.append, stop=stop, told=lambda _: None
            )
            try:
                yield
            finally:
                stop.set()
                ended.result(60)


def test_a_groups_offsets_follow_the_least_mark_of_those_that_are_sent_to(two: Two, kafka: Kafka) -> None:  # noqa: F811
    topic = read_topic(two, kafka)
    feed(kafka, topic, 0)
    two.run()
    assert kafka.committed(topic) == 10
    two.second.process.fault(DOWN)
    feed(kafka, topic, 10)
    two.run()
    assert two.platform_rows() == 20
    assert kafka.committed(topic) == 10
    two.pause()
    two.run()
    assert kafka.committed(topic) == 20  # who is paused is not waited for
    two.pause("arthur")
    feed(kafka, topic, 20)
    assert two.run().tally.published == 10
    assert kafka.committed(topic) == 20  # nothing arrives anywhere
    two.resume()
    two.run()
    assert kafka.committed(topic) == 10  # it waits for what it missed
    two.second.reset()
    two.resume("arthur")
    two.run()
    assert kafka.committed(topic) == 30
    assert two.everything_arrived_once(30)
    assert two.at_second() == [30, 30]


def test_while_one_of_several_is_down_the_others_are_followed_and_it_gets_everything_later(
    two: Two,  # noqa: F811
    kafka: Kafka,
) -> None:
    topic = read_topic(two, kafka)
    two.second.process.fault(DOWN)
    with followed(two):
        for first in range(0, 50, 10):
            feed(kafka, topic, first)
            eventually(partial(has, two, first + 10))
        assert kafka.committed(topic) <= 0
        assert two.at_second() == [0, 0]
        two.second.reset()
        eventually(lambda: kafka.committed(topic) == 50, seconds=40)
    assert two.everything_arrived_once(50)
    assert two.at_second() == [50, 50]


def test_one_of_several_that_refuses_its_key_does_not_end_the_following(two: Two, kafka: Kafka) -> None:  # noqa: F811
    two.sends_to(two.arthur(), refusing(two))
    topic = read_topic(two, kafka)
    with followed(two):
        for first in (0, 10):
            feed(kafka, topic, first)
            eventually(partial(has, two, first + 10))
    assert two.at_second() == [0, 0]
    two.sends_to(two.arthur(), two.others())
    two.run()
    assert two.everything_arrived_once(20)
    assert two.at_second() == [20, 20]
