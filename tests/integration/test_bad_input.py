"""What is wrong with a log, a query or a model is said once, clearly, and costs no row."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import duckdb
import pyarrow as pa
import pytest
from tests.world import ATTRIBUTES, NOW, SCHEMA, START, World, after, reasons, row, rows, said

from tidepost.errors import Misconfigured
from tidepost.model import DeliveryState
from tidepost.sandbox.settings import Fault

BEFORE = "2024-05-01T00:00:00Z"


def refused(world: World) -> str:
    """What a run says that cannot begin; the mark stays and nothing arrives."""
    with pytest.raises(Misconfigured) as error:
        world.run()
    return str(error.value)


# --------------------------------------------------------------------------------------------------------- queries


@pytest.mark.parametrize(
    ("clause", "named"),
    [
        ("SELECT * FROM inferences LIMIT 10", "LIMIT or OFFSET"),
        ("SELECT * FROM (SELECT * FROM inferences LIMIT 10)", "LIMIT or OFFSET"),
        ("SELECT * FROM inferences ORDER BY id OFFSET 10", "LIMIT or OFFSET"),
        ("SELECT * FROM inferences USING SAMPLE 10%", "a sample"),
        ("SELECT * FROM inferences TABLESAMPLE 10%", "a sample"),
        ("SELECT * FROM inferences WHERE logged_at < now()", "now()"),
        ("SELECT * FROM inferences WHERE logged_at < current_timestamp", "current_timestamp"),
        ("SELECT * FROM inferences WHERE logged_at::DATE < current_date", "current_date"),
        ("SELECT * FROM inferences WHERE random() < 0.5", "random()"),
        ("SELECT DISTINCT * FROM inferences", "DISTINCT"),
        ("SELECT DISTINCT ON (id) * FROM inferences", "DISTINCT"),
        ("SELECT * FROM inferences QUALIFY row_number() OVER (PARTITION BY id) = 1", "a window function"),
        ("SELECT id, max(logged_at) AS logged_at FROM inferences GROUP BY id", "GROUP BY"),
        ("SELECT id, max(logged_at) AS logged_at FROM inferences GROUP BY ALL", "max()"),
        ("SELECT count(*) AS n FROM inferences", "count_star()"),
        ("SELECT * FROM inferences UNION SELECT * FROM inferences", "without ALL"),
        ("SELECT * FROM inferences WHERE logged_at >= {start}", "{start} alone"),
        ("SELECT * FROM inferences; SELECT 1", "more than one statement"),
        ("SELECT * FROM inferences;", "semicolon"),
        ("SELEKT * FROM inferences", "syntax error"),
        ("DELETE FROM inferences", "SELECT"),
    ],
)
def test_a_query_that_no_range_limits_rightly_is_refused(world: World, clause: str, named: str) -> None:
    with duckdb.connect(world.root / "log.duckdb") as connection:
        connection.register("logged", pa.Table.from_pylist(rows(3), schema=SCHEMA))
        connection.execute("CREATE TABLE inferences AS FROM logged")
    world.define(source={"query": clause, "database": "log.duckdb"})
    text = refused(world)
    assert text.startswith("source.query")
    assert named in text


def test_a_row_that_a_query_gives_outside_of_its_range_fails_the_cut_instead_of_being_lost(world: World) -> None:
    with duckdb.connect(world.root / "log.duckdb") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("logged", pa.Table.from_pylist(rows(100), schema=SCHEMA))
        connection.execute("CREATE TABLE inferences AS FROM logged")
    query = (
        'SELECT any_value(id) AS id, any_value("at") AS "at", date_trunc(\'hour\', logged_at) AS logged_at, '
        "any_value(distance) AS distance, any_value(carrier) AS carrier, any_value(score) AS score, "
        "any_value(note) AS note FROM inferences WHERE logged_at >= {start} AND logged_at < {end} GROUP BY 3"
    )
    world.define(
        source={"query": query, "database": "log.duckdb"},
        cursor={"start": "2024-05-01T12:30:00Z"},
    )
    outcome = world.run()
    assert "outside of {start} and {end}" in said(outcome)
    assert world.platform_rows() == 0


# ---------------------------------------------------------------------------------------------- columns and types


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"inputs": ["distance", "carier"]}, "mapping.inputs: carier: the source has no column 'carier'"),
        ({"predictions": {"score": "probability"}}, "mapping.predictions: score"),
        ({"partner_inference_id": "{id}-{day}"}, "mapping.partner_inference_id: the source has no column 'day'"),
        ({"inference_timestamp": "when"}, "mapping.inference_timestamp: the source has no column 'when'"),
        ({"inference_timestamp": "carrier"}, "column 'carrier' is VARCHAR, not a timestamp"),
        ({"partner_inference_id": "score"}, 'column "score" is DOUBLE'),
    ],
)
def test_a_mapping_that_does_not_fit_the_log_names_key_and_column(
    world: World, change: dict[str, object], named: str
) -> None:
    world.log("monday", rows(10))
    world.define(mapping=change)
    assert named in refused(world)


@pytest.mark.parametrize(
    ("column", "named"),
    [
        ("visible_at", "cursor.column: the source has no column 'visible_at'"),
        ("score", "cursor.column: 'score' is DOUBLE, which cannot be a cursor"),
        ("carrier", "cursor.column: 'carrier' is VARCHAR, which cannot be a cursor"),
        ("distance", "no start for a cursor of type integer"),
    ],
)
def test_a_column_that_cannot_be_a_cursor_is_named(world: World, column: str, named: str) -> None:
    world.log("monday", rows(10))
    world.define(cursor={"column": column})
    assert named in refused(world)


def test_a_cursor_without_a_zone_asks_for_one(world: World) -> None:
    naive = [one | {"seen": one["at"].replace(tzinfo=None)} for one in rows(10)]
    world.log("monday", pa.Table.from_pylist(naive, schema=SCHEMA.append(pa.field("seen", pa.timestamp("us")))))
    world.define(cursor={"column": "seen"})
    text = refused(world)
    assert "'seen' is TIMESTAMP, without a time zone" in text
    assert "cursor.timezone" in text
    world.define(cursor={"timezone": "America/New_York"})
    world.run()
    assert world.everything_arrived_once(10)


def test_a_type_that_changed_after_the_first_slice_stops_the_job_until_it_fits_again(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    text = SCHEMA.set(SCHEMA.get_field_index("score"), pa.field("score", pa.string()))
    changed = [one | {"score": str(one["score"])} for one in rows(10, first=10, at=after(hours=2))]
    path = world.log("tuesday", pa.Table.from_pylist(changed, schema=text))
    with pytest.raises(Misconfigured, match="'score' is VARCHAR now and was DOUBLE in the slices before") as error:
        world.run()
    assert "Nothing was lost" in str(error.value)
    path.unlink()
    world.log("tuesday", rows(10, first=10, at=after(hours=2)))
    world.run()
    assert world.everything_arrived_once(20)


def test_a_model_that_lacks_an_attribute_is_told_before_anything_is_sent(world: World) -> None:
    world.log("monday", rows(10))
    world.define(mapping={"non_inputs": {"remark": "note"}})
    text = refused(world)
    assert "remark is not an attribute of the model" in text
    assert world.files() == []


def test_a_model_that_does_not_exist_is_named(world: World) -> None:
    world.log("monday", rows(10))
    world.define(destination={"model": "no-such-model"})
    assert "no-such-model" in refused(world)


def test_a_broken_file_of_the_log_is_named_and_costs_nothing(world: World) -> None:
    world.log("monday", rows(10))
    broken = world.root / "log" / "tuesday.parquet"
    broken.write_bytes(b"PAR1 half a file")
    with pytest.raises(Exception, match=r"tuesday\.parquet"):
        world.run()
    broken.unlink()
    world.run()
    assert world.everything_arrived_once(10)


def test_a_file_without_the_cursor_column_is_no_obstacle(world: World) -> None:
    world.log("monday", rows(10))
    old = SCHEMA.remove(SCHEMA.get_field_index("logged_at"))
    world.log("before", pa.Table.from_pylist([{k: v for k, v in row(99, START).items() if k != "logged_at"}], old))
    world.run()
    assert world.everything_arrived_once(10)
    assert world.run().errors == []


# ------------------------------------------------------------------------------------------------------- bad rows


def test_rows_that_cannot_be_sent_are_kept_with_all_their_columns_and_the_reason(world: World) -> None:
    world.define(limits={"rejects": 10})
    bad = [
        row(900, after(minutes=1), id=None),
        row(901, after(minutes=2), id=""),
        row(902, after(minutes=3), at=None),
        row(903, after(minutes=4), score=None),
        row(904, after(minutes=5), score=math.nan),
        row(905, after(minutes=6), id="x" * 513),
    ]
    world.log("monday", [*rows(50), *bad])
    outcome = world.run()
    assert outcome.tally.rejected == {
        "null_id": 1,
        "empty_id": 1,
        "long_id": 1,
        "null_timestamp": 1,
        "null_prediction:score": 1,
        "not_finite:score": 1,
    }
    assert world.everything_arrived_once(50)
    kept = {one["reason"]: json.loads(one["row"]) for one in world.rejects()}
    del bad[0]["logged_at"]
    assert kept["null_id"] == bad[0] | {"at": "2024-05-01 12:01:00+00"}


def test_over_the_limit_of_rejects_the_slice_is_held_and_caps_the_mark(world: World) -> None:
    world.define(limits={"rejects": "1%"})
    world.log("monday", [*rows(50), row(900, after(minutes=1), id=None)])
    outcome = world.run()
    assert outcome.held == 1
    assert world.states() == {"held": 1}
    assert world.mark() == BEFORE
    assert world.platform_rows() == 0
    world.log("tuesday", rows(50, first=50, at=after(hours=2)))
    world.run()
    assert world.states() == {"held": 1, "closed": 1}
    assert world.mark() == BEFORE
    with world.ledger() as ledger:
        (freed,) = ledger.deliveries.release(world.stream(), 1, who="a test", why="the row is known")
    assert freed.state is DeliveryState.TODO
    world.run()
    assert world.everything_arrived_once(100)
    assert world.mark() == "2024-05-01T14:49:00.000001Z"


def test_a_slice_whose_rows_were_all_rejected_is_held_too(world: World) -> None:
    world.log("monday", [row(number, after(minutes=number), id=None) for number in range(5)])
    outcome = world.run()
    assert outcome.held == 1
    assert world.mark() == BEFORE


# -------------------------------------------------------------------------------------------------------- repeats


def test_equal_rows_with_one_id_arrive_once(world: World) -> None:
    world.log("monday", [*rows(50), *rows(50), *rows(10)])
    outcome = world.run()
    assert (outcome.tally.published, outcome.tally.duplicates) == (50, 60)
    assert world.everything_arrived_once(50)


def test_of_unequal_rows_with_one_id_the_first_by_cursor_arrives_and_the_others_are_kept(world: World) -> None:
    world.define(limits={"rejects": 10})
    world.log("monday", [row(1, after(minutes=9), carrier="late"), row(1, after(minutes=1), carrier="first")])
    outcome = world.run()
    assert outcome.tally.rejected == {"conflicting_id": 1}
    assert world.values("carrier") == {"r000001": "first"}
    assert reasons(world.rejects()) == {"r000001": "conflicting_id"}


def test_a_row_that_changed_after_it_was_sent_is_kept_and_not_sent(world: World) -> None:
    world.define(limits={"rejects": 10})
    world.log("monday", rows(50))
    world.run()
    world.log("tuesday", [row(7, after(minutes=7), logged_at=after(hours=3), carrier="changed")])
    outcome = world.run()
    assert outcome.tally.rejected == {"changed_after_sent": 1}
    assert world.everything_arrived_once(50)
    assert world.values("carrier")["r000007"] != "changed"


def test_a_row_that_is_logged_again_later_is_a_duplicate(world: World) -> None:
    world.log("monday", rows(50))
    world.run()
    world.log("tuesday", rows(50, logged_at=after(hours=3)))
    outcome = world.run()
    assert (outcome.tally.duplicates, outcome.tally.published) == (50, 0)
    assert world.everything_arrived_once(50)


def test_an_index_file_that_is_missing_stops_the_run_before_anything_is_sent(world: World) -> None:
    world.log("monday", rows(50))
    world.run()
    (file,) = world.files()
    away = file.rename(file.with_suffix(".away"))
    world.log("tuesday", rows(60, logged_at=after(hours=3)))
    outcome = world.run()
    assert f"{file.name} should be there and is not" in said(outcome)
    assert world.platform_rows() == 50
    away.rename(file)
    world.run()
    assert world.everything_arrived_once(60)


def test_tables_named_as_the_engine_names_its_own_are_read_as_the_users(world: World) -> None:
    logged = [*rows(40), *rows(40)]
    with duckdb.connect(world.root / "log.duckdb") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("logged", pa.Table.from_pylist(logged, schema=SCHEMA))
        names = ["doomed", "known", "sent", "repeated", "suspects", "keys", "tombstones"]
        for number, name in enumerate(names):
            connection.execute(f"CREATE TABLE {name} AS FROM logged WHERE distance % {len(names)} = {number}")
    query = " UNION ALL ".join(f"SELECT * FROM {name}" for name in names)
    world.define(source={"query": query, "database": "log.duckdb"}, limits={"cut_rows": 10})
    outcome = world.run()
    assert not said(outcome)
    assert world.backfill(START, NOW).tally.known == 80
    assert world.everything_arrived_once(40)


def test_attributes_named_as_the_engine_names_its_own_columns_arrive(make_world: Callable[..., World]) -> None:
    names = ("row", "r", "cursor", "verdict", "content", "id", "missing", "place", "first")
    world = make_world(attributes=[*ATTRIBUTES, *((name, "INTEGER", "NON_INPUT_DATA") for name in names)])
    world.define(mapping={"non_inputs": {"note": "note", **dict.fromkeys(names, "distance")}}, limits={"rejects": 9})
    world.log("monday", [*rows(20), *rows(5)])
    world.platform.process.fault(Fault("drop", kind="file", rows=0.3, count=1))
    assert not said(world.run())
    changed = row(3, after(minutes=3), logged_at=after(hours=4), carrier="changed")
    world.log("tuesday", [*rows(25, logged_at=after(hours=3)), changed])
    assert world.run().tally.rejected == {"changed_after_sent": 1}
    assert world.everything_arrived_once(25)
    for name in names:
        assert world.values(name) == world.values("distance")
