"""Arize's own upload of a frame, by SDK 8 or 7. Arguments: the platform's URL, a parquet file, the tags."""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd  # type: ignore[import-untyped]


def main(url: str, file: str, tags: str) -> None:
    frame = pd.read_parquet(file)
    columns = {
        "prediction_id_column_name": "partner_inference_id",
        "timestamp_column_name": "inference_timestamp",
        "prediction_label_column_name": "score",
        "feature_column_names": ["distance", "carrier"],
        "tag_column_names": tags.split(","),
    }
    answer = _eight(url, frame, columns) if _is_eight() else _seven(url, frame, columns)
    print(answer.status_code)
    if answer.status_code != 200:
        raise RuntimeError(answer.text)


def _is_eight() -> bool:
    from importlib.metadata import version  # noqa: PLC0415

    return version("arize").startswith("8.")


def _eight(url: str, frame: Any, columns: dict[str, Any]) -> Any:
    from arize import ArizeClient  # type: ignore[import-not-found]  # noqa: PLC0415
    from arize.ml.types import Environments, ModelTypes, Schema  # type: ignore[import-not-found]  # noqa: PLC0415

    host, _, port = url.removeprefix("http://").partition(":")
    client = ArizeClient(api_key="an-api-key", single_host=host, single_port=int(port), api_scheme="http")
    return client.ml.log(
        space_id="bench",
        model_name="uploads",
        model_version="1",
        model_type=ModelTypes.REGRESSION,
        environment=Environments.PRODUCTION,
        dataframe=frame,
        schema=Schema(**columns),
    )


def _seven(url: str, frame: Any, columns: dict[str, Any]) -> Any:
    from arize.pandas.logger import Client  # type: ignore[import-not-found]  # noqa: PLC0415
    from arize.utils.types import Environments, ModelTypes, Schema  # type: ignore[import-not-found]  # noqa: PLC0415

    return Client(space_id="bench", api_key="an-api-key", uri=f"{url}/v1").log(
        model_id="uploads",
        model_version="1",
        model_type=ModelTypes.REGRESSION,
        environment=Environments.PRODUCTION,
        dataframe=frame,
        schema=Schema(**columns),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
