"""Runs over a topic of Kafka, on a real broker: each partition from its frontier to its end, every message once."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.integration.test_rebuild import lose, rebuilt
from tests.kafka import COLUMNS, Kafka, Reading, message
from tests.labels import label, labels, of_labels, run_both, shown
from tests.world import World, row, rows, said

from tidepost.agenda import registered
from tidepost.errors import Misconfigured, Retryable
from tidepost.model import Request, ScanKind
from tidepost.planning.prospect import plan_request
from tidepost.ranges import Range
from tidepost.sandbox.settings import Fault

START = rows(1)[0]["at"]


def messages(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [message(one) for one in rows(count, first=first, every=1)]


def scanned(world: World) -> dict[str, list[tuple[int, int]]]:
    """lane → what counts as scanned"""
    return {lane: [(one.start, one.end) for one in ranges] for lane, ranges in world.summary().scanned.items()}


def test_each_partition_is_read_from_its_frontier_to_its_end(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = reading(partitions=3)
    for partition in (0, 1):
        kafka.send(topic, messages(20, first=partition * 20), partition=partition)
    assert world.run().tally.published == 40
    assert scanned(world) == {f"{topic}/0": [(0, 20)], f"{topic}/1": [(0, 20)]}
    kafka.send(topic, messages(5, first=40), partition=2)
    kafka.send(topic, messages(5, first=45), partition=0)
    outcome = world.run()
    assert (outcome.tally.scanned, outcome.tally.published) == (10, 10)
    assert scanned(world)[f"{topic}/0"] == [(0, 25)]
    assert world.run().cuts == 0
    assert world.everything_arrived_once(50)


def test_cuts_are_ranges_of_one_partition_and_of_bounded_length(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = reading(partitions=2)
    world.define(limits={"cut_rows": 10})
    kafka.send(topic, messages(25), partition=0)
    kafka.send(topic, messages(5, first=25), partition=1)
    assert world.run().cuts == 4
    assert world.everything_arrived_once(30)


def test_a_slice_holds_its_messages_in_order(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = reading()
    kafka.send(topic, messages(100))
    world.run()
    (file,) = world.files()
    assert pq.read_table(file)["partner_inference_id"].to_pylist() == [f"r{n:06d}" for n in range(100)]


def test_columns_come_from_nested_fields_arrays_keys_headers_and_the_message_itself(
    world: World, kafka: Kafka, reading: Reading
) -> None:
    changed = {"at": {"path": "ms", "type": "timestamp", "unit": "ms"}, "carrier": {"header": "air line"}}
    topic = reading(columns={**COLUMNS, **changed, "id": {"message": "key"}, "note": {"message": "topic"}})
    body = {**message(row(1, START)), "ms": 1714564800123}
    kafka.send(topic, [body], key="the-key", headers={"air line": b"LH"})
    assert world.run().tally.published == 1
    (file,) = world.files()
    (found,) = pq.read_table(file).to_pylist()
    assert found["partner_inference_id"] == "the-key"
    assert found["inference_timestamp"].isoformat() == "2024-05-01T12:00:00.123000+00:00"
    assert (found["carrier"], found["distance"], found["note"]) == ("LH", 101, topic)


def test_poison_is_set_aside_with_its_place_and_reason_and_blocks_nobody(
    world: World, kafka: Kafka, reading: Reading
) -> None:
    topic = reading()
    world.define(limits={"rejects": 10})
    wrong = message(row(3, START)) | {"features": {"distance": "far"}}
    kafka.send(topic, [*messages(3), b"no json", b"\xff\xfe", None, wrong, *messages(3, first=10)])
    outcome = world.run()
    assert outcome.tally.rejected == {"no_value": 1, "not_json": 1, "not_utf8": 1, "wrong_type:distance": 1}
    assert world.everything_arrived_once(6)
    places = {one["reason"]: json.loads(one["row"])["@message"] for one in world.rejects()}
    assert places["not_json"] == {"topic": topic, "partition": 0, "offset": 3, "value": "no json"}
    assert places["not_utf8"] == {"topic": topic, "partition": 0, "offset": 4, "value": "//4="}
    assert places["wrong_type:distance"]["offset"] == 6


def test_a_key_that_no_column_names_may_hold_anything(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = reading()
    kafka.send(topic, messages(3), key=b"\xff\x00")
    assert world.run().tally.rejected == {}
    assert world.everything_arrived_once(3)


def test_poison_may_stop_the_job_before_it(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = reading(on_poison="stop")
    kafka.send(topic, [*messages(3), b"no json"])
    outcome = world.run()
    assert f"{topic}/0, offset 3: not_json" in said(outcome)
    assert outcome.tally.published == 0


def test_only_what_was_committed_is_read(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = reading()
    producer, aborting = kafka.transactional(), kafka.transactional()
    producer.begin_transaction()
    kafka.send(topic, messages(10), producer=producer)
    producer.commit_transaction(30)
    aborting.begin_transaction()
    kafka.send(topic, messages(10, first=10), producer=aborting)
    aborting.abort_transaction(30)
    kafka.send(topic, messages(10, first=20))
    producer.begin_transaction()
    kafka.send(topic, messages(10, first=30), producer=producer)
    assert world.run().tally.published == 20
    producer.commit_transaction(30)
    assert world.run().tally.published == 10
    assert world.everything_arrived_once(30)


def test_partitions_that_are_added_are_read_from_their_beginning(
    world: World, kafka: Kafka, reading: Reading
) -> None:
    topic = reading()
    kafka.send(topic, messages(5))
    world.run()
    kafka.widen(topic, 3)
    kafka.send(topic, messages(5, first=5), partition=2)
    world.run()
    assert world.everything_arrived_once(10)


def test_a_topic_that_begins_late_is_no_loss(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = reading()
    kafka.send(topic, messages(10))
    kafka.forget(topic, 0, 4)
    assert world.run().tally.published == 6
    assert scanned(world) == {f"{topic}/0": [(0, 10)]}


def test_retention_that_ran_ahead_stops_with_what_was_lost_until_that_is_accepted(
    world: World, kafka: Kafka, reading: Reading
) -> None:
    topic = reading()
    kafka.send(topic, messages(10))
    world.run()
    kafka.send(topic, messages(10, first=10))
    kafka.forget(topic, 0, 14)
    with pytest.raises(Misconfigured, match=f"4 offsets of {topic}/0, 10 to 13, are gone") as raised:
        world.run()
    assert "tidepost run flights --accept-loss" in str(raised.value)
    assert world.everything_arrived_once(10)
    world.accepts_loss = True
    assert world.run().tally.published == 6
    world.accepts_loss = False
    assert world.run().cuts == 0
    assert world.everything_arrived_once(16)
    with world.ledger() as ledger:
        (entry,) = ledger.reports.audit("flights")
    assert (entry.what, entry.old) == (
        f"accepted a loss of inferences in {topic}/0",
        "10 to 13, gone before they were read",
    )


def test_a_loss_between_planning_and_reading_stops_too(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = reading()
    kafka.send(topic, messages(10))
    with world.wired() as wired:
        plan_request(wired, registered(wired), Request("planned", ScanKind.INCREMENTAL))
    kafka.forget(topic, 0, 5)
    assert f"5 offsets of {topic}/0, 0 to 4, are gone" in said(world.run())
    world.accepts_loss = True
    assert world.run().tally.published == 5
    assert world.everything_arrived_once(5)


def test_after_a_lost_ledger_each_partition_goes_on_where_it_was(
    world: World, kafka: Kafka, reading: Reading
) -> None:
    topic = reading(partitions=2)
    world.define(limits={"rejects": 10})
    kafka.send(topic, [*messages(9), b"no json"])
    kafka.send(topic, messages(10, first=10), partition=1)
    world.run()
    kafka.send(topic, messages(10, first=20), partition=1)
    kafka.forget(topic, 1, 14)
    world.accepts_loss = True
    assert world.run().tally.published == 6
    world.accepts_loss = False
    before, marks = scanned(world), (kafka.committed(topic), kafka.committed(topic, 1))
    assert before == {f"{topic}/0": [(0, 10)], f"{topic}/1": [(0, 20)]}
    lose(world.root)
    kafka.send(topic, messages(5, first=30))
    with pytest.raises(Misconfigured, match="tidepost ledger rebuild flights"):
        world.run()
    (found,) = rebuilt(world.root)
    assert found.rows == 25
    assert scanned(world) == before
    assert world.run().tally.published == 5
    assert (kafka.committed(topic), kafka.committed(topic, 1)) == (marks[0] + 5, marks[1])
    assert world.everything_arrived_once(30)
    with world.ledger() as ledger:
        audit = [entry.what for entry in ledger.reports.audit("flights")]
    assert f"accepted a loss of inferences in {topic}/1" in audit
    lose(world.root)
    rebuilt(world.root)
    assert world.run().cuts == 0
    assert world.everything_arrived_once(30)


def test_a_topic_that_was_created_anew_is_refused(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = reading()
    kafka.send(topic, messages(10))
    world.run()
    kafka.recreate(topic)
    kafka.send(topic, messages(3, first=50))
    with pytest.raises(Misconfigured, match=f"{topic}/0 ends at offset 3, and was read up to 10 before"):
        world.run()


def test_the_groups_offsets_follow_the_mark(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = reading()
    kafka.send(topic, messages(10))
    world.run()
    assert kafka.committed(topic) == 10
    world.platform.process.fault(Fault("throttle", kind="file", retry_after=1800))
    kafka.send(topic, messages(10, first=10))
    assert isinstance(world.run().worst(), Retryable)
    assert kafka.committed(topic) == 10
    world.platform.reset()
    world.run()
    assert kafka.committed(topic) == 20
    assert world.everything_arrived_once(20)


def test_labels_join_inferences_of_a_topic(world: World, kafka: Kafka, reading: Reading) -> None:
    of_labels(world)
    topic = reading(partitions=2)
    kafka.send(topic, messages(3))
    labels(world, "monday", [label(1, 0), label(7, 15)])
    run_both(world)
    assert shown(world) == {"r000001": 0}
    kafka.send(topic, messages(1, first=7), partition=1)
    run_both(world)
    assert shown(world) == {"r000001": 0, "r000007": 15}
    assert kafka.committed(topic) == 3
    assert kafka.committed(topic, 1) == 1


def test_labels_are_no_topic(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = {"bootstrap": "${KAFKA}", "topic": reading(), "columns": COLUMNS}
    of_labels(world, source={"kafka": topic}, cursor={"column": "offset", "start": 0})
    with pytest.raises(
        Misconfigured, match=r"ground_truth\.source\.kafka: has offsets, which do not say which label"
    ):
        world.project.job("flights")


def test_a_backfill_reads_offsets_again_and_sends_nothing_twice(world: World, kafka: Kafka, reading: Reading) -> None:
    topic = reading(partitions=2)
    kafka.send(topic, messages(10), partition=1)
    world.run()
    outcome = world.run(Request("again", ScanKind.BACKFILL, Range(2, 8)))
    assert (outcome.tally.scanned, outcome.tally.known + outcome.tally.duplicates) == (6, 6)
    assert world.everything_arrived_once(10)


def test_a_broker_that_is_not_there_is_told(world: World, kafka: Kafka, reading: Reading) -> None:
    reading(topic="there-is-no-such-topic")
    with pytest.raises(Misconfigured, match="there is no topic there-is-no-such-topic"):
        world.run()


def test_a_password_reaches_no_text(world: World, kafka: Kafka, reading: Reading) -> None:
    world.variables["SECRET"] = "hunter2-hunter2"
    reading(options={"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "NOPE", "sasl.password": "${SECRET}"})
    with pytest.raises(Misconfigured) as raised:
        world.run()
    assert "hunter2" not in str(raised.value)
    with world.wired() as wired:
        assert "hunter2" not in f"{wired.job!r}{vars(wired.source)}"
