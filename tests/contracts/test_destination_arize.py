"""The Arize destination, on the sandbox: the contract, and what is Arize's own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from tests.contracts.destination_contract import (
    INFERENCES,
    LABELS,
    START,
    Files,
    ReceiptContract,
    as_source,
    inference,
)
from tests.contracts.sandbox_world import KEY, SandboxWorld, fresh

from tidepost.destinations.arize.destination import ArizeDestination, ArizeOptions
from tidepost.errors import Misconfigured, Refused, Retryable, Unknown
from tidepost.model import Proof
from tidepost.ports import Upload, unguarded
from tidepost.ranges import Range
from tidepost.sandbox import Fault, SandboxProcess

COLUMNS = {**ReceiptContract.columns, "note": "VARCHAR"}
SPACE = "a-space"
NOW = (START + timedelta(days=30)).timestamp()
TYPES = {
    "partner_inference_id": pa.string(),
    "inference_timestamp": pa.timestamp("us", "UTC"),
    "ground_truth_timestamp": pa.timestamp("us", "UTC"),
    "batch_id": pa.string(),
    "distance": pa.int64(),
    "carrier": pa.string(),
    "probability": pa.float64(),
    "note": pa.string(),
    "late": pa.bool_(),
    "distance_shap_value": pa.float64(),
}


class ArizeWorld(SandboxWorld):
    """A model of its own in a sandbox, whose clock shows a month after the first row."""

    def __init__(self, sandbox: SandboxProcess) -> None:
        super().__init__(sandbox)
        self.model = f"flights-{uuid4().hex}"

    @property
    def options(self) -> dict[str, Any]:
        return {
            "url": self.sandbox.url,
            "api_key": KEY,
            "space_id": SPACE,
            "model": self.model,
            "version": "v1",
            "predictions": ("probability",),
            "inputs": ("distance", "carrier"),
            "non_inputs": ("note",),
        }

    @property
    def recipe(self) -> str:
        return (
            "from tidepost.destinations.arize.destination import ArizeDestination, ArizeOptions\n"
            f"destination = ArizeDestination(ArizeOptions(**{as_source(self.options)}))"
        )

    def destination(self, *, key: str = KEY, **options: Any) -> ArizeDestination:
        made = ArizeOptions(**{**self.options, "api_key": key, **options})
        return self.opened(ArizeDestination(made, sleep=self.waits.append, random=lambda: 0.5, clock=lambda: NOW))

    def write(self, path: Path, rows: Sequence[Mapping[str, object]], stream: object = INFERENCES) -> None:
        names = list(dict.fromkeys(["note", *(name for row in rows for name in row)]))
        if stream is LABELS:
            names.remove("note")
        schema = pa.schema([(name, TYPES[name]) for name in names])
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)

    def stats(self) -> dict[str, Any]:
        return self.sandbox.arize(SPACE, self.model) or {"received": 0, "rows": 0}

    def stored(self) -> int:
        return int(self.stats()["received"])

    def requests(self) -> list[dict[str, Any]]:
        """The last requests of the sandbox, newest first."""
        return [one for one in self.sandbox.stats()["requests"] if one["path"] == "/v1/pandas_arrow"]

    def records(self, *ids: str) -> dict[str, dict[str, Any]]:
        return self.sandbox.arize_records(SPACE, self.model, ids)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox"), api_key=KEY) as running:
        running.configure(now=NOW)
        yield running


@pytest.fixture
def world(sandbox: SandboxProcess) -> Iterator[ArizeWorld]:
    yield from fresh(sandbox, ArizeWorld)


class TestArizeDestination(ReceiptContract):
    """The contract on the sandbox. Most of the memory is Arrow's, which every run has imported."""

    columns = COLUMNS
    looks = 1
    most = 160
    wrong = (
        "probabilty has no place at Arize; did you mean probability?",
        'distance is DECIMAL(18,3), which is no feature of Arize\'s; write CAST("distance" AS DOUBLE)',
        "inference_timestamp is missing",
    )


