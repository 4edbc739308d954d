"""Arize's own SDK, of generation 7 or 8, against a sandbox: batches, actuals, SHAP values, tags, records, a bad key;
and the schema messages that it makes.

Run by test_arize_sdk.py in an environment that holds the SDK. Takes the sandbox's URL, a space, and cases of messages
as JSON, and prints what it saw as one line of JSON.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import Any, Protocol

import pandas as pd  # type: ignore[import-untyped]

KEY = "an-api-key"
NOW = int(time.time())


class Spoken(Protocol):
    """What both generations can do, under one name each."""

    def schema(self, **columns: Any) -> Any: ...
    def batch(self, frame: Any, schema: Any, *, key: str = KEY, **about: Any) -> int: ...
    def record(self, *, key: str = KEY, **about: Any) -> int: ...
    def message(self, case: dict[str, Any]) -> bytes: ...


class Seven:
    """arize 7."""

    def __init__(self, url: str, space: str) -> None:
        from arize.utils import types  # type: ignore[import-not-found]  # noqa: PLC0415

        self.types, self._url, self._space = types, f"{url}/v1", space

    def schema(self, **columns: Any) -> Any:
        return self.types.Schema(**columns)

    def batch(self, frame: Any, schema: Any, *, key: str = KEY, **about: Any) -> int:
        from arize.pandas.logger import Client  # type: ignore[import-not-found]  # noqa: PLC0415

        client = Client(space_id=self._space, api_key=key, uri=self._url)
        return int(client.log(dataframe=frame, schema=schema, **self._typed(about)).status_code)

    def record(self, *, key: str = KEY, **about: Any) -> int:
        from arize.api import Client  # type: ignore[import-not-found]  # noqa: PLC0415

        client = Client(space_id=self._space, api_key=key, uri=self._url)
        return int(client.log(**self._typed(about)).result().status_code)

    def message(self, case: dict[str, Any]) -> bytes:
        from arize.utils import proto  # noqa: PLC0415

        about = self._typed(case["about"])
        return bytes(proto._get_pb_schema(schema=self.schema(**case["columns"]), **about).SerializeToString())

    def _typed(self, about: dict[str, Any]) -> dict[str, Any]:
        model, kind = about.pop("model"), self.types.ModelTypes[about.pop("model_type")]
        environment = self.types.Environments[about.pop("environment", "PRODUCTION")]
        return {"model_id": model, "model_type": kind, "environment": environment, **about}


class Eight:
    """arize 8."""

    def __init__(self, url: str, space: str) -> None:
        from arize.ml import types  # type: ignore[import-not-found]  # noqa: PLC0415

        self.types, self._space = types, space
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)

    def schema(self, **columns: Any) -> Any:
        return self.types.Schema(**columns)

    def batch(self, frame: Any, schema: Any, *, key: str = KEY, **about: Any) -> int:
        from arize.exceptions.auth import AuthenticationError  # type: ignore[import-not-found]  # noqa: PLC0415

        log = self._client(key).ml.log
        try:
            answer = log(space_id=self._space, dataframe=frame, schema=schema, **self._typed(about))
        except AuthenticationError as error:
            return 401 if "HTTP 401" in str(error) else 0
        return int(answer.status_code)

    def record(self, *, key: str = KEY, **about: Any) -> int:
        answer = self._client(key).ml.log_stream(space_id=self._space, **self._typed(about))
        return int(answer.result().status_code)

    def message(self, case: dict[str, Any]) -> bytes:
        from arize.ml.client import _get_pb_schema  # type: ignore[import-not-found]  # noqa: PLC0415

        about = self._typed(case["about"])
        about["model_id"] = about.pop("model_name")
        return bytes(_get_pb_schema(schema=self.schema(**case["columns"]), **about).SerializeToString())

    def _client(self, key: str) -> Any:
        from arize import ArizeClient  # type: ignore[import-not-found]  # noqa: PLC0415

        return ArizeClient(api_key=key, single_host=self._host, single_port=self._port, api_scheme="http")

    def _typed(self, about: dict[str, Any]) -> dict[str, Any]:
        model, kind = about.pop("model"), self.types.ModelTypes[about.pop("model_type")]
        environment = self.types.Environments[about.pop("environment", "PRODUCTION")]
        return {"model_name": model, "model_type": kind, "environment": environment, **about}


def frame(rows: int) -> Any:
    """Predictions of a regression with features of every kind, tags and SHAP values."""
    numbers = range(rows)
    return pd.DataFrame(
        {
            "id": [f"flight-{number}" for number in numbers],
            "at": [NOW - 3600 + number for number in numbers],
            "distance": [100.5 + number for number in numbers],
            "seats": list(numbers),
            "carrier": ["UA" if number % 2 else None for number in numbers],
            "stops": [["ORD", "DEN"][: number % 3] for number in numbers],
            "delay": [number / 4 for number in numbers],
            "origin": ["EWR"] * rows,
            "distance_says": [-0.125] * rows,
        }
    )


def seen(sdk: Spoken) -> dict[str, Any]:
    """What the sandbox answered to each call."""
    about = {"model": "sdk", "model_type": "REGRESSION", "model_version": "v1"}
    named = sdk.schema(
        prediction_id_column_name="id",
        timestamp_column_name="at",
        prediction_label_column_name="delay",
        feature_column_names=["distance", "seats", "carrier", "stops"],
        tag_column_names=["origin"],
        shap_values_column_names={"distance": "distance_says"},
    )
    actuals = pd.DataFrame({"id": ["flight-0", "flight-1"], "late": [0.0, 12.5]})
    late = sdk.schema(prediction_id_column_name="id", actual_label_column_name="late")
    validation = {"environment": "VALIDATION", "batch_id": "set-1"}
    both = sdk.schema(
        prediction_id_column_name="id",
        timestamp_column_name="at",
        prediction_label_column_name="delay",
        actual_label_column_name="distance",
    )
    streamed: dict[str, Any] = {
        "prediction_id": "record-0",
        "prediction_timestamp": NOW,
        "prediction_label": 1.5,
        "features": {"distance": 7, "carrier": "UA", "direct": True},
        "tags": {"origin": "EWR"},
        "shap_values": {"distance": 0.5},
    }
    return {
        "batch": sdk.batch(frame(20_000), named, **about),
        "again": sdk.batch(frame(10), named, **about),
        "actuals": sdk.batch(actuals, late, **about),
        "validation": sdk.batch(frame(3), both, **{**about, **validation, "model": "sdk-validation"}),
        "record": sdk.record(**about, **streamed),
        "record actual": sdk.record(model="sdk", model_type="REGRESSION", prediction_id="record-0", actual_label=2.5),
        "bad key": sdk.batch(frame(3), named, key="wrong", **about),
        "bad key of a record": sdk.record(key="wrong", **about, **streamed),
    }


def main(url: str, space: str, cases: str) -> None:
    """Runs everything and prints what was seen."""
    try:
        import arize.api  # noqa: F401, PLC0415

        sdk: Spoken = Seven(url, space)
    except ImportError:
        sdk = Eight(url, space)
    messages = [base64.b64encode(sdk.message(case)).decode() for case in json.loads(cases)]
    print(json.dumps({**seen(sdk), "messages": messages}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
