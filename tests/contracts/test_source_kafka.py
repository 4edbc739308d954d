"""A topic as a source of lanes: the contract, on a real broker."""

from __future__ import annotations

import pytest
from tests.contracts.lane_contract import Holding, LaneContract, Lanes
from tests.kafka import Kafka

from tidepost.sources.kafka.client import Cluster
from tidepost.sources.kafka.columns import Column
from tidepost.sources.kafka.source import KafkaSource, Reading


class TestKafka(LaneContract):
    @pytest.fixture
    def holding(self, kafka: Kafka) -> Holding:
        def hold(*counts: int) -> Lanes:
            topic = kafka.topic(len(counts))
            for partition, count in enumerate(counts):
                kafka.send(topic, [{"id": f"{partition}-{n}"} for n in range(count)], partition=partition)
            cluster = Cluster(kafka.bootstrap, topic, f"g-{topic}")
            source = KafkaSource(Reading(cluster, {"id": Column("id", "path", '$."id"')}, "job"))
            names = [f"{topic}/{partition}" for partition in range(len(counts))]
            return Lanes(source, names, lambda number, before: kafka.forget(topic, number, before))

        return hold