@pytest.fixture
def files(world: ArizeWorld, tmp_path: Path) -> Files:
    folder = tmp_path / "staged"
    folder.mkdir()
    return Files(world, folder)


def staged(path: Path, table: pa.Table) -> Upload:
    pq.write_table(table, path)
    return Upload(path.name, table.num_rows, path.stat().st_size, lambda: path.open("rb"), unguarded)


def columns(rows: int, **more: pa.Array) -> pa.Table:
    """Inferences as they are staged; a column of `more` replaces one of them or comes beside them."""
    at = pa.array([START + timedelta(seconds=n) for n in range(rows)], pa.timestamp("us", "UTC"))
    plain = {
        "partner_inference_id": pa.array([f"r{n}" for n in range(rows)]),
        "inference_timestamp": at,
        "distance": pa.array(range(rows), pa.int64()),
        "carrier": pa.array(["AA"] * rows),
        "probability": pa.array([0.25] * rows),
        "note": pa.array(["n"] * rows),
    }
    return pa.table({**plain, **more})


# --------------------------------------------------------------------------------------------------- what arrives


def test_a_row_arrives_with_all_that_it_has(world: ArizeWorld, files: Files) -> None:
    destination = world.destination(
        non_inputs=("note", "distance_shap_value"), shap={"distance": "distance_shap_value"}, batch_id="monday"
    )
    row = inference(7, note="by hand", distance_shap_value=-0.125)
    destination.send(INFERENCES, files.upload([row]))
    (record,) = world.records().values()
    assert record["id"] == "flight-000007"
    assert record["at"] == (START + timedelta(seconds=7)).timestamp()
    assert (record["environment"], record["model_type"]) == ("production", "numeric")
    assert (record["version"], record["batch_id"]) == ("v1", "monday")
    assert record["prediction_label"] == 0.25
    assert record["features"] == {"distance": 7, "carrier": "AA"}
    assert record["tags"] == {"note": "by hand"}
    assert record["shap"] == {"distance": -0.125}


def test_a_parts_own_batch_is_its_batch(world: ArizeWorld, files: Files) -> None:
    upload = files.upload([inference(1)])
    named = Upload(upload.name, upload.rows, upload.size, upload.open, upload.guard, batch_id="2013/01 03 é")
    world.destination(batch_id="another").send(INFERENCES, named)
    assert world.stats()["batches"] == ["2013/01 03 é"]


def test_labels_and_scores_of_a_classifier_arrive_as_such(world: ArizeWorld, tmp_path: Path) -> None:
    destination = world.destination(
        model_type="binary_classification",
        predictions=("late", "probability"),
        prediction_label="late",
        prediction_score="probability",
    )
    destination.send(INFERENCES, staged(tmp_path / "a", columns(1, late=pa.array([False]))))
    (record,) = world.records().values()
    assert (record["model_type"], record["prediction_label"], record["prediction_score"]) == (
        "score_categorical",
        False,
        0.25,
    )


def test_a_numeric_models_score_goes_as_its_label(world: ArizeWorld, files: Files) -> None:
    world.destination(prediction_score="probability").send(INFERENCES, files.upload([inference(1)]))
    (record,) = world.records().values()
    assert (record["prediction_label"], record["prediction_score"]) == (0.25, None)


