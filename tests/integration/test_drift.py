"""Columns that appear, disappear or change type are caught before anything is uploaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.world import ATTRIBUTES, SCHEMA, START, World, after, reasons, row, rows, said

from tidepost.errors import Misconfigured
from tidepost.events import Warned

LATER = after(hours=2)
BIG = 2**53 + 1
STOPPING = ("fail", "ignore_new")


def without(*names: str) -> pa.Schema:
    return pa.schema([field for field in SCHEMA if field.name not in names])


def typed(**types: pa.DataType) -> pa.Schema:
    """The usual columns, some with another type."""
    return pa.schema([pa.field(one.name, types.get(one.name, one.type)) for one in SCHEMA])


def table(of: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{name: one.get(name) for name in schema.names} for one in of], schema=schema)


def stopped(world: World) -> str:
    """What a run says that ends before anything is staged or sent."""
    files, arrived = world.files(), world.platform_rows()
    with pytest.raises(Misconfigured) as error:
        world.run()
    assert (world.files(), world.platform_rows()) == (files, arrived)
    return str(error.value)


def told(world: World) -> list[str]:
    return [event.text for event in world.events if isinstance(event, Warned)]


def monday(world: World, mode: str, **changes: Any) -> None:
    """A first day of 20 rows that was uploaded."""
    world.log("monday", rows(20))
    world.define(drift=mode, limits={"rejects": "100%"}, **changes)
    assert not said(world.run())


def tuesday(count: int = 10, *, at: datetime = LATER, **changes: Any) -> list[dict[str, Any]]:
    return rows(count, first=100, at=at, **changes)


# ---------------------------------------------------------------------------------------------------- new columns


def test_a_new_column_stops_the_run_where_drift_fails_until_it_is_ignored(world: World) -> None:
    monday(world, "fail")
    wider = SCHEMA.append(pa.field("gate", pa.string())).append(pa.field("delay", pa.int32()))
    world.log("tuesday", table(tuesday(gate="B7", delay=3), wider))
    text = stopped(world)
    assert "gate (VARCHAR)" in text
    assert "delay (INTEGER)" in text
    assert "mapping: {ignore: [gate, delay]}" in text
    world.define(mapping={"ignore": ["gate", "delay"]})
    assert not said(world.run())
    assert world.everything_arrived_once(30)


@pytest.mark.parametrize("mode", ["ignore_new", "quarantine"])
def test_a_new_column_is_told_once_and_left_out(world: World, mode: str) -> None:
    monday(world, mode)
    wider = SCHEMA.append(pa.field("gate", pa.string()))
    world.log("tuesday", table(tuesday(gate="B7"), wider))
    world.run()
    assert told(world) == ["column gate (VARCHAR) is new in the source; it is not sent"]
    world.log("wednesday", table(rows(5, first=200, at=after(hours=4), gate="B8"), wider))
    world.run()
    assert told(world) == []
    assert world.everything_arrived_once(35)


def test_a_column_that_is_not_read_may_go_or_change_and_is_told_once(world: World) -> None:
    wider = SCHEMA.append(pa.field("gate", pa.string())).append(pa.field("delay", pa.int32()))
    path = world.log("monday", table(rows(20), wider))
    world.define(drift="fail")
    world.run()
    path.unlink()
    narrower = SCHEMA.append(pa.field("delay", pa.string()))
    world.log("monday", table(rows(20), narrower))
    world.log("tuesday", table(tuesday(), narrower))
    assert not said(world.run())
    assert told(world) == [
        "column gate (VARCHAR) is gone from the source; it was never sent",
        "column delay was INTEGER in the source and is VARCHAR; it is not sent",
    ]
    assert world.everything_arrived_once(30)


def test_what_the_source_had_before_the_first_slice_binds_nothing(world: World) -> None:
    world.define(drift="fail", cursor={"start": "2024-05-01T13:00:00Z"})
    world.log("monday", rows(20))
    world.run()
    wider = SCHEMA.append(pa.field("gate", pa.string()))
    world.log("tuesday", table(tuesday(gate="B7"), wider))
    assert not said(world.run())
    assert world.everything_arrived_once(10)


# ------------------------------------------------------------------------------------- a mapped column that is gone


@pytest.mark.parametrize("mode", STOPPING)
def test_a_file_that_lacks_a_mapped_column_stops_the_run(world: World, mode: str) -> None:
    monday(world, mode)
    path = world.log("tuesday", table(tuesday(), without("note", "distance")))
    text = stopped(world)
    assert f"column 'note' is missing in {path}" in text
    assert f"column 'distance' is missing in {path}" in text
    assert "optional: true" in text
    world.log("tuesday", tuesday())
    assert not said(world.run())
    assert world.everything_arrived_once(30)


@pytest.mark.parametrize("name", ["tuesday", "what's [new] = here"])
def test_rows_of_a_file_that_lacks_a_mapped_column_are_quarantined_until_it_is_back(world: World, name: str) -> None:
    monday(world, "quarantine")
    lacking = tuesday(3, note=None)
    world.log(name, table(lacking, without("note")))
    # The cut reads this file too: its rows go on, though the values of some are missing in it.
    world.log("wednesday", rows(5, first=200, at=after(hours=2, minutes=1), note=None))
    assert not said(world.run())
    assert reasons(world.rejects()) == {one["id"]: "missing_column:note" for one in lacking}
    assert world.everything_arrived_once(25)
    world.log(name, tuesday(3))
    outcome = world.backfill(START, after(hours=5))
    assert (outcome.tally.published, outcome.tally.known) == (3, 25)
    assert world.everything_arrived_once(28)
    assert world.values("note")["r000101"] == "note 101"


def test_quarantined_rows_over_the_limit_hold_their_slice(world: World) -> None:
    monday(world, "quarantine")
    before = world.mark()
    world.define(limits={"rejects": "10%"})
    world.log("tuesday", table(tuesday(), without("note")))
    outcome = world.run()
    assert outcome.held == 1
    assert world.states() == {"closed": 1, "held": 1}
    assert world.mark() == before


def test_a_file_may_lack_a_column_that_is_optional(world: World) -> None:
    monday(world, "fail", mapping={"non_inputs": {"note": {"optional": True}}})
    world.log("tuesday", table(tuesday(), without("note")))
    assert not said(world.run())
    assert world.everything_arrived_once(30)
    assert world.values("note")["r000101"] is None


@pytest.mark.parametrize("name", ["id", "at"])
def test_a_file_without_what_tells_rows_apart_stops_the_run(world: World, name: str) -> None:
    monday(world, "quarantine")
    world.log("tuesday", table(tuesday(), without(name)))
    assert f"column '{name}' is missing in" in stopped(world)


def test_a_csv_file_that_lacks_a_mapped_column_is_noticed(world: World) -> None:
    world.define(source={"files": "log/*.csv", "format": "csv"}, limits={"rejects": "100%"})

    def write(name: str, of: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
        lines = [",".join(columns), *(",".join(str(one[column]) for column in columns) for one in of)]
        (world.root / "log" / f"{name}.csv").write_text("\n".join(lines) + "\n")

    write("monday", rows(20), SCHEMA.names)
    world.run()
    write("tuesday", tuesday(), [name for name in SCHEMA.names if name != "carrier"])
    assert "column 'carrier' is missing in" in stopped(world)
    world.define(drift="quarantine")
    world.run()
    assert set(reasons(world.rejects()).values()) == {"missing_column:carrier"}
    assert world.everything_arrived_once(20)


@pytest.mark.parametrize("mode", [*STOPPING, "quarantine"])
def test_a_mapped_column_that_a_table_lost_stops_the_run_or_quarantines_its_rows(world: World, mode: str) -> None:
    def write(of: pa.Table) -> None:
        with duckdb.connect(world.root / "log.duckdb") as connection:
            connection.register("logged", of)
            connection.execute("CREATE OR REPLACE TABLE inferences AS FROM logged")

    world.define(source=None)
    database = {"table": "inferences", "database": "log.duckdb"}
    world.define(source=database, drift=mode, limits={"rejects": "100%"})
    write(table(rows(20), SCHEMA))
    world.run()
    write(table([*rows(20), *tuesday(3)], without("note", "carrier")))
    if mode != "quarantine":
        text = stopped(world)
        assert "mapping.inputs: carrier: the source has no column 'carrier' any more; it was VARCHAR" in text
        assert "mapping.non_inputs: note: the source has no column 'note' any more" in text
        return
    world.run()
    assert reasons(world.rejects()) == {one["id"]: "missing_column:carrier" for one in tuesday(3)}
    write(table([*rows(20), *tuesday(3)], SCHEMA))
    world.backfill(START, after(hours=5))
    assert world.everything_arrived_once(23)


# --------------------------------------------------------------------------- a mapped column whose type changed


@pytest.mark.parametrize(
    ("name", "type_", "value", "said"),
    [
        ("distance", pa.string(), "7", "'distance' is VARCHAR now and was BIGINT"),
        ("distance", pa.float64(), 7.5, "'distance' is DOUBLE now and was BIGINT"),
        ("score", pa.string(), "0.5", "'score' is VARCHAR now and was DOUBLE"),
        ("carrier", pa.int64(), 7, "column 'carrier' is BIGINT, and VARCHAR elsewhere, in"),
    ],
)
def test_a_file_in_which_a_type_changed_stops_the_run(
    world: World, name: str, type_: pa.DataType, value: Any, said: str
) -> None:
    monday(world, "fail")
    world.log("tuesday", table(tuesday(**{name: value}), typed(**{name: type_})))
    assert said in stopped(world)
    world.define(drift="ignore_new")
    assert said in stopped(world)


@pytest.mark.parametrize(
    ("name", "type_", "values", "sent"),
    [
        ("distance", pa.string(), ["7", "x", "7.5", None], {0: 7, 3: None}),
        ("distance", pa.float64(), [7.0, 7.5, float("nan"), None], {0: 7, 3: None}),
        ("score", pa.string(), ["0.5", "high", "1e-3", "true"], {0: 0.5, 2: 0.001}),
        ("carrier", pa.int64(), [7, 8, 9, None], {0: "7", 1: "8", 2: "9", 3: None}),
        ("carrier", pa.float64(), [7.0, 8.5, 9.0, 1.0], {}),
        ("carrier", pa.timestamp("us"), [START, START, START, START], {}),
    ],
)
def test_values_that_still_fit_are_sent_and_the_others_quarantined(
    world: World, name: str, type_: pa.DataType, values: list[object], sent: dict[int, object]
) -> None:
    monday(world, "quarantine")
    changed = [row(100 + number, LATER, **{name: value}) for number, value in enumerate(values)]
    world.log("tuesday", table(changed, typed(**{name: type_})))
    assert not said(world.run())
    found = {one["id"]: f"wrong_type:{name}" for number, one in enumerate(changed) if number not in sent}
    assert reasons(world.rejects()) == found
    assert world.everything_arrived_once(20 + len(sent))
    arrived = world.values(name)
    assert {number: arrived[f"r{100 + number:06d}"] for number in sent} == sent
    world.log("tuesday", tuesday(4, at=LATER, every=0))
    outcome = world.backfill(LATER, after(hours=3))
    assert outcome.tally.published == 4 - len(sent)


def test_an_integer_that_went_through_a_float_is_sent_only_where_it_is_exact(world: World) -> None:
    monday(world, "quarantine")
    old = [row(100, LATER, distance=BIG), row(101, LATER, distance=2**53 - 1), row(102, LATER, distance=-BIG)]
    world.log("tuesday", old)
    world.log("wednesday", table([row(103, LATER, distance=8.0)], typed(distance=pa.float64())))
    assert not said(world.run())
    assert reasons(world.rejects()) == {"r000100": "wrong_type:distance", "r000102": "wrong_type:distance"}
    assert world.values("distance")["r000101"] == 2**53 - 1


def test_a_type_that_widens_is_no_drift(world: World) -> None:
    world.define(drift="fail")
    world.log("monday", table(rows(20), typed(distance=pa.int32(), score=pa.float64())))
    world.run()
    world.log("tuesday", table(tuesday(), typed(distance=pa.int64(), score=pa.float32())))
    assert not said(world.run())
    assert world.everything_arrived_once(30)


def test_a_column_without_any_value_fits_every_type(world: World) -> None:
    monday(world, "fail")
    world.log("tuesday", table(tuesday(note=None), typed(note=pa.null())))
    assert not said(world.run())
    assert world.everything_arrived_once(30)


def test_a_declared_type_wins_over_what_a_file_has(world: World) -> None:
    monday(world, "fail", mapping={"inputs": {"distance": {"type": "integer"}, "carrier": {"type": "string"}}})
    world.log("tuesday", table(tuesday(distance="7", carrier=1), typed(distance=pa.string(), carrier=pa.int64())))
    assert not said(world.run())
    assert world.everything_arrived_once(30)
    assert (world.values("distance")["r000100"], world.values("carrier")["r000100"]) == (7, "1")


def test_an_id_of_another_type_stops_the_run(world: World) -> None:
    world.define(mapping={"partner_inference_id": "{id}-{distance}"})
    monday(world, "quarantine")
    path = world.root / "log" / "monday.parquet"
    path.unlink()
    world.log("tuesday", table(tuesday(distance="7"), typed(distance=pa.string())))
    world.define(mapping={"inputs": {"distance": {"type": "integer"}, "carrier": "carrier"}})
    text = stopped(world)
    assert "distance was BIGINT and is VARCHAR" in text
    assert "Cast them in source.query" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"inputs": {"distance": {"type": "float"}, "carrier": "carrier"}},
            "distance was BIGINT in the slices before, and is DOUBLE now",
        ),
        ({"inputs": ["distance"]}, "carrier was VARCHAR in the slices before, and is not sent now"),
        (
            {"non_inputs": ["note", "distance2"], "inputs": ["carrier", "distance"]},
            "distance2 was not sent in the slices before",
        ),
    ],
)
def test_a_mapping_that_gives_something_else_than_the_slices_before_says_what_to_do(
    world: World, changes: dict[str, Any], said: str
) -> None:
    wider = SCHEMA.append(pa.field("distance2", pa.int64()))
    world.log("monday", table(rows(20), wider))
    world.run()
    world.log("tuesday", table(tuesday(), wider))
    world.define(mapping={"inputs": None, **changes})
    text = stopped(world)
    assert said in text
    assert "rename the job" in text


# ----------------------------------------------------------------------------------------------- the platform's model


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ([*ATTRIBUTES, ("wind", "FLOAT", "PIPELINE_INPUT")], "wind (PIPELINE_INPUT) is missing"),
        ([one for one in ATTRIBUTES if one[0] != "note"], "note is not an attribute of the model"),
        ([("distance", "STRING", "PIPELINE_INPUT"), *ATTRIBUTES[1:]], "distance is BIGINT, which is no STRING"),
    ],
)
def test_a_model_that_changed_is_told_before_anything_is_staged(
    world: World, attributes: Sequence[tuple[str, str, str]], said: str
) -> None:
    monday(world, "quarantine")
    assert world.platform.call("DELETE", f"/models/{world.model_id}", None).status_code < 300
    world.model, world.model_id = world.platform.register(attributes, partner_model_id=world.model)
    world.log("tuesday", tuesday())
    assert said in stopped(world)


def test_attributes_of_the_model_that_need_no_value_may_be_left_out(make_world: Callable[..., World]) -> None:
    world = make_world(attributes=[*ATTRIBUTES, ("gate", "STRING", "NON_INPUT_DATA")])
    world.log("monday", rows(10))
    assert not said(world.run())
    assert world.everything_arrived_once(10)
