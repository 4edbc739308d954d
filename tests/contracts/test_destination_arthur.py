"""Arthur, on the sandbox: the contract, and what is Arthur's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from tests.contracts.destination_contract import (
    DAY_US,
    HOUR,
    HOUR_US,
    INFERENCES,
    LABELS,
    START,
    DestinationContract,
    Files,
    all_ids,
    as_source,
    inference,
    label,
)
from tests.contracts.sandbox_world import KEY, SandboxWorld, fresh

from tidepost.destinations.arthur import query as arthur_query
from tidepost.destinations.arthur.destination import ArthurDestination, ArthurOptions
from tidepost.errors import Misconfigured, Retryable, Unknown
from tidepost.model import StreamName
from tidepost.ports import Destination, Upload
from tidepost.ranges import Range
from tidepost.sandbox import Fault, SandboxProcess

ATTRIBUTES: tuple[tuple[str, str, str], ...] = (
    ("distance", "INTEGER", "PIPELINE_INPUT"),
    ("carrier", "STRING", "PIPELINE_INPUT"),
    ("probability", "FLOAT", "PREDICTED_VALUE"),
    ("note", "STRING", "NON_INPUT_DATA"),
    ("late", "BOOLEAN", "GROUND_TRUTH"),
)
_TYPES = {
    "INTEGER": pa.int64(),
    "STRING": pa.string(),
    "FLOAT": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
}
_OWN = {
    "partner_inference_id": pa.string(),
    "inference_timestamp": pa.timestamp("us", "UTC"),
    "ground_truth_timestamp": pa.timestamp("us", "UTC"),
    "batch_id": pa.string(),
}


class ArthurWorld(SandboxWorld):
    """A model of its own in a sandbox."""

    def __init__(
        self, sandbox: SandboxProcess, *, is_batch: bool = False, more: tuple[tuple[str, str, str], ...] = ()
    ) -> None:
        super().__init__(sandbox)
        self.attributes = ATTRIBUTES + more
        self.model = f"flights-{uuid4().hex}"
        definition = {
            "partner_model_id": self.model,
            "display_name": "flights",
            "input_type": "TABULAR",
            "output_type": "REGRESSION",
            "is_batch": is_batch,
            "attributes": [{"name": n, "value_type": v, "stage": s} for n, v, s in self.attributes],
        }
        url = f"{sandbox.url}/api/v3/models"
        answer = requests.post(url, json=definition, headers={"Authorization": KEY}, timeout=30)
        assert answer.status_code == 201, answer.text
        self.id = str(answer.json()["id"])

    @property
    def recipe(self) -> str:
        options = as_source({"url": self.sandbox.url, "api_key": KEY, "model": self.model})
        return (
            "from tidepost.destinations.arthur.destination import ArthurDestination, ArthurOptions\n"
            f"destination = ArthurDestination(ArthurOptions(**{options}))"
        )

    def destination(self, *, key: str = KEY, **options: Any) -> Destination:
        return self.arthur(api_key=key, **options)

    def arthur(self, **options: Any) -> ArthurDestination:
        made = ArthurOptions(**{"url": self.sandbox.url, "api_key": KEY, "model": self.model, **options})
        return self.opened(ArthurDestination(made, sleep=self.waits.append, random=lambda: 0.5))

    def write(self, path: Path, rows: Sequence[Mapping[str, object]], stream: StreamName = INFERENCES) -> None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        types = {name: _TYPES[value_type] for name, value_type, _ in self.attributes} | _OWN
        schema = pa.schema([(name, types[name]) for name in names])
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)

    def stored(self) -> int:
        self.sandbox.wait_until_loaded()
        body = {"select": [{"function": "count"}]}
        url = f"{self.sandbox.url}/api/v3/models/{self.id}/inferences/query"
        answer = requests.post(url, json=body, headers={"Authorization": KEY}, timeout=30)
        return int(answer.json()["query_result"][0]["count"])


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox"), api_key=KEY) as running:
        yield running


@pytest.fixture
def world(sandbox: SandboxProcess) -> Iterator[ArthurWorld]:
    yield from fresh(sandbox, ArthurWorld)


class TestArthurDestination(DestinationContract):
    """The contract on the sandbox."""


@pytest.fixture
def files(world: ArthurWorld, tmp_path: Path) -> Files:
    folder = tmp_path / "staged"
    folder.mkdir()
    return Files(world, folder)


def test_a_model_is_found_by_its_id_or_by_its_partner_id(world: ArthurWorld) -> None:
    for options in (
        {"model": world.id},
        {"model": world.model},
        {"model": world.id, "model_is_id": True},
        {"model": world.model, "model_is_id": False},
    ):
        assert world.arthur(**options).counts(INFERENCES, Range(HOUR, HOUR + 1)) == {}
    with pytest.raises(Misconfigured, match="no model with the partner_model_id"):
        world.arthur(model=world.id, model_is_id=False).counts(INFERENCES, Range(HOUR, HOUR + 1))


def test_a_partner_model_id_that_looks_like_an_id_is_found_too(world: ArthurWorld) -> None:
    with pytest.raises(Misconfigured, match="no model with the id or partner_model_id"):
        world.arthur(model=str(UUID(int=7))).check(INFERENCES, {})


def test_a_model_that_is_still_being_made_is_retryable(sandbox: SandboxProcess) -> None:
    sandbox.configure(provisioning_delay=3600.0)
    try:
        url = f"{sandbox.url}/api/v3/models?async_model_provisioning=True"
        definition = {
            "partner_model_id": f"late-{uuid4().hex}",
            "display_name": "late",
            "input_type": "TABULAR",
            "output_type": "REGRESSION",
            "is_batch": False,
            "attributes": [{"name": "p", "value_type": "FLOAT", "stage": "PREDICTED_VALUE"}],
        }
        requests.post(url, json=definition, headers={"Authorization": KEY}, timeout=30)
        destination = ArthurDestination(
            ArthurOptions(url=sandbox.url, api_key=KEY, model=str(definition["partner_model_id"]))
        )
        with pytest.raises(Retryable, match="not ready yet"):
            destination.check(INFERENCES, {})
        destination.close()
    finally:
        sandbox.configure(provisioning_delay=0.0)


def test_a_batch_is_sent_and_closed_under_its_name_whatever_it_holds(sandbox: SandboxProcess, tmp_path: Path) -> None:
    world = ArthurWorld(sandbox, is_batch=True)
    destination = world.arthur(batches=True)
    destination.check(INFERENCES, DestinationContract.columns)
    upload = Files(world, tmp_path).upload(map(inference, range(3)))
    named = Upload(upload.name, upload.rows, upload.size, upload.open, upload.guard, batch_id="2013/01 03 é%2F")
    assert destination.send(INFERENCES, named).accepted == 3
    assert world.stored() == 3
    rows = [inference(9, batch_id="2013/01 03 é%2F")]
    assert destination.send_rows(INFERENCES, rows)[0].accepted
    destination.close_batch("2013/01 03 é%2F", 4)
    destination.close_batch("2013/01 03 é%2F", 4)
    with pytest.raises(Misconfigured):
        destination.close_batch("no-such-batch", 1)
    with pytest.raises(Misconfigured):
        destination.close_batch("..", 1)
    world.close()


def test_batch_ids_go_with_batch_models_and_no_others(sandbox: SandboxProcess, world: ArthurWorld) -> None:
    batch = ArthurWorld(sandbox, is_batch=True)
    columns = DestinationContract.columns
    with pytest.raises(Misconfigured, match="batch_id is missing"):
        batch.arthur().check(INFERENCES, columns)
    batch.arthur().check(INFERENCES, {**columns, "batch_id": "VARCHAR"})
    with pytest.raises(Misconfigured, match="not a batch model"):
        world.arthur(batches=True).check(INFERENCES, columns)
    batch.close()


def test_types_that_would_be_changed_on_the_way_are_refused_with_their_cast(sandbox: SandboxProcess) -> None:
    more = (("at", "TIMESTAMP", "NON_INPUT_DATA"), ("ok", "BOOLEAN", "NON_INPUT_DATA"))
    world = ArthurWorld(sandbox, more=more)
    wrong = {
        "distance": ("UBIGINT", "HUGEINT", "DECIMAL(18,0)", "DOUBLE", "VARCHAR", "INTEGER[]"),
        "probability": ("DECIMAL(18,3)", "VARCHAR", "HUGEINT", "STRUCT(a INTEGER)"),
        "carrier": ("UUID", "INTEGER", "ENUM('a')", "BLOB"),
        "at": ("TIMESTAMP", "TIMESTAMP_NS", "DATE", "VARCHAR", "BIGINT"),
        "ok": ("INTEGER", "VARCHAR"),
    }
    casts = {"distance": "BIGINT", "probability": "DOUBLE", "carrier": "VARCHAR", "ok": "BOOLEAN", "at": "TIMESTAMP"}
    for name, types in wrong.items():
        for type_ in types:
            with pytest.raises(Misconfigured) as raised:
                world.arthur().check(INFERENCES, {**DestinationContract.columns, name: type_})
            assert f'CAST("{name}" AS {casts[name]}' in str(raised.value)
    right = {
        "distance": ("TINYINT", "UINTEGER", "BIGINT"),
        "probability": ("FLOAT", "DOUBLE", "BIGINT"),
        "at": ("TIMESTAMP WITH TIME ZONE",),
        "ok": ("BOOLEAN",),
    }
    for name, types in right.items():
        for type_ in types:
            world.arthur().check(INFERENCES, {**DestinationContract.columns, name: type_})
    world.close()


def test_columns_of_labels_are_checked(world: ArthurWorld) -> None:
    destination = world.arthur()
    columns = {
        "partner_inference_id": "VARCHAR",
        "ground_truth_timestamp": "TIMESTAMP WITH TIME ZONE",
        "late": "BOOLEAN",
    }
    destination.check(LABELS, columns)
    with pytest.raises(Misconfigured, match=r"distance is not ground truth"):
        destination.check(LABELS, {**columns, "distance": "BIGINT"})
    with pytest.raises(Misconfigured, match=r"late \(GROUND_TRUTH\) is missing"):
        destination.check(LABELS, {key: columns[key] for key in columns if key != "late"})
    with pytest.raises(Misconfigured, match=r"inference_timestamp is a reserved name"):
        destination.check(LABELS, {**columns, "inference_timestamp": "TIMESTAMP WITH TIME ZONE"})


def test_labels_beside_inferences_need_their_time(world: ArthurWorld) -> None:
    with pytest.raises(Misconfigured, match="ground_truth_timestamp is missing, although late is there"):
        world.arthur().check(INFERENCES, {**DestinationContract.columns, "late": "BOOLEAN"})
    answers = world.arthur().send_rows(
        INFERENCES,
        [
            inference(1, late=True, ground_truth_timestamp=START + timedelta(hours=2)),
            inference(2, late=None, ground_truth_timestamp=None),
        ],
    )
    assert [answer.accepted for answer in answers] == [True, True]
    assert world.arthur().counts(LABELS, Range(HOUR, HOUR + 24)) == {HOUR + 2: 1}


def test_values_of_rows_become_what_their_attribute_wants(world: ArthurWorld) -> None:
    rows = [
        inference(1, distance=Decimal(12), probability=Decimal("0.125"), carrier=date(2013, 1, 3)),
        inference(2, probability=1, carrier=UUID(int=1), note=Decimal("1.50")),
        inference(3, distance=Decimal("1.5")),
        inference(4, probability=Decimal("Infinity")),
        inference(5, carrier=b"bytes"),
    ]
    answers = world.arthur().send_rows(INFERENCES, rows)
    assert [answer.accepted for answer in answers] == [True, True, False, False, False]
    assert [answer.message for answer in answers[2:]] == [
        "distance is not a whole number",
        "probability is not a finite number",
        "carrier is of a type that no attribute holds",
    ]


def test_a_column_that_the_model_does_not_have_is_no_fault_of_a_row(world: ArthurWorld) -> None:
    with pytest.raises(Misconfigured, match="_part is not an attribute"):
        world.arthur().send_rows(INFERENCES, [inference(1, _part="a.parquet")])


def test_rows_that_landed_before_a_failure_make_it_unknown(world: ArthurWorld) -> None:
    world.sandbox.fault(Fault("throttle", kind="rows", skip=1, retry_after=3600.0))
    with pytest.raises(Unknown, match="some rows have landed"):
        world.arthur().send_rows(INFERENCES, [inference(number) for number in range(1500)])
    world.sandbox.configure(faults=[])
    assert world.stored() == 1000


def test_ids_are_asked_for_in_ever_smaller_windows(
    world: ArthurWorld, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arthur_query, "MOST_IDS", 50)
    rows = [inference(n, START + timedelta(milliseconds=n)) for n in range(400)]
    rows += [inference(1000 + n, START + timedelta(hours=1, minutes=n)) for n in range(3)]
    rows += [inference(2000 + n, START + timedelta(hours=3)) for n in range(120)]
    rows += [inference(3000 + n, START + timedelta(hours=5, minutes=n)) for n in range(3)]
    world.arthur().send(INFERENCES, files.upload(rows))
    assert world.stored() == len(rows)
    ids = [row["partner_inference_id"] for row in rows]
    batches = list(world.arthur().ids(INFERENCES, DAY_US))
    assert max(len(batch) for batch in batches) <= 50
    assert [one for batch in batches for one in batch] == ids
    assert all_ids(world.arthur(), Range(DAY_US.start + 300_000, DAY_US.end)) == ids[300:]
    assert all_ids(world.arthur(), Range(DAY_US.start, DAY_US.start + 300_000)) == ids[:300]
    assert all_ids(world.arthur(), Range(DAY_US.start + HOUR_US, DAY_US.end)) == ids[400:]


def test_labels_have_the_types_of_their_attributes(sandbox: SandboxProcess, files: Files, tmp_path: Path) -> None:
    stage = "GROUND_TRUTH"
    more = (("delay", "FLOAT", stage), ("gate", "STRING", stage), ("n", "INTEGER", stage), ("at", "TIMESTAMP", stage))
    world = ArthurWorld(sandbox, more=more)
    destination = world.arthur()
    destination.send(INFERENCES, Files(world, tmp_path).upload([inference(1), inference(2)]))
    world.stored()
    at = START + timedelta(hours=7, microseconds=123_456)
    labels = [
        label(1, late=False, delay=0, gate="", n=2**53 + 1, at=at),
        label(2, late=True, delay=0.1, gate="später", n=0, at=at),
    ]
    assert all(answer.accepted for answer in destination.send_rows(LABELS, labels))
    (table,) = destination.labels(DAY_US)
    assert {field.name: str(field.type) for field in table.schema} == {
        "partner_inference_id": "string",
        "ground_truth_timestamp": "timestamp[ms, tz=UTC]",
        "late": "bool",
        "delay": "double",
        "gate": "string",
        "n": "int64",
        "at": "timestamp[ms, tz=UTC]",
    }
    shown = at.replace(microsecond=123_000)
    assert sorted(table.to_pylist(), key=lambda row: row["partner_inference_id"]) == [
        row | {"at": shown} for row in labels
    ]
    world.close()


def test_labels_are_asked_for_in_ever_smaller_windows(
    world: ArthurWorld, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arthur_query, "MOST_IDS", 50)
    world.arthur().send(INFERENCES, files.upload(map(inference, range(120))))
    world.stored()
    labels = [label(n, late=n % 2 == 0, hours=n // 60) for n in range(120)]
    world.arthur().send(LABELS, files.upload(labels, stream=LABELS))
    world.stored()
    tables = list(world.arthur().labels(DAY_US))
    assert max(len(table) for table in tables) <= 50
    rows = [row for table in tables for row in table.to_pylist()]
    assert sorted(rows, key=lambda row: row["partner_inference_id"]) == labels


def test_an_id_that_arrived_twice_is_given_twice(world: ArthurWorld, files: Files) -> None:
    world.sandbox.configure(on_repeat="keep")
    try:
        world.arthur().send(INFERENCES, files.upload([inference(1)]))
        world.arthur().send(INFERENCES, files.upload([inference(1)]))
        assert world.stored() == 2
        assert all_ids(world.arthur(), DAY_US) == ["flight-000001"] * 2
    finally:
        world.sandbox.configure(on_repeat="refuse")


def test_questions_are_repeated_until_they_are_answered(world: ArthurWorld) -> None:
    for fault in (
        Fault("fail", kind="query", count=1, status=500),
        Fault("throttle", kind="query", count=1, retry_after=2.0),
        Fault("lose_reply", kind="query", count=1),
    ):
        world.sandbox.fault(fault)
    assert world.arthur().counts(INFERENCES, Range(HOUR, HOUR + 1)) == {}
    assert len(world.waits) == 3


def test_questions_that_are_never_answered_are_retryable(world: ArthurWorld) -> None:
    world.sandbox.fault(Fault("fail", kind="query", status=500))
    with pytest.raises(Retryable):
        world.arthur(retries=1).counts(INFERENCES, Range(HOUR, HOUR + 1))
    with pytest.raises(Retryable):
        list(world.arthur(retries=1).ids(INFERENCES, DAY_US))