def test_a_ranking_has_its_group_and_rank(world: ArizeWorld, tmp_path: Path) -> None:
    destination = world.destination(
        model_type="ranking", prediction_score="probability", inputs=("carrier",), group="note", rank="distance"
    )
    destination.send(INFERENCES, staged(tmp_path / "a", columns(1, distance=pa.array([3], pa.int64()))))
    (record,) = world.records().values()
    assert (record["model_type"], record["prediction_group"], record["rank"]) == ("ranking", "n", 3)
    table = columns(4, distance=pa.array([0, 101, None, 100]), note=pa.array(["a", "a", "a", None]))
    receipt = destination.send(INFERENCES, staged(tmp_path / "b", table))
    assert set(receipt.messages) == {"3 rows: the rank is not from 1 to 100", "1 rows: the group is missing"}
    with pytest.raises(Misconfigured, match=r"needs destination\.group and destination\.rank"):
        world.destination(model_type="ranking").check(INFERENCES, COLUMNS)


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (pa.int64(), [0, 1]),
        (pa.float64(), [0.0, 2.5]),
        (pa.bool_(), [False, True]),
        (pa.string(), ["", "late"]),
    ],
)
def test_zero_and_false_are_labels_and_join_by_the_id_alone(
    world: ArizeWorld, tmp_path: Path, type_: pa.DataType, values: list[object]
) -> None:
    destination = world.destination(model_type="score_categorical", prediction_score="probability")
    destination.send(INFERENCES, staged(tmp_path / "a", columns(3)))
    table = pa.table(
        {
            "partner_inference_id": ["r0", "r1"],
            "ground_truth_timestamp": pa.array([START, START], pa.timestamp("us", "UTC")),
            "late": pa.array(values, type_),
        }
    )
    destination.check(LABELS, {"partner_inference_id": "VARCHAR", "late": "BOOLEAN"})
    assert destination.send(LABELS, staged(tmp_path / "b", table)).accepted == 2
    found = world.records()
    assert [found[name]["actual_label"] for name in ("r0", "r1", "r2")] == [*values, None]
    assert found["r0"]["prediction_score"] == 0.25
    assert (world.stats()["matched"], world.stats()["rows"]) == (2, 3)


def test_which_column_is_the_actual_value_can_be_said_and_must_where_there_are_two(world: ArizeWorld) -> None:
    two = {"partner_inference_id": "VARCHAR", "late": "DOUBLE", "later": "DOUBLE"}
    with pytest.raises(Misconfigured, match=r"actual value: late, later\n.*destination\.actual_label"):
        world.destination().check(LABELS, two)
    with pytest.raises(Misconfigured, match="late has no place at Arize"):
        world.destination(actual_label="later").check(LABELS, two)
    world.destination(model_type="score_categorical", actual_label="late", actual_score="later").check(LABELS, two)


def test_a_training_or_validation_set_has_its_actual_values_and_batch(world: ArizeWorld, files: Files) -> None:
    options: dict[str, Any] = {
        "environment": "validation",
        "model_type": "score_categorical",
        "prediction_score": "probability",
    }
    known = {**COLUMNS, "late": "BOOLEAN"}
    with pytest.raises(Misconfigured, match="needs its actual values"):
        world.destination(**options).check(INFERENCES, COLUMNS)
    options |= {"actual_label": "late", "non_inputs": ("note", "late")}
    with pytest.raises(Misconfigured, match="needs a batch id"):
        world.destination(**options).check(INFERENCES, known)
    destination = world.destination(**options, batch_id="set-1")
    destination.check(INFERENCES, known)
    rows = [inference(1, late=False), inference(2, late=None), inference(3, late=True)]
    receipt = destination.send(INFERENCES, files.upload(rows))
    assert (receipt.accepted, receipt.messages) == (2, ("1 rows: there is no actual value",))
    assert [one["actual_label"] for one in world.records().values()] == [False, True]
    with pytest.raises(Misconfigured, match="takes no later ground truth"):
        world.destination(**options).check(LABELS, {"partner_inference_id": "VARCHAR", "late": "BOOLEAN"})


def test_repeats_merge_by_their_id(world: ArizeWorld, files: Files) -> None:
    for _ in range(2):
        world.destination().send(INFERENCES, files.upload(map(inference, range(10))))
    stats = world.stats()
    assert (stats["rows"], stats["received"], stats["repeats"]) == (10, 20, 10)


# ------------------------------------------------------------------------------------------------------------ types


