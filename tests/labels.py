"""Worlds with labels: a job whose ground truth lies in `labels/`, as `world.py` makes them.

of_labels(world)
labels(world, "monday", [label(1, 0), label(2, 15)])
run_both(world)
assert shown(world) == {"r000001": 0, "r000002": 15}
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.world import START, Row, World

from tidepost import run as engine
from tidepost.model import Stream, StreamName
from tidepost.outcome import Outcome

LANDED = START + timedelta(hours=3)
"""When a label of a world is known, in the world and to its source."""
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("late", pa.int64()),
        ("landed_at", pa.timestamp("us", "UTC")),
        ("known_at", pa.timestamp("us", "UTC")),
    ]
)


def label(number: int, late: int | None, *, known: datetime = LANDED, **changes: Any) -> Row:
    """The label of `world.row(number)`; of one inference all have the same ground-truth timestamp, unless told."""
    return {"id": f"r{number:06d}", "late": late, "landed_at": LANDED, "known_at": known} | changes


def of_labels(world: World, **changes: Any) -> World:
    """Give a world's job ground truth."""
    (world.root / "labels").mkdir()
    world.define(
        ground_truth={
            "source": "labels/*.parquet",
            "cursor": {"column": "known_at", "start": "2024-05-01T00:00:00Z", "settle": "10m", "lookback": "1d"},
            "ground_truth_timestamp": "landed_at",
            "attributes": ["late"],
            **changes,
        }
    )
    return world


def labels(world: World, name: str, of: Sequence[Row] | pa.Table) -> Path:
    """Write a file of labels, whole."""
    path = world.root / "labels" / f"{name}.parquet"
    draft = path.with_suffix(".draft")
    pq.write_table(of if isinstance(of, pa.Table) else pa.Table.from_pylist(list(of), schema=SCHEMA), draft)
    return draft.replace(path)


def run_labels(world: World) -> Outcome:
    """One run of the labels alone."""
    with world.wired() as wired:
        assert wired.labels is not None
        return engine.run(wired.labels, world.ask(), notice=world.events.append, stop=threading.Event())


def run_both(world: World) -> tuple[Outcome, Outcome]:
    """One bulk run: inferences, then labels."""
    with world.wired() as wired:
        assert wired.labels is not None
        first, second = (
            engine.run(one, world.ask(), notice=world.events.append, stop=threading.Event())
            for one in (wired, wired.labels)
        )
    return first, second


def shown(world: World, name: str = "late") -> dict[str, Any]:
    """id → the label that the platform holds."""
    world.platform.process.wait_until_loaded()
    body = {"select": [{"property": "partner_inference_id"}, {"property": name}], "from": "ground_truth"}
    answer = world.platform.call("POST", f"/models/{world.model_id}/inferences/query", body)
    assert answer.status_code == 200, answer.text
    return {one["partner_inference_id"]: one[name] for one in answer.json()["query_result"]}


def stream_of_labels(world: World) -> Stream:
    with world.ledger() as ledger:
        found = ledger.plans.find("flights", StreamName.GROUND_TRUTH)
    assert found is not None
    return found


def rejected_labels(world: World) -> dict[str, str]:
    """id → why its label was set aside."""
    folder = world.staging.root / "flights" / "ground_truth" / "_tidepost"
    found = [*sorted(folder.glob("rejects/*.parquet")), *sorted(folder.glob("refused/*.parquet"))]
    return {
        str(one["partner_inference_id"]): str(one["reason"])
        for path in found
        for one in pq.read_table(path).to_pylist()
    }


def versions_sent(world: World) -> list[tuple[str, int]]:
    """(id, when it became known) of every label in a published slice."""
    folder = world.staging.root / "flights" / "ground_truth" / "_tidepost" / "versions"
    return sorted(
        (str(one["id"]), int(one["known"]))
        for path in folder.glob("*.parquet")
        for one in pq.read_table(path).to_pylist()
        if one["sent"]
    )
