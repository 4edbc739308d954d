"""A broker that asks for TLS and for a password: what the definition says reaches the client, and what is wrong with
it is told once and without the password."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.kafka import Kafka, Reading, broker, message
from tests.kafka_gate import AUTHORITY, Door, door
from tests.world import World, rows

from tidepost.errors import Misconfigured

SECRET = "hunter2-hunter2"
OPTIONS = {
    "security.protocol": "SASL_SSL",
    "ssl.ca.location": str(AUTHORITY),
    "sasl.mechanism": "PLAIN",
    "sasl.username": "reader",
    "sasl.password": "${SECRET}",
}


@pytest.fixture
def closed(kafka: Kafka) -> Iterator[Door]:
    """The session's broker behind a door."""
    with door(kafka.bootstrap, ("reader", SECRET)) as found:
        yield found


def refused(world: World) -> str:
    """What a run says that is misconfigured, at once."""
    began = time.monotonic()
    with pytest.raises(Misconfigured) as raised:
        world.run()
    assert time.monotonic() - began < 15
    assert SECRET not in str(raised.value)
    assert "another-secret" not in str(raised.value)
    return str(raised.value)


def test_a_topic_behind_tls_and_a_password_is_read_and_a_wrong_key_is_named(
    world: World, kafka: Kafka, reading: Reading, closed: Door
) -> None:
    topic = reading(options=OPTIONS)
    kafka.send(topic, [message(one) for one in rows(20)])
    world.variables |= {"KAFKA": closed.bootstrap, "SECRET": "another-secret"}
    told = refused(world)
    assert "authentication" in told.lower()
    assert "Check sasl.mechanism, sasl.username and sasl.password in source.kafka.options" in told
    assert closed.opened == 0

    world.variables["SECRET"] = SECRET
    kafka_section = world.job["source"]["kafka"]
    of_others = {name: value for name, value in OPTIONS.items() if name != "ssl.ca.location"}
    world.define(source={"kafka": {**kafka_section, "options": of_others}})
    assert "Check ssl.ca.location, and the certificates, in source.kafka.options" in refused(world)

    world.define(source={"kafka": kafka_section})
    assert world.run().tally.published == 20
    assert closed.opened > 0
    assert world.everything_arrived_once(20)
    assert kafka.committed(topic) == 20


def test_a_broker_that_knows_no_such_user_is_told_at_once(world: World, reading: Reading, kafka: Kafka) -> None:
    with broker(groups=True, authentication=True) as bootstrap:
        reading(
            options={
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": "nobody",
                "sasl.password": "${SECRET}",
            }
        )
        world.variables |= {"KAFKA": bootstrap, "SECRET": SECRET}
        assert "Check sasl.mechanism, sasl.username and sasl.password" in refused(world)
