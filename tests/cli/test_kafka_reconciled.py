"""Reconcile, resend and purge of a job that reads a topic: partition by partition, as far as the topic holds it."""

from __future__ import annotations

from tests.cli.conftest import NOW_TEXT, Shell
from tests.kafka import Kafka, Reading, message
from tests.world import World, row, rows


def lose(world: World, *numbers: int) -> None:
    world.platform.process.wait_until_loaded()
    assert world.platform.process.lose(world.model_id, [f"r{n:06d}" for n in numbers]) == len(numbers)


def test_a_topic_is_compared_by_partition_and_what_is_lost_is_sent_again_while_it_can_be(
    world: World, kafka: Kafka, reading: Reading
) -> None:
    topic = reading(partitions=2)
    tidepost = Shell(world.root, world.env).here
    world.define(limits={"cut_rows": 10, "rejects": 5}, staging={"keep": "0s"})
    messages = [message(one) for one in rows(40, every=3600)]
    kafka.send(topic, messages[:20], partition=0)
    kafka.send(topic, [*messages[20:40], messages[3], b"no json"], partition=1)
    tidepost("run", "flights", "--now", NOW_TEXT)
    kafka.send(topic, [message(row(90, rows(1)[0]["at"]))], partition=1)  # not scanned yet

    ended = tidepost("reconcile", "flights")
    lines = [line.split() for line in ended.out.splitlines()]
    assert ended.out.startswith("flights: what the source still holds of what was scanned, by day")
    assert next(line for line in lines if line[:1] == ["total"])[1:] == "42 40 1 0 1 40 0 0".split()
    lanes = [line for line in lines if line and line[0].startswith(topic)]
    assert lanes == [
        [f"{topic}/0", "20", "0", *"20 20 0 0 0 20 0 0".split()],
        [f"{topic}/1", "22", "0", *"22 20 1 0 1 20 0 0".split()],
    ]

    kafka.forget(topic, 0, 15)
    lose(world, 1, 12, 25)
    document = tidepost("reconcile", "flights", "--json", code=7).document
    assert document["cursor"] is None
    zero, one = document["lanes"]
    assert (zero["start"], zero["end"], zero["held"]) == ("0", "20", {"start": "15", "end": "20"})
    assert (zero["source"], zero["gone"], zero["published"], zero["at"]["arthur"]["lost"]) == (5, 14, 20, 2), (
        "one is still in the other partition"
    )
    assert (one["source"], one["gone"], one["at"]["arthur"]["lost"]) == (22, 0, 1)
    assert sorted((each["what"], each["id"]) for each in document["differences"]) == [
        ("lost", "r000001"),
        ("lost", "r000012"),
        ("lost", "r000025"),
        ("rejected", None),
    ]
    part = tidepost("reconcile", "flights", "--from", "0", "--to", "5", "--json", code=7).document
    assert [(each["name"], each["published"]) for each in part["lanes"]] == [(f"{topic}/0", 10), (f"{topic}/1", 10)]
    by_time = ("--from", "2024-05-01T12:00Z", "--to", "2024-05-01T15:00Z", "--by", "event")
    assert tidepost("reconcile", "flights", *by_time, "--json", code=7).document["total"]["published"] == 3

    assert "3 rows were lost; all of their slices have arrived again" in tidepost("resend", "flights", "--yes").out
    assert world.everything_arrived_once(40)

    tidepost("purge", "flights")
    assert world.files() == []
    lose(world, 1, 12, 18, 25)
    kafka.forget(topic, 0, 10)
    ended = tidepost("resend", "flights", "--yes", code=2)
    assert "the files of slice 1 were purged, and its source is not what it was: of 10 rows 10 are gone" in ended.err
    assert f"{topic}/0 holds nothing below 15 any more, and the slice begins at 0" in ended.err
    assert sorted(world.ids()) == [f"r{n:06d}" for n in range(40) if n not in (1, 12, 18)]
