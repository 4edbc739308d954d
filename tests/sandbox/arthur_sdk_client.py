"""Arthur's own SDK against a sandbox: every call of it that concerns tabular models.

Run by test_arthur_sdk.py in an environment that holds the SDK. Takes the sandbox's URL and an empty directory, and
prints what it saw as one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from arthurai import ArthurAI  # type: ignore[import-not-found]
from arthurai.common.constants import InputType, OutputType  # type: ignore[import-not-found]

START = datetime(2024, 5, 1, tzinfo=timezone.utc)  # noqa: UP017  # as users of the SDK write it
COUNT = {"select": [{"function": "count"}]}


def frame(first: int, rows: int) -> Any:
    """Inferences with ids from `first` on, a minute apart."""
    numbers = range(first, first + rows)
    return pd.DataFrame(
        {
            "partner_inference_id": [f"flight-{number}" for number in numbers],
            "inference_timestamp": [START + timedelta(minutes=number) for number in numbers],
            "distance": [100.0 + number for number in numbers],
            "carrier": ["UA" if number % 2 else "AA" for number in numbers],
            "seats": [150 + number % 3 for number in numbers],
            "delay": [number / 10 for number in numbers],
        }
    )


def labels(first: int, rows: int, *, shift: int = 0) -> Any:
    """Ground truth of the same ids; shifted, of other values."""
    numbers = range(first, first + rows)
    return pd.DataFrame(
        {
            "partner_inference_id": [f"flight-{number}" for number in numbers],
            "ground_truth_timestamp": [START + timedelta(days=2)] * rows,
            "actual_delay": [float((number + shift) % 5) for number in numbers],
        }
    )


def wait_until_loaded(url: str) -> None:
    """Returns when the sandbox has loaded everything it accepted."""
    while json.load(urllib.request.urlopen(f"{url}/sandbox/queue", timeout=10))["pending"]:
        time.sleep(0.02)


def register(arthur: Any, name: str, *, is_batch: bool) -> Any:
    """A regression model, built from reference data as users do, and saved."""
    columns = ["distance", "carrier", "seats", "delay"]
    reference = frame(0, 40)[columns].assign(actual_delay=[float(number) for number in range(40)])
    model = arthur.model(
        partner_model_id=name, input_type=InputType.Tabular, output_type=OutputType.Regression, is_batch=is_batch
    )
    model.build(reference, {"delay": "actual_delay"}, non_input_columns=["seats"])
    model.save()
    return model


def streaming(arthur: Any, url: str, directory: Path) -> dict[str, Any]:
    """A model without batches: rows, files and directories, ground truth, queries, the end."""
    model = register(arthur, "sdk streaming", is_batch=False)
    seen: dict[str, Any] = {"status": model.status}
    by_id, by_name = arthur.get_model(model.id), arthur.get_model("sdk streaming", id_type="partner_model_id")
    seen["same"] = by_id.to_dict() == by_name.to_dict()
    seen["stages"] = {attribute.name: attribute.stage for attribute in by_id.attributes}
    seen["rows"] = model.send_inferences(frame(0, 3).to_dict("records"))
    seen["row labels"] = model.update_inference_ground_truths(labels(0, 3))
    seen["frame"] = model.send_bulk_inferences(data=frame(3, 4))[0]
    frame(7, 5).to_parquet(directory / "one.parquet")
    frame(12, 5).to_parquet(directory / "two.parquet")
    rows = [
        {
            "partner_inference_id": row["partner_inference_id"],
            "inference_timestamp": row["inference_timestamp"].isoformat(),
            "inference_data": {name: row[name] for name in ("distance", "carrier", "seats", "delay")},
        }
        for row in frame(17, 2).to_dict("records")
    ]
    (directory / "three.json").write_text(json.dumps(rows))
    seen["directory"] = model.send_bulk_inferences(directory_path=str(directory))[0]
    wait_until_loaded(url)
    seen["file labels"] = model.send_bulk_ground_truths(data=labels(3, 10))
    wait_until_loaded(url)
    model.await_inferences(min_count=13)
    seen["count"] = model.query(COUNT)
    carrier = {"property": "carrier"}
    seen["by carrier"] = model.query(
        {"select": [carrier, *COUNT["select"]], "group_by": [carrier], "order_by": [carrier]}
    )
    seen["enrichments"] = sorted(model.get_enrichments())
    seen["again"] = model.send_inferences(frame(0, 1).to_dict("records"), fail_silently=True)["counts"]
    model.archive()
    try:
        arthur.get_model(model.id)
    except Exception as error:  # the SDK wraps what it raises
        seen["archived"] = "404" in f"{error}{error.__cause__}"
    return seen


def ground_truth(arthur: Any, url: str, directory: Path) -> dict[str, Any]:
    """The life of labels: by rows, frame and directory; unknown ids; changed values; what is asked of them."""
    model = register(arthur, "sdk ground truth", is_batch=False)
    model.send_inferences(frame(0, 12).to_dict("records"))
    seen: dict[str, Any] = {"rows": model.update_inference_ground_truths(labels(0, 3))["counts"]}
    stranger = labels(2, 1).assign(partner_inference_id="stranger")
    unknown = model.update_inference_ground_truths(pd.concat([labels(3, 1), stranger]), fail_silently=True)
    seen["unknown row"] = [unknown["counts"], unknown["results"][1]]
    seen["frame"] = model.send_bulk_ground_truths(data=labels(4, 2))
    seen["unknown in a frame"] = model.send_bulk_ground_truths(data=pd.concat([labels(6, 2), stranger]))
    labels(8, 2).to_parquet(directory / "labels.parquet")
    rows = [
        {
            "partner_inference_id": row["partner_inference_id"],
            "ground_truth_timestamp": row["ground_truth_timestamp"].isoformat(),
            "ground_truth_data": {"actual_delay": row["actual_delay"]},
        }
        for row in labels(10, 1).to_dict("records")
    ]
    (directory / "labels.json").write_text(json.dumps(rows))
    seen["directory"] = model.send_bulk_ground_truths(directory_path=str(directory))
    wait_until_loaded(url)
    seen["changed by rows"] = model.update_inference_ground_truths(labels(0, 1, shift=1))["counts"]
    seen["changed by file"] = model.send_bulk_ground_truths(data=labels(1, 1, shift=1))["counts"]
    wait_until_loaded(url)
    model.await_inferences(min_count=11)
    seen["labelled"] = model.query({**COUNT, "from": "ground_truth"})
    select = [{"property": "partner_inference_id"}, {"property": "actual_delay"}]
    shown = model.query({"select": select, "from": "ground_truth"})
    seen["values"] = {row["partner_inference_id"]: row["actual_delay"] for row in shown}
    known_at = {"property": "ground_truth_timestamp", "time_interval": "hour"}
    hour = {"function": "roundTimestamp", "alias": "hour", "parameters": known_at}
    by_hour = {"select": [hour, *COUNT["select"]], "from": "ground_truth", "group_by": [{"alias": "hour"}]}
    seen["by hour"] = model.query(by_hour)
    return seen


def batches(arthur: Any, url: str) -> dict[str, Any]:
    """A batch model: the SDK closes a batch after it sent it."""
    model = register(arthur, "sdk batches", is_batch=True)
    model.send_inferences(frame(0, 3).to_dict("records"), batch_id="2024-05-01")
    sent, closed = model.send_bulk_inferences(data=frame(3, 4), batch_id="2024-05-02")
    model.send_bulk_inferences(data=frame(7, 2), batch_id="2024-05-03", complete_batch=False)
    wait_until_loaded(url)
    batch = {"property": "batch_id"}
    counted = model.query({"select": [batch, *COUNT["select"]], "group_by": [batch], "order_by": [batch]})
    return {"id": model.id, "sent": sent["counts"], "closed": closed, "by batch": counted}


def main(url: str, directory: Path) -> None:
    """Runs everything and prints what was seen."""
    arthur = ArthurAI(url=url, access_key="an-access-key", allow_insecure=True)
    logged_in = ArthurAI(url=url, login="ada", password="an-access-key", allow_insecure=True)
    (directory / "labels").mkdir()
    seen = {
        "streaming": streaming(arthur, url, directory),
        "batches": batches(logged_in, url),
        "ground truth": ground_truth(arthur, url, directory / "labels"),
    }
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