def test_types_are_cast_where_no_value_changes(world: ArizeWorld, tmp_path: Path) -> None:
    wide = {
        "a": pa.array([255, 0, None], pa.uint8()),
        "b": pa.array([2**32 - 1, 0, None], pa.uint32()),
        "c": pa.array([Decimal(2) ** 63 - 1, 0, None], pa.decimal128(38, 0)),
        "d": pa.array([Decimal("12345678901.2345"), Decimal("0.1000"), None], pa.decimal128(15, 4)),
        "e": pa.array(["x", "y", None]).dictionary_encode(),
        "f": pa.array([[], ["x", "y"], None], pa.list_(pa.string())),
        "g": pa.array([True, False, None]),
    }
    destination = world.destination(inputs=tuple(wide), non_inputs=())
    table = columns(3, **wide).drop_columns(["distance", "carrier", "note"])
    assert destination.send(INFERENCES, staged(tmp_path / "a", table)).accepted == 3
    found = world.records()
    assert found["r0"]["features"] == {
        "a": 255,
        "b": 2**32 - 1,
        "c": 2**63 - 1,
        "d": 12345678901.2345,
        "e": "x",
        "f": [],
        "g": True,
    }
    assert found["r1"]["features"]["d"] == 0.1
    assert set(found["r2"]["features"].values()) == {None}


def test_types_that_would_change_a_value_are_refused_with_the_columns_name(world: ArizeWorld) -> None:
    wrong = {
        "distance": ("DECIMAL(18,3)", "TIMESTAMP", "DATE", "BLOB", "STRUCT(a INTEGER)", "INTEGER[]"),
        "note": ("VARCHAR[]", "TIMESTAMP WITH TIME ZONE"),
        "probability": ("VARCHAR", "BOOLEAN", "DECIMAL(20,5)"),
        "inference_timestamp": ("TIMESTAMP", "BIGINT"),
    }
    for name, types in wrong.items():
        for type_ in types:
            with pytest.raises(Misconfigured, match=f"{name} is "):
                world.destination().check(INFERENCES, {**COLUMNS, name: type_})
    for type_ in ("UINTEGER", "HUGEINT", "UBIGINT", "DECIMAL(15,4)", "DECIMAL(38,0)", "VARCHAR[]", "ENUM('a')"):
        right = {**COLUMNS, "distance": type_}
        world.destination().check(INFERENCES, right)


def test_names_that_arize_keeps_for_itself_are_refused(world: ArizeWorld) -> None:
    columns_ = {**COLUMNS, "carrier_shap": "VARCHAR"}
    with pytest.raises(Misconfigured, match="carrier_shap ends with _shap"):
        world.destination(inputs=("distance", "carrier", "carrier_shap")).check(INFERENCES, columns_)


# ---------------------------------------------------------------------------------------------- rows that stay behind


def test_rows_that_break_a_rule_stay_behind_and_are_counted_and_the_others_arrive(
    world: ArizeWorld, tmp_path: Path
) -> None:
    early, late = START - timedelta(days=5 * 365), START + timedelta(days=400)
    at = pa.array([START, early, late, START, START, START, START, START], pa.timestamp("us", "UTC"))
    table = columns(
        8,
        partner_inference_id=pa.array(["ok", "early", "late", "i" * 513, None, "tag", "nan", "huge"]),
        inference_timestamp=at,
        note=pa.array(["n"] * 5 + ["x" * 20_001, "n", "n"]),
        probability=pa.array([0.5] * 6 + [float("nan"), 0.5]),
        distance=pa.array([1] * 7 + [2**63], pa.uint64()),
    )
    receipt = world.destination().send(INFERENCES, staged(tmp_path / "a", table))
    assert (receipt.accepted, receipt.failed) == (1, 7)
    assert sorted(world.records()) == ["ok"]
    assert "2 rows: the timestamp is more than 5 years ago or 1 year ahead" in receipt.messages
    assert len(receipt.messages) == 5


def test_a_file_of_rows_that_all_break_a_rule_is_not_sent(world: ArizeWorld, files: Files) -> None:
    receipt = world.destination().send(INFERENCES, files.upload([inference(1, probability=None)]))
    assert (receipt.accepted, receipt.failed) == (0, 1)
    assert world.stored() == 0


# ------------------------------------------------------------------------------------------------------ the requests


