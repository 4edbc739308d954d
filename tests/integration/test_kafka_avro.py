"""A topic in Avro: each message by the schema that it was written with, and columns of it as of JSON."""

from __future__ import annotations

import io
import json
import logging
import struct
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from tests.kafka import COLUMNS, Kafka, Reading, message
from tests.registry import SchemaRegistry, registry
from tests.world import Row, World, rows, said

from tidepost.comparing.reconcile import Reconciling, Scope
from tidepost.comparing.resend import fill
from tidepost.errors import Misconfigured, Retryable
from tidepost.ranges import Range

FIELDS: list[dict[str, Any]] = [
    {
        "name": "request",
        "type": {
            "type": "record",
            "name": "Request",
            "fields": [
                {"name": "id", "type": "string"},
                {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            ],
        },
    },
    {
        "name": "features",
        "type": {
            "type": "record",
            "name": "Features",
            "fields": [{"name": "distance", "type": "long"}, {"name": "carrier", "type": "string"}],
        },
    },
    {"name": "scores", "type": {"type": "array", "items": "double"}},
    {"name": "note", "type": ["null", "string"], "default": None},
]
OF_A_ROW = {**COLUMNS, "carrier": "features.carrier"}


def record_of(name: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": fields}


def body(row: Row) -> dict[str, Any]:
    """A row as a record of `FIELDS`."""
    plain = message(row)
    plain["request"]["at"] = row["at"]
    plain["features"]["carrier"] = plain["features"].pop("air.line")
    return plain


def encoded(number: int, schema: Any, record: Any) -> bytes:
    out = io.BytesIO(struct.pack(">bI", 0, number))
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return out.getvalue()


@pytest.fixture
def schemas(world: World) -> Iterator[SchemaRegistry]:
    """A registry, which the world's job finds."""
    with registry() as found:
        world.variables["REGISTRY"] = found.url
        yield found


def read_avro(reading: Reading, partitions: int = 1, **changes: Any) -> str:
    return reading(
        partitions, **{"format": "avro", "registry": {"url": "${REGISTRY}"}, "columns": OF_A_ROW, **changes}
    )


def test_messages_of_schemas_that_evolve_arrive_and_poison_is_set_aside_until_it_can_be_read(
    world: World, kafka: Kafka, reading: Reading, schemas: SchemaRegistry
) -> None:
    topic = read_avro(reading, partitions=2)
    world.define(limits={"rejects": 10})
    logged = [body(one) for one in rows(41)]
    written = AvroSerializer(SchemaRegistryClient({"url": schemas.url}), json.dumps(record_of("First", FIELDS[:3])))
    at = SerializationContext(topic, MessageField.VALUE)
    old = [written({key: one[key] for key in ("request", "features", "scores")}, at) for one in logged]
    newer = record_of("Second", [*FIELDS, {"name": "more", "type": "int", "default": 7}])
    number = schemas.register(f"{topic}-value", newer)
    new = [encoded(number, newer, one) for one in logged]
    other = schemas.register("other", {"type": "string"}, schemaType="JSON")
    poison = [
        json.dumps({"request": {"id": "x"}}).encode(),
        struct.pack(">bI", 0, 4711) + old[40][5:],
        new[0][:-3],
        new[0] + b"!",
        struct.pack(">bI", 0, other) + b"text",
        b"\x00",
        None,
    ]
    kafka.send(topic, old[:5])
    kafka.send(topic, [*old[5:20], *new[20:30], *poison, *new[30:40]], partition=1)
    schemas.asked.clear()
    outcome = world.run()
    assert not said(outcome)
    assert outcome.tally.rejected == {"not_avro": 5, "unknown_schema": 1, "no_value": 1}
    assert world.everything_arrived_once(40)
    assert sorted(schemas.asked) == [f"/schemas/ids/{one}" for one in (1, 2, 3, 4711)]
    places = [json.loads(one["row"])["@message"] for one in world.rejects() if one["reason"] == "unknown_schema"]
    assert [(one["topic"], one["partition"], one["offset"]) for one in places] == [(topic, 1, 26)]
    assert places[0]["value"].startswith("AAAAEmc"), "in base64, as it is no text"

    schemas.schemas[4711] = schemas.schemas[1]
    with world.wired() as wired, world.ledger() as ledger, wired.engine.connect() as connection:
        it = Reconciling(wired, ledger, world.stream(), connection)
        found = it.reconcile(Scope(), wired.destinations)
        assert (found.total.here.missing, list(found.missing)) == (1, [Range(26, 27)])
        fill(wired, found.missing, notice=lambda _: None, stop=threading.Event())
        assert it.reconcile(Scope(), wired.destinations).agrees
    assert world.everything_arrived_once(41)


def test_values_are_exactly_what_was_written(
    world: World, kafka: Kafka, reading: Reading, schemas: SchemaRegistry
) -> None:
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "of", "type": {"type": "map", "values": "long"}}]}
    schemas.register("inner", inner)
    fields: dict[str, tuple[Any, Any, dict[str, Any], Any]] = {
        "ms": (
            {"type": "long", "logicalType": "timestamp-millis"},
            datetime(1969, 12, 31, 23, 59, 59, 999000, UTC),
            {"type": "timestamp"},
            datetime(1969, 12, 31, 23, 59, 59, 999000, UTC),
        ),
        "us": (
            ["null", {"type": "long", "logicalType": "timestamp-micros"}],
            datetime(2024, 5, 1, 12, 0, 0, 123457, UTC),
            {"type": "timestamp"},
            datetime(2024, 5, 1, 12, 0, 0, 123457, UTC),
        ),
        "ns": ("long", 1_714_564_800_123_456_789, {"type": "timestamp", "unit": "ns"}, None),
        "day": ({"type": "int", "logicalType": "date"}, date(2024, 2, 29), {}, "2024-02-29"),
        "money": (
            {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 10},
            Decimal("12345678901234567890.1234567890"),
            {},
            "12345678901234567890.1234567890",
        ),
        "uuid": (
            {"type": "string", "logicalType": "uuid"},
            UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
            {},
            "01890a5d-ac96-774b-bcce-b302099a8057",
        ),
        "big": ("long", 2**63 - 1, {"type": "integer"}, 2**63 - 1),
        "nan": ("double", float("inf"), {"type": "float"}, float("inf")),
        "float": ("float", 0.1, {"type": "float"}, 0.10000000149011612),
        "kind": ({"type": "enum", "name": "Kind", "symbols": ["A", "B"]}, "B", {}, "B"),
        "raw": ("bytes", b"\xff\x00", {}, "/wA="),
        "yes": ("boolean", True, {"type": "boolean"}, True),
        "union": (["null", "string", "Inner"], {"of": {"deep down": 3}}, {}, None),
        "none": (["null", "string"], None, {}, None),
        "list": ({"type": "array", "items": "Inner"}, [{"of": {}}, {"of": {"x": 5}}], {}, None),
    }
    schema = record_of("All", [{"name": name, "type": of} for name, (of, *_) in fields.items()])
    number = schemas.register(
        "all", schema, references=[{"name": "Inner", "subject": "inner", "version": 1}], schemaType="AVRO"
    )
    columns = {name: {"path": name, **how} for name, (_, _, how, _) in fields.items()}
    columns["union"]["path"] = 'union.of."deep down"'
    columns["list"] = {"path": "list[1].of.x", "type": "integer"}
    topic = read_avro(reading, columns=columns)
    named: dict[str, Any] = {}
    fastavro.parse_schema(inner, named_schemas=named)
    out = io.BytesIO()
    parsed = fastavro.parse_schema(schema, named_schemas=named)
    fastavro.schemaless_writer(out, parsed, {name: value for name, (_, value, *_) in fields.items()})
    kafka.send(topic, [struct.pack(">bI", 0, number) + out.getvalue()])
    with world.wired() as wired, wired.engine.connect() as connection:
        lane = wired.source.lane(f"{topic}/0")  # type: ignore[attr-defined]
        with lane.read(connection, Range(0, 1), list(fields)) as relation:
            table = connection.execute(relation.sql).to_arrow_table()
    (found,) = table.to_pylist()
    assert found.pop("tidepost:fault") is None
    expected = {name: value for name, (*_, value) in fields.items()}
    expected |= {"ns": datetime(2024, 5, 1, 12, 0, 0, 123456, UTC), "union": "3", "list": 5}
    assert {name: found[name] for name in expected} == expected


