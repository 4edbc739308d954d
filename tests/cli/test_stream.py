"""`tidepost stream`: a topic is followed, and whatever becomes of its processes, every message arrives once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from tests.cli.conftest import Shell
from tests.kafka import Kafka, Reading, message
from tests.world import World, rows
from tests.world import eventually as within

from tidepost.cli.stopping import SAID
from tidepost.model import DeliveryState
from tidepost.sandbox.settings import Fault

QUICK = ("--seconds", "0.4")


def messages(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [message(one) for one in rows(count, first=first, every=1)]


def eventually(what: Callable[[], object]) -> None:
    """As elsewhere, with the time that processes take to start, and groups to be shared out, on a busy machine."""
    within(what, seconds=90)


def arrived(world: World, count: int) -> bool:
    return int(world.platform.process.model_stats(world.model_id)["rows"]) >= count


def sending(world: World) -> bool:
    """Whether anything is on its way just now."""
    with world.ledger() as ledger:
        found = ledger.reports.summary("flights")
    return any(one.deliveries.get(DeliveryState.SENDING) for each in found for one in each.destinations)


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Ask it to end, and wait for that; what it wrote."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert SAID in err
    return out, err


@pytest.fixture
def shell(world: World, kafka: Kafka, reading: Reading) -> Shell:
    """The command, in a world that knows where Kafka is."""
    return Shell(world.root, {**world.env, "KAFKA": kafka.bootstrap})


@pytest.fixture
def grouped(world: World, groups: Kafka) -> Shell:
    """The same, with the cluster that moves partitions between members of a group."""
    return Shell(world.root, {**world.env, "KAFKA": groups.bootstrap})


def test_messages_arrive_as_they_come_and_the_groups_offsets_follow(
    world: World, kafka: Kafka, reading: Reading, shell: Shell
) -> None:
    topic = reading(partitions=2)
    kafka.send(topic, messages(30))
    with shell.started("stream", "flights", "--partitions", "0,1", *QUICK) as process:
        eventually(lambda: arrived(world, 30))
        kafka.send(topic, messages(20, first=30), partition=1)
        eventually(lambda: arrived(world, 50))
        eventually(lambda: (kafka.committed(topic, 0), kafka.committed(topic, 1)) == (30, 20))
        out, err = ended(process)
    assert "flights: 50 rows published in 2 batches, 50 arrived" in out
    assert err.count(f"following {topic}/0, {topic}/1\n") == 1
    assert world.everything_arrived_once(50)


def test_a_batch_begins_at_so_many_events_or_after_so_many_seconds(
    world: World, kafka: Kafka, reading: Reading, shell: Shell
) -> None:
    topic = reading()
    kafka.send(topic, messages(25))
    with shell.started("stream", "flights", "--partitions", "0", "--events", "10", "--seconds", "3600") as process:
        eventually(lambda: arrived(world, 20))
        ended(process)
    assert world.summary().rows == 20  # two full batches; the third one waits
    with shell.started("stream", "flights", "--partitions", "0", "--events", "10", *QUICK) as process:
        eventually(lambda: kafka.committed(topic) == 25)  # it is confirmed as well, not only there
        ended(process)
    assert world.everything_arrived_once(25)


def test_two_processes_share_six_partitions(world: World, kafka: Kafka, reading: Reading, shell: Shell) -> None:
    topic = reading(partitions=6)
    with (
        shell.started("stream", "flights", "--partitions", "0,1,2", *QUICK) as one,
        shell.started("stream", "flights", "--partitions", "3,4,5", *QUICK) as other,
    ):
        for partition in range(6):
            kafka.send(topic, messages(50, first=50 * partition), partition=partition)
        eventually(lambda: arrived(world, 300))
        eventually(lambda: all(kafka.committed(topic, partition) == 50 for partition in range(6)))
        assert all("150 rows published" in ended(process)[0] for process in (one, other))
    assert world.everything_arrived_once(300)


def test_a_killed_process_is_taken_over_and_nothing_is_sent_twice(
    world: World, kafka: Kafka, reading: Reading, shell: Shell
) -> None:
    topic = reading(partitions=2)
    world.platform.process.fault(Fault("delay", kind="file", seconds=1.0))
    kafka.send(topic, messages(40))
    kafka.send(topic, messages(40, first=40), partition=1)
    with shell.started("stream", "flights", "--partitions", "0,1", *QUICK) as process:
        eventually(lambda: sending(world))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert kafka.committed(topic) < 0  # nothing had arrived for certain
    world.platform.reset()
    with shell.started("stream", "flights", "--partitions", "0,1", *QUICK) as process:
        eventually(lambda: kafka.committed(topic) == 40 and kafka.committed(topic, 1) == 40)
        ended(process)
    assert world.everything_arrived_once(80)


def test_members_of_a_group_share_partitions_and_take_over_from_one_that_was_killed_in_mid_batch(
    world: World, groups: Kafka, reading: Reading, grouped: Shell
) -> None:
    quick = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"}
    topic, sent = reading(partitions=4, on=groups, options=quick), 0

    def feed() -> None:
        nonlocal sent
        for partition in range(4):
            groups.send(topic, messages(5, first=sent), partition=partition)
            sent += 5

    with grouped.started("stream", "flights", *QUICK) as one:
        feed()
        eventually(lambda: arrived(world, sent))
        with grouped.started("stream", "flights", *QUICK) as other:
            assert other.stderr is not None
            os.set_blocking(other.stderr.fileno(), False)
            heard = ""
            while "published as slice" not in heard:  # the group is shared out anew meanwhile
                feed()
                eventually(lambda: arrived(world, sent))
                with suppress(BlockingIOError):
                    heard += os.read(other.stderr.fileno(), 65536).decode()
            world.platform.process.fault(Fault("delay", kind="file", seconds=2.0))
            feed()
            eventually(lambda: sending(world))
            other.kill()
        world.platform.reset()
        feed()
        eventually(lambda: arrived(world, sent))
        eventually(lambda: all(groups.committed(topic, partition) == sent / 4 for partition in range(4)))
        _, err = ended(one)
        assert "no partition is given to this process now" in err + heard
        all_of_it = f"following {topic}/0, {topic}/1, {topic}/2, {topic}/3\n"
        assert err.count(all_of_it) >= 2, "before the other came, and after it was gone"
    assert world.everything_arrived_once(sent)


def test_while_a_platform_is_down_one_batch_waits_and_the_rest_stays_in_kafka(
    world: World, kafka: Kafka, reading: Reading, shell: Shell
) -> None:
    topic = reading()
    world.platform.process.fault(Fault("throttle", kind="file", retry_after=0.1))
    kafka.send(topic, messages(100))
    with shell.started("stream", "flights", "--partitions", "0", "--events", "20") as process:
        assert process.stderr is not None
        errors = 0
        while errors < 3:
            errors += "429" in process.stderr.readline()
        assert world.summary().rows == 20
        assert kafka.committed(topic) <= 0
        world.platform.reset()
        eventually(lambda: arrived(world, 100))
        eventually(lambda: kafka.committed(topic) == 100)
        ended(process)
    assert world.everything_arrived_once(100)


def test_a_job_without_kafka_is_not_followed(world: World, shell: Shell) -> None:
    world.log("monday", rows(1))
    assert "only a source of Kafka can be followed" in shell.here("stream", "flights", code=2).err


def test_losses_can_only_be_accepted_of_a_topic(world: World, shell: Shell) -> None:
    world.log("monday", rows(1))
    told = shell.here("run", "flights", "--accept-loss", code=2).err
    assert "flights.yaml:" in told
    assert "--accept-loss is for topics, whose messages may be gone, and this is none" in told
    assert world.platform_rows() == 0


def test_a_topic_that_is_not_there_is_not_waited_for(
    world: World, kafka: Kafka, reading: Reading, shell: Shell
) -> None:
    topic = reading()
    kafka.remove(topic)
    assert f"there is no topic {topic}" in shell.here("stream", "flights", code=2).err
