"""Arize's own Python SDKs, of both generations, work against the sandbox; and their schema messages are ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.environment import environment, output_of

from tidepost.destinations.arize.schema import Columns, Constants, encoded, message
from tidepost.sandbox import SandboxProcess
from tidepost.sandbox.arize.message import decoded

KEY = "an-api-key"

CASES = (
    (
        Constants("flights", "production", "regression", version="3"),
        Columns("id", "at", "delay", features=("distance", "carrier"), tags=("origin",)),
    ),
    (
        Constants("späte Flüge ✈", "production", "binary_classification", version="v" * 200),
        Columns("id", "at", "late", "score", features=tuple(f"f{n}" for n in range(300)), shap={"f0": "s" * 130}),
    ),
    (
        Constants("m", "validation", "score_categorical", version="1", batch_id="set-1"),
        Columns("id", "at", "late", "score", "was_late", "was_score", tags=("a", "b", "c")),
    ),
    (Constants("m", "training", "numeric", version="1"), Columns("id", "at", "delay", actual_label="late")),
    (Constants("m", "production", "numeric"), Columns("id", actual_label="late")),
    (Constants("m", "production", "score_categorical"), Columns("id", actual_label="late", actual_score="by")),
    (Constants("m", "production", "ranking", version="1"), Columns("id", "at", "", "s", group="g", rank="r")),
)
"""At most one SHAP value each: protobuf writes the entries of a map in no order of its own."""
NAMES = {
    "prediction_id": "prediction_id_column_name",
    "timestamp": "timestamp_column_name",
    "prediction_label": "prediction_label_column_name",
    "prediction_score": "prediction_score_column_name",
    "actual_label": "actual_label_column_name",
    "actual_score": "actual_score_column_name",
    "group": "prediction_group_id_column_name",
    "rank": "rank_column_name",
}


def case(constants: Constants, columns: Columns) -> dict[str, Any]:
    """As the SDKs' words have it."""
    about = {
        "model": constants.model,
        "model_type": constants.model_type.upper(),
        "environment": constants.environment.upper(),
        "model_version": constants.version or None,
        "batch_id": constants.batch_id or None,
    }
    named: dict[str, Any] = {theirs: value for ours, theirs in NAMES.items() if (value := getattr(columns, ours))}
    named |= {"feature_column_names": list(columns.features)} if columns.features else {}
    named |= {"tag_column_names": list(columns.tags)} if columns.tags else {}
    named |= {"shap_values_column_names": dict(columns.shap)} if columns.shap else {}
    return {"about": about, "columns": named}


@dataclass
class Ran:
    """An SDK's run: the space that it sent to, and what it saw."""

    sandbox: SandboxProcess
    space: str
    saw: dict[str, Any]


@pytest.fixture(scope="module")
def arize(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path_factory.mktemp("sandbox") / "data", api_key=KEY) as process:
        yield process


@pytest.fixture(scope="module", params=["arize-7", "arize-8"])
def ran(request: pytest.FixtureRequest, arize: SandboxProcess) -> Ran:
    """What one generation of the SDK did."""
    space = f"space-of-{request.param}"
    script = Path(__file__).parent / "arize_sdk_client.py"
    cases = json.dumps([case(constants, columns) for constants, columns in CASES])
    printed = output_of(environment(request.param) / "python", script, arize.url, space, cases)
    return Ran(arize, space, json.loads(printed.splitlines()[-1]))


def test_what_it_sends_is_taken_and_a_bad_key_is_not(ran: Ran) -> None:
    status = {name: answer for name, answer in ran.saw.items() if name != "messages"}
    refused = {"bad key": 401, "bad key of a record": 401}
    assert status == dict.fromkeys(status.keys() - refused.keys(), 200) | refused


def test_its_batches_arrive_with_all_that_they_have(ran: Ran) -> None:
    stats = ran.sandbox.arize(ran.space, "sdk")
    assert stats is not None
    assert (stats["rows"], stats["predictions"], stats["repeats"]) == (20_001, 20_001, 10)
    record = ran.sandbox.arize_records(ran.space, "sdk", ["flight-17"])["flight-17"]
    assert record["features"] == {"distance": 117.5, "seats": 17, "carrier": "UA", "stops": ["ORD", "DEN"]}
    assert (record["tags"], record["shap"]) == ({"origin": "EWR"}, {"distance": -0.125})
    assert (record["prediction_label"], record["version"]) == (4.25, "v1")
    validation = ran.sandbox.arize(ran.space, "sdk-validation")
    assert validation is not None
    assert (validation["matched"], validation["batches"]) == (3, ["set-1"])


def test_its_actuals_join_their_predictions_zero_among_them(ran: Ran) -> None:
    found = ran.sandbox.arize_records(ran.space, "sdk", ["flight-0", "flight-1", "flight-2"])
    assert [one["actual_label"] for one in found.values()] == [0.0, 12.5, None]


def test_its_streamed_records_arrive(ran: Ran) -> None:
    record = ran.sandbox.arize_records(ran.space, "sdk", ["record-0"])["record-0"]
    assert (record["prediction_label"], record["actual_label"]) == (1.5, 2.5)
    assert record["features"] == {"distance": 7, "carrier": "UA", "direct": "True"}
    assert (record["tags"], record["shap"]) == ({"origin": "EWR"}, {"distance": 0.5})


def test_its_schema_messages_are_ours_byte_for_byte(ran: Ran) -> None:
    for (constants, columns), theirs in zip(CASES, ran.saw["messages"], strict=True):
        assert message(constants, columns) == base64.b64decode(theirs)


def test_the_sandbox_reads_from_a_message_what_was_put_into_it() -> None:
    for constants, columns in CASES:
        found = decoded(encoded(constants, columns))
        assert (found.model, found.environment) == (constants.model, constants.environment)
        assert (found.version or "", found.batch_id or "") == (constants.version, constants.batch_id)
        assert set(found.columns) == set(columns.named)
        assert (found.features, found.tags, found.shap) == (columns.features, columns.tags, columns.shap)