def test_a_file_larger_than_a_request_may_be_goes_in_several(world: ArizeWorld, tmp_path: Path) -> None:
    upload = staged(tmp_path / "a", columns(50_000))
    assert world.destination(request_rows=10_000).send(INFERENCES, upload).accepted == 50_000
    assert [one["rows"] for one in world.requests()[:5]] == [10_000] * 5
    destination = world.destination(request_bytes=1_000_000, model=f"{world.model}-b")
    assert destination.send(INFERENCES, upload).accepted == 50_000
    by_bytes = world.requests()[:3]
    assert sum(one["rows"] for one in by_bytes) == 50_000
    assert all(one["bytes"] < 1_010_000 for one in by_bytes)
    assert (world.stats()["rows"], world.stats()["received"]) == (50_000, 50_000)


def test_what_fails_after_some_requests_of_a_file_have_landed_is_unknown(world: ArizeWorld, tmp_path: Path) -> None:
    upload = staged(tmp_path / "a", columns(40_000))
    for fault in (Fault("throttle", kind="file", skip=1, retry_after=3600.0), Fault("fail", status=400, skip=1)):
        world.sandbox.configure(faults=[])
        world.sandbox.fault(fault)
        with pytest.raises(Unknown, match="1 requests of it have landed"):
            world.destination(request_rows=20_000, retries=0).send(INFERENCES, upload)


@pytest.mark.parametrize("status", [200, 204])
def test_an_answer_that_is_not_arizes_is_unknown(world: ArizeWorld, files: Files, status: int) -> None:
    class Portal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            if status == 200:
                self.wfile.write(b"<html>Please sign in.</html>")

        def log_message(self, *_: object) -> None:
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with pytest.raises(Unknown):
                world.destination(url=f"http://127.0.0.1:{server.server_port}").send(
                    INFERENCES, files.upload([inference(1)])
                )
        finally:
            server.shutdown()


def test_nothing_is_stored_by_trying_the_key(world: ArizeWorld) -> None:
    world.destination().check(INFERENCES, COLUMNS)
    assert world.stored() == 0
    with pytest.raises(Misconfigured, match="refuses the key"):
        world.destination(key="wrong").check(INFERENCES, COLUMNS)
    for status in (400, 405, 422, 500):
        world.sandbox.fault(Fault("fail", status=status, count=1))
        world.destination(retries=0).check(INFERENCES, COLUMNS)
    world.sandbox.fault(Fault("fail", status=503))
    with pytest.raises(Retryable):
        world.destination(retries=0).check(INFERENCES, COLUMNS)


def test_a_file_that_lacks_a_column_is_refused_by_its_name(world: ArizeWorld, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="carrier"):
        world.destination().send(INFERENCES, staged(tmp_path / "a", columns(3).drop_columns(["carrier"])))


def test_it_can_be_asked_nothing(world: ArizeWorld) -> None:
    destination = world.destination()
    assert destination.proof is Proof.RECEIPT
    for ask in (
        lambda: destination.counts(INFERENCES, Range(0, 1)),
        lambda: destination.ids(INFERENCES, Range(0, 1)),
        lambda: destination.send_rows(INFERENCES, []),
    ):
        with pytest.raises(Misconfigured, match="cannot be asked"):
            ask()
    destination.close_batch("monday", 3)


def test_options_that_cannot_be_are_refused(world: ArizeWorld) -> None:
    for wrong in (
        {"url": "https://user@host"},
        {"api_key": " "},
        {"space_id": "späce"},
        {"model": ""},
        {"environment": "staging"},
        {"retries": -1},
        {"request_rows": 0},
    ):
        with pytest.raises(Misconfigured):
            ArizeOptions(**{**world.options, **wrong})
    assert "secret" not in repr(ArizeOptions(**{**world.options, "api_key": "secret"}))


# --------------------------------------------------------------------------------------------------------- memory

_SEND = """
import json, pathlib, sys
from tidepost.model import StreamName
from tidepost.ports import Upload, unguarded
{recipe}

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024

for path in map(pathlib.Path, sys.argv[1:]):
    rows = int(path.stem)
    receipt = destination.send(
        StreamName.INFERENCES, Upload(path.name, rows, path.stat().st_size, lambda: path.open("rb"), unguarded)
    )
    print(peak(), receipt.accepted, flush=True)
"""


