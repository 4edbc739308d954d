"""Labels of every kind, from every place that inferences come from too."""

from __future__ import annotations

import threading
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.labels import LANDED, label, labels, of_labels, run_both, run_labels, shown
from tests.s3 import NewPlace
from tests.world import ATTRIBUTES, Platform, World, rows, said

from tidepost import run as engine
from tidepost.model import StreamName
from tidepost.sandbox.settings import Fault

KINDS = (
    *(one for one in ATTRIBUTES if one[2] != "GROUND_TRUTH"),
    ("minutes", "FLOAT", "GROUND_TRUTH"),
    ("late", "BOOLEAN", "GROUND_TRUTH"),
    ("why", "STRING", "GROUND_TRUTH"),
)


def kinds(number: int, minutes: float | None, late: bool | None, why: str | None) -> dict[str, Any]:
    return label(number, None) | {"late": late, "minutes": minutes, "why": why}


SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("late", pa.bool_()),
        ("landed_at", pa.timestamp("us", "UTC")),
        ("known_at", pa.timestamp("us", "UTC")),
        ("minutes", pa.float64()),
        ("why", pa.string()),
    ]
)


def test_zero_false_and_empty_text_are_labels_and_null_is_none_yet(world: World, platform: Platform) -> None:
    several = of_labels(
        World.make(world.root / "several", platform, attributes=KINDS), attributes=["minutes", "late", "why"]
    )
    several.log("monday", rows(5))
    found = [
        kinds(0, 0.0, False, ""),
        kinds(1, None, False, "fog"),
        kinds(2, 0.0, False, None),
        kinds(3, None, None, None),
        kinds(4, 12.5, True, "fog"),
    ]
    labels(several, "monday", pa.Table.from_pylist(found, schema=SCHEMA))
    _, outcome = run_both(several)
    assert (said(outcome), outcome.tally.scanned, outcome.arrived) == ("", 2, 2)
    assert shown(several, "minutes") == {"r000000": 0.0, "r000004": 12.5}
    assert shown(several, "late") == {"r000000": False, "r000004": True}
    assert shown(several, "why") == {"r000000": "", "r000004": "fog"}


def test_a_class_is_sent_as_one_hot_columns_by_a_query(world: World, platform: Platform) -> None:
    hot = [("is_late", "INTEGER", "GROUND_TRUTH"), ("is_cancelled", "INTEGER", "GROUND_TRUTH")]
    plain = [one for one in ATTRIBUTES if one[2] != "GROUND_TRUTH"]
    classes = World.make(world.root / "classes", platform, attributes=[*plain, *hot])
    with duckdb.connect(classes.root / "outcomes.duckdb") as connection:
        connection.execute("CREATE TABLE outcomes (flight VARCHAR, class VARCHAR, landed TIMESTAMP)")
        values = [("r000000", "late"), ("r000001", "cancelled"), ("r000002", None)]
        connection.executemany(f"INSERT INTO outcomes VALUES (?, ?, '{LANDED:%Y-%m-%d %H:%M}')", values)
    of_labels(
        classes,
        source={
            "database": "outcomes.duckdb",
            "query": "SELECT flight, landed, (class = 'late')::INT AS is_late, "
            "(class = 'cancelled')::INT AS is_cancelled FROM outcomes",
        },
        cursor={"column": "landed", "timezone": "UTC", "start": "2024-05-01"},
        partner_inference_id="flight",
        ground_truth_timestamp={"column": "landed", "timezone": "UTC"},
        attributes=["is_late", "is_cancelled"],
    )
    classes.log("monday", rows(3))
    _, outcome = run_both(classes)
    assert (said(outcome), outcome.tally.published) == ("", 2)
    assert shown(classes, "is_late") == {"r000000": 1, "r000001": 0}
    assert shown(classes, "is_cancelled") == {"r000000": 0, "r000001": 1}


def test_an_id_is_put_together_of_a_labels_own_columns(world: World) -> None:
    of_labels(world, partner_inference_id="r{number:06d}")
    world.log("monday", rows(3))
    schema = pa.schema([*((one.name, one.type) for one in SCHEMA if one.name != "id"), ("number", pa.int16())])
    found = [{**label(n, None), "late": True, "number": n} for n in range(2)]
    table = pa.Table.from_pylist(found, schema=schema)
    labels(world, "monday", table.set_column(0, "late", table.column("late").cast(pa.int64())))
    _, outcome = run_both(world)
    assert said(outcome) == ""
    assert shown(world) == {"r000000": 1, "r000001": 1}


def test_labels_work_with_a_staging_in_s3(world: World, new_place: NewPlace) -> None:
    (world.root / "tidepost.yaml").write_text(f"version: 1\nstaging: {new_place()}\n")
    of_labels(world)
    world.log("monday", rows(3))
    labels(world, "monday", [*(label(n, 1) for n in range(2)), label(9, 5)])
    run_both(world)
    labels(world, "tuesday", [label(0, 2, known=LANDED.replace(hour=20))])
    world.log("late", rows(1, first=9, at=LANDED))
    _, outcome = run_both(world)
    assert (said(outcome), outcome.tally.published) == ("", 2)
    assert shown(world) == {"r000000": 2, "r000001": 1, "r000009": 5}


def test_labels_that_the_platform_leaves_out_are_sent_again_row_by_row(world: World) -> None:
    of_labels(world)
    world.log("monday", rows(40))
    world.run()
    labels(world, "monday", [label(n, n) for n in range(40)])
    world.platform.process.fault(Fault("drop", kind="file", rows=0.3, count=1))
    assert said(run_labels(world)) == ""
    assert shown(world) == {f"r{n:06d}": n for n in range(40)}


@pytest.mark.parametrize("name", list(StreamName))
def test_a_job_may_run_one_stream_alone(world: World, name: StreamName) -> None:
    of_labels(world)
    world.log("monday", rows(2))
    labels(world, "monday", [label(0, 1)])
    with world.wired() as wired:
        one = wired if name is StreamName.INFERENCES else wired.labels
        assert one is not None
        outcome = engine.run(one, world.ask(), notice=world.events.append, stop=threading.Event())
    assert (said(outcome), outcome.stream.name) == ("", name)