def test_a_registry_that_does_not_answer_or_refuses_is_never_poison(
    world: World, kafka: Kafka, reading: Reading, schemas: SchemaRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world.variables["USER"] = "reader:hunter2-hunter2"
    key = {"url": "${REGISTRY}", "options": {"basic.auth.user.info": "${USER}"}}
    topic = read_avro(reading, registry=key)
    schema = record_of("First", FIELDS)
    number = schemas.register("of", schema)
    kafka.send(topic, [encoded(number, schema, body(one)) for one in rows(5)])

    schemas.user = "reader:another-one"
    error = world.run().worst()
    assert isinstance(error, Misconfigured)
    assert "refuses the key (HTTP 401)" in str(error)
    assert "source.kafka.registry.options" in str(error)

    schemas.user, schemas.status = world.variables["USER"], 503
    error = world.run().worst()
    assert isinstance(error, Retryable)
    assert "answers HTTP 503" in str(error)

    schemas.status = 0
    port = schemas.url.rpartition(":")[2]
    for url, kind, text in (
        ("http://127.0.0.1:1", Retryable, "does not answer: ConnectError"),
        (f"https://127.0.0.1:{port}", Misconfigured, "SSL"),
        (f"{schemas.url}/elsewhere", Misconfigured, "is no schema registry (HTTP 404)"),
    ):
        world.variables["REGISTRY"] = url
        error = world.run().worst()
        assert isinstance(error, kind), error
        assert text in str(error)
    assert world.summary().rejected == {}

    world.variables["REGISTRY"] = schemas.url.replace("//", "//reader:hunter2-hunter2@")
    world.define(source={"kafka": {**world.job["source"]["kafka"], "registry": {"url": "${REGISTRY}"}}})
    assert world.run().tally.published == 5
    assert world.everything_arrived_once(5)
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "avro"}, "registry: is missing"),
        ({"registry": {"url": "${REGISTRY}"}}, "registry: belongs to `format: avro`"),
        ({"format": "avro", "registry": {"url": "https://me:pw@host"}}, "registry.url: holds a user or password"),
        (
            {"format": "avro", "registry": {"url": "${R}", "options": {"basic.auth.user.info": "me:pw"}}},
            "holds a secret; put it in a variable",
        ),
        ({"format": "avro", "registry": {"url": "${R}", "options": {"cache": "1"}}}, "is not passed on"),
    ],
)
def test_a_definition_names_its_registry_and_no_secret(world: World, changes: dict[str, Any], told: str) -> None:
    source = {"kafka": {"bootstrap": "b", "topic": "t", "columns": COLUMNS, **changes}}
    world.define(source=source, cursor={"column": "offset", "start": 0, "settle": None})
    with pytest.raises(Misconfigured) as raised:
        world.project.job("flights")
    assert told in str(raised.value)
    assert "me:pw" not in str(raised.value)