def test_memory_does_not_grow_with_the_rows_of_a_file(world: ArizeWorld, tmp_path: Path) -> None:
    sizes = (130_000, 1_000_000)
    for rows in sizes:
        at = pa.repeat(pa.scalar(START, pa.timestamp("us", "UTC")), rows)
        ids = pa.array(pa.chunked_array([pa.arange(0, rows)]).cast(pa.string()).combine_chunks())
        table = columns(1).take(pa.array([0] * rows)).set_column(0, "partner_inference_id", ids)
        pq.write_table(table.set_column(1, "inference_timestamp", at), tmp_path / str(rows), row_group_size=122_880)
    program = _SEND.format(recipe=f"{world.recipe[:-1]}, clock=lambda: {NOW})")
    done = subprocess.run(
        [sys.executable, "-c", program, *(str(tmp_path / str(rows)) for rows in sizes)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (small, _), (large, accepted) = (map(int, line.split()) for line in done.stdout.split("\n")[:2])
    assert accepted == 1_000_000
    assert large - small < 40, "megabytes beyond what a tenth of the rows needs"


# -------------------------------------------------------------------------------------------- the sandbox's own part


def test_the_sandbox_refuses_what_breaks_a_rule_and_stores_none_of_it(world: ArizeWorld) -> None:
    def post(table: pa.Table, headers: Mapping[str, str], body: bytes | None = None) -> requests.Response:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        content = sink.getvalue().to_pybytes() if body is None else body
        return requests.post(f"{world.sandbox.url}/v1/pandas_arrow", data=content, headers=headers, timeout=30)

    from tidepost.destinations.arize.schema import Columns, Constants, encoded  # noqa: PLC0415

    of = Columns("partner_inference_id", "inference_timestamp", "probability", features=("distance",), tags=("note",))
    text = encoded(Constants(world.model, "production", "regression"), of)
    good = columns(2)
    headers = {"authorization": KEY, "space": "older", "schema": text.decode()}
    assert post(good, headers).status_code == 200
    assert world.sandbox.arize("older", world.model)
    headers = {"authorization": KEY, "arize-space-id": SPACE}
    described = good.replace_schema_metadata({"arize-schema": text})
    for table, more, said in (
        (good, {}, "neither the Arrow schema's metadata nor a header"),
        (good.replace_schema_metadata({"arize-schema": "????"}), {}, "no message"),
        (described, {"number-of-rows": "3"}, "number-of-rows says 3, and the batch holds 2"),
        (described.drop_columns(["distance"]), {}, "no column 'distance'"),
        (described.set_column(2, "distance", pa.array([1, 2], pa.uint32())), {}, "'distance' is uint32"),
        (described.set_column(0, "partner_inference_id", pa.array(["a", ""])), {}, "1 to 512 characters in 1 rows"),
        (described.set_column(4, "probability", pa.array([None, 0.5])), {}, "no value in any of probability in 1"),
    ):
        answer = post(table, {**headers, **more})
        assert (answer.status_code, said in answer.json()["message"]) == (400, True), answer.text
    assert post(described, headers, b"no stream").status_code == 400
    assert post(described, {**headers, "authorization": "Bearer x"}).status_code == 401
    assert post(described, {"authorization": KEY}).status_code == 401
    assert world.stored() == 0
    page = requests.get(world.sandbox.url, timeout=30).text
    assert f"Arize: {world.model} in the space older" in page
    assert json.loads(requests.get(f"{world.sandbox.url}/sandbox/arize/stats", timeout=30).text)["models"]


def test_what_the_sandbox_accepted_outlives_a_kill(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path / "data", api_key=KEY) as process:
        process.configure(now=NOW)
        world = ArizeWorld(process)
        world.destination().send(INFERENCES, staged(tmp_path / "a", columns(500)))
        process.kill()
        process.start()
        process.configure(now=NOW)
        world.destination().send(INFERENCES, staged(tmp_path / "a", columns(500)))
        assert (world.stats()["rows"], world.stats()["received"]) == (500, 1000)
        world.close()
