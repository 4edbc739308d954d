"""What becomes of each row on its way from the source to the staged files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import pytest

from tidepost.definition.job import MappingDefinition
from tidepost.errors import Misconfigured
from tidepost.ports import CURSOR
from tidepost.rows.shape import BATCH, EVENT, HASH, HOUR, ID, LONGEST_ID, REASON, ROW, TIMESTAMP, Shape, shape

AT = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
Row = dict[str, Any]
Shaped = Callable[..., list[Row]]


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def mapping(**changes: Any) -> MappingDefinition:
    plain = {"partner_inference_id": "id", "inference_timestamp": "at", "inputs": [], "predictions": ["score"]}
    return MappingDefinition.model_validate(plain | changes)


@pytest.fixture
def shaped(connection: duckdb.DuckDBPyConnection) -> Shaped:
    """Shapes one row: given as column = SQL, over a row that can be sent. Returns it with `shape` beside it."""

    def run(
        of: MappingDefinition | None = None,
        *,
        finite_only: bool = True,
        pinned: dict[str, str] | None = None,
        quarantine: bool = False,
        **row: str,
    ) -> list[Row]:
        values = {"id": "'a'", "at": "TIMESTAMPTZ '2024-05-01 12:30:00Z'", "score": "0.5::DOUBLE"} | row
        selected = ", ".join(f'{sql} AS "{name.replace(chr(34), chr(34) * 2)}"' for name, sql in values.items())
        source = f"SELECT {selected}"
        columns = dict(connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {source})").fetchall())
        found = shape(of or mapping(), columns, pinned=pinned or {}, finite_only=finite_only, quarantine=quarantine)
        return execute(found, f'SELECT *, 7 AS "{CURSOR}" FROM ({source})')

    def execute(found: Shape, relation: str) -> list[Row]:
        result = connection.execute(found.sql(relation))
        names = [one[0] for one in result.description or []]
        rows = [dict(zip(names, one, strict=True)) for one in result.fetchall()]
        types = dict(
            connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {found.sql(relation)})").fetchall()
        )
        assert {name: types[name] for name in found.staged} == dict(found.staged)
        return rows

    return run


# ---------------------------------------------------------------------------------------------- rows that can be sent


def test_a_row_that_can_be_sent_has_no_reason_and_no_json(shaped: Shaped) -> None:
    (row,) = shaped()
    assert (row[REASON], row[ROW]) == (None, None)
    assert (row[ID], row[TIMESTAMP], row["score"], row[CURSOR]) == ("a", AT, 0.5, 7)


def test_the_event_is_told_in_microseconds_and_hours(shaped: Shaped) -> None:
    (row,) = shaped()
    assert row[EVENT] == int(AT.timestamp()) * 1_000_000
    assert row[HOUR] == int(AT.timestamp()) // 3600


def test_hours_before_1970_are_rounded_down_too(shaped: Shaped) -> None:
    (row,) = shaped(at="TIMESTAMPTZ '1969-12-31 23:59:59.999999Z'")
    assert (row[EVENT], row[HOUR]) == (-1, -1)


def test_equal_ids_have_equal_hashes(shaped: Shaped) -> None:
    (one,), (same,), (other,) = shaped(), shaped(score="0.9::DOUBLE"), shaped(id="'b'")
    assert one[HASH] == same[HASH] != other[HASH]


def test_only_the_columns_that_are_mapped_are_read() -> None:
    columns = {"id": "VARCHAR", "at": "TIMESTAMP WITH TIME ZONE", "score": "DOUBLE", "more": "BLOB", "day": "DATE"}
    found = shape(mapping(batch_id="{day}"), columns, pinned={}, finite_only=True)
    assert found.reads == ("id", "day", "at", "score")


# ------------------------------------------------------------------------------------------------ rows that cannot be


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": "NULL::VARCHAR"}, "null_id"),
        ({"id": "''"}, "empty_id"),
        ({"id": f"repeat('x', {LONGEST_ID + 1})"}, "long_id"),
        ({"at": "NULL::TIMESTAMPTZ"}, "null_timestamp"),
        ({"at": "'infinity'::TIMESTAMPTZ"}, "infinite_timestamp"),
        ({"at": "'-infinity'::TIMESTAMPTZ"}, "infinite_timestamp"),
        ({"score": "NULL::DOUBLE"}, "null_prediction:score"),
        ({"score": "'nan'::DOUBLE"}, "not_finite:score"),
        ({"score": "'inf'::DOUBLE"}, "not_finite:score"),
        ({"score": "'-inf'::FLOAT"}, "not_finite:score"),
    ],
)
def test_the_first_fault_of_a_row_is_its_reason(shaped: Shaped, row: dict[str, str], reason: str) -> None:
    assert shaped(**row)[0][REASON] == reason


def test_an_id_of_512_characters_is_long_enough(shaped: Shaped) -> None:
    assert shaped(id=f"repeat('ü', {LONGEST_ID})")[0][REASON] is None


@pytest.mark.parametrize("batch", ["NULL::VARCHAR", "''"])
def test_a_row_without_batch_is_told_where_the_job_has_batches(shaped: Shaped, batch: str) -> None:
    assert shaped(mapping(batch_id="b"), b=batch)[0][REASON] == "null_batch_id"
    assert shaped(mapping(batch_id="b"), b="'monday'")[0][BATCH] == "monday"


@pytest.mark.parametrize(
    ("type_", "sql"),
    [
        ("integer", "1.5::DOUBLE"),
        ("integer", "1.5::DECIMAL(3, 1)"),
        ("integer", "'1.5'"),
        ("integer", "'1e3'"),
        ("integer", "'12a'"),
        ("integer", "''"),
        ("integer", "'99999999999999999999'"),
        ("integer", "1e30::DOUBLE"),
        ("integer", "'nan'::DOUBLE"),
        ("float", "'abc'"),
        ("boolean", "'maybe'"),
        ("timestamp", "'2024-05-01 12:00:00'"),
        ("timestamp", "'yesterday'"),
    ],
)
def test_a_value_that_does_not_fit_its_declared_type_rejects_the_row(shaped: Shaped, type_: str, sql: str) -> None:
    of = mapping(inputs={"x": {"column": "x", "type": type_}})
    assert shaped(of, x=sql)[0][REASON] == "wrong_type:x"


@pytest.mark.parametrize(
    ("type_", "sql", "value"),
    [
        ("integer", "'12'", 12),
        ("integer", "' -12 '", -12),
        ("integer", "2.0::DOUBLE", 2),
        ("integer", "2.00::DECIMAL(5, 2)", 2),
        ("integer", "7::UTINYINT", 7),
        ("integer", "true", 1),
        ("float", "'1.25'", 1.25),
        ("float", "3::INTEGER", 3.0),
        ("float", "1.25::DECIMAL(5, 2)", 1.25),
        ("boolean", "'true'", True),
        ("boolean", "0::INTEGER", False),
        ("string", "12", "12"),
        ("string", "DATE '2024-05-01'", "2024-05-01"),
        ("timestamp", "'2024-05-01T12:30:00Z'", AT),
        ("timestamp", "'2024-05-01 14:30:00+02:00'", AT),
        ("timestamp", "TIMESTAMPTZ '2024-05-01 12:30:00Z'", AT),
        ("integer", "NULL::VARCHAR", None),
        ("timestamp", "NULL::VARCHAR", None),
    ],
)
def test_a_value_that_fits_becomes_its_declared_type(shaped: Shaped, type_: str, sql: str, value: object) -> None:
    (row,) = shaped(mapping(inputs={"x": {"column": "x", "type": type_}}), x=sql)
    assert (row[REASON], row["x"]) == (None, value)


def test_a_rejected_row_is_kept_as_json_with_every_column_that_was_read(shaped: Shaped) -> None:
    of = mapping(inputs={"distance": {"column": "miles", "type": "integer"}}, batch_id="{day}")
    (row,) = shaped(of, miles="1.5::DOUBLE", day="DATE '2024-05-01'")
    assert json.loads(row[ROW]) == {
        "id": "a",
        "day": "2024-05-01",
        "at": "2024-05-01 12:30:00+00",
        "miles": 1.5,
        "score": 0.5,
    }


def test_a_rejected_row_keeps_what_json_has_no_number_for(shaped: Shaped) -> None:
    (row,) = shaped(score="'nan'::DOUBLE")
    assert math.isnan(json.loads(row[ROW])["score"])


# --------------------------------------------------------------------------------------- what is not finite in inputs


def test_an_input_that_is_not_finite_rejects_the_row_by_default(shaped: Shaped) -> None:
    assert shaped(mapping(inputs=["x"]), x="'nan'::DOUBLE")[0][REASON] == "not_finite:x"


@pytest.mark.parametrize("sql", ["'nan'::DOUBLE", "'inf'::FLOAT", "'-inf'::DOUBLE"])
def test_an_input_that_is_not_finite_becomes_null_where_the_job_says_so(shaped: Shaped, sql: str) -> None:
    (row,) = shaped(mapping(inputs=["x"]), finite_only=False, x=sql)
    assert (row[REASON], row["x"]) == (None, None)


def test_text_that_is_not_finite_becomes_null_too(shaped: Shaped) -> None:
    (row,) = shaped(mapping(inputs={"x": {"column": "x", "type": "float"}}), finite_only=False, x="'NaN'")
    assert (row[REASON], row["x"]) == (None, None)


def test_a_prediction_that_is_not_finite_is_always_rejected(shaped: Shaped) -> None:
    assert shaped(finite_only=False, score="'nan'::DOUBLE")[0][REASON] == "not_finite:score"


# -------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("1::TINYINT", 1),
        ("1::SMALLINT", 1),
        ("1::INTEGER", 1),
        ("1::BIGINT", 1),
        ("200::UTINYINT", 200),
        ("60000::USMALLINT", 60000),
        ("4000000000::UINTEGER", 4_000_000_000),
        ("0.5::FLOAT", 0.5),
        ("0.5::DOUBLE", 0.5),
        ("'text'", "text"),
        ("true", True),
        ("DATE '2024-05-01'", date(2024, 5, 1)),
        ("'b'::ENUM('a', 'b')", "b"),
        ("'6f8f57b2-4b4e-4b7e-9d3e-1d2c3b4a5f60'::UUID", str(UUID("6f8f57b2-4b4e-4b7e-9d3e-1d2c3b4a5f60"))),
    ],
)
def test_a_plain_type_is_staged_exactly(shaped: Shaped, sql: str, value: object) -> None:
    (row,) = shaped(mapping(inputs=["x"]), x=sql)
    assert (row[REASON], row["x"]) == (None, value)


@pytest.mark.parametrize(
    "sql", ["1::HUGEINT", "1::UBIGINT", "1.5::DECIMAL(9, 2)", "[1, 2]", "{'a': 1}", "'x'::BLOB", "INTERVAL 1 DAY"]
)
def test_a_type_that_loses_something_asks_for_a_declaration(shaped: Shaped, sql: str) -> None:
    with pytest.raises(Misconfigured, match=r"mapping\.inputs: x: column 'x' is .*cannot be uploaded as it is"):
        shaped(mapping(inputs=["x"]), x=sql)


@pytest.mark.parametrize(
    "sql", ["TIMESTAMP '2024-05-01 12:00:00'", "'2024-05-01'::TIMESTAMP_NS", "DATE '2024-05-01'"]
)
def test_a_declared_time_without_a_zone_is_refused(shaped: Shaped, sql: str) -> None:
    with pytest.raises(Misconfigured, match="without a time zone") as error:
        shaped(mapping(inputs={"x": {"column": "x", "type": "timestamp"}}), x=sql)
    assert "AT TIME ZONE" in error.value.hint


def test_the_first_slices_type_wins_over_a_narrower_one(shaped: Shaped) -> None:
    (row,) = shaped(mapping(inputs=["x"]), pinned={"x": "BIGINT"}, x="7::INTEGER")
    assert row["x"] == 7


def test_a_wider_integer_is_taken_while_its_values_fit(shaped: Shaped) -> None:
    assert shaped(mapping(inputs=["x"]), pinned={"x": "SMALLINT"}, x="7::BIGINT")[0][REASON] is None
    assert shaped(mapping(inputs=["x"]), pinned={"x": "SMALLINT"}, x="70000::BIGINT")[0][REASON] == "wrong_type:x"


@pytest.mark.parametrize(("pinned", "sql"), [("BIGINT", "'7'"), ("VARCHAR", "7"), ("FLOAT", "0.1::DOUBLE")])
def test_a_type_that_changed_since_the_first_slice_is_refused(shaped: Shaped, pinned: str, sql: str) -> None:
    with pytest.raises(Misconfigured, match=f"was {pinned} in the slices before") as error:
        shaped(mapping(inputs=["x"]), pinned={"x": pinned}, x=sql)
    assert "Nothing was lost" in error.value.safe


@pytest.mark.parametrize(
    ("pinned", "sql", "type_", "value"),
    [
        ("SMALLINT", "'7'", "integer", 7),
        ("BIGINT", "7.0::DOUBLE", "integer", 7),
        ("FLOAT", "'0.5'", "float", 0.5),
        ("DOUBLE", "'0.1'", "float", 0.1),
        ("VARCHAR", "7", "string", "7"),
        ("BOOLEAN", "'true'", "boolean", True),
        ("TIMESTAMP WITH TIME ZONE", "'2024-05-01T12:30:00Z'", "timestamp", AT),
    ],
)
def test_what_the_error_says_to_declare_goes_on_as_the_first_slices_type(
    shaped: Shaped, pinned: str, sql: str, type_: str, value: object
) -> None:
    with pytest.raises(Misconfigured) as error:
        shaped(mapping(inputs=["x"]), pinned={"x": pinned}, x=sql)
    assert f"declare its type in the mapping: {{column: x, type: {type_}}}" in error.value.hint
    (row,) = shaped(mapping(inputs={"x": {"column": "x", "type": type_}}), pinned={"x": pinned}, x=sql)
    assert (row["x"], row[REASON]) == (value, None)


def test_a_declared_type_takes_only_what_fits_the_first_slices(shaped: Shaped) -> None:
    declared = mapping(inputs={"x": {"column": "x", "type": "integer"}})
    assert shaped(declared, pinned={"x": "SMALLINT"}, x="'70000'")[0][REASON] == "wrong_type:x"
    assert shaped(declared, pinned={"x": "SMALLINT"}, x="7.5::DOUBLE")[0][REASON] == "wrong_type:x"


def test_no_declaration_gives_what_was_sent_as_dates(shaped: Shaped) -> None:
    with pytest.raises(Misconfigured) as error:
        shaped(mapping(inputs=["x"]), pinned={"x": "DATE"}, x="'2024-05-01'")
    assert "Cast it in source.query; or say" in error.value.hint


@pytest.mark.parametrize(
    ("pinned", "sql", "value"),
    [
        ("BIGINT", "'7'", 7),
        ("BIGINT", "' -7 '", -7),
        ("BIGINT", "7.0::DOUBLE", 7),
        ("BIGINT", "7.00::DECIMAL(4,2)", 7),
        ("BIGINT", "9007199254740991::DOUBLE", 2**53 - 1),
        ("SMALLINT", "7::HUGEINT", 7),
        ("DOUBLE", "'1e3'", 1000.0),
        ("DOUBLE", "9007199254740992::BIGINT", 2.0**53),
        ("FLOAT", "0.5::DOUBLE", 0.5),
        ("VARCHAR", "7::BIGINT", "7"),
        ("VARCHAR", "UUID 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("BOOLEAN", "'True'", True),
        ("DATE", "'2024-05-01'", date(2024, 5, 1)),
        ("BIGINT", "NULL::VARCHAR", None),
    ],
)
def test_a_value_that_is_exactly_one_of_the_pinned_type_is_sent_under_quarantine(
    shaped: Shaped, pinned: str, sql: str, value: object
) -> None:
    (row,) = shaped(mapping(inputs=["x"]), pinned={"x": pinned}, quarantine=True, x=sql)
    assert (row["x"], row[REASON]) == (value, None)


@pytest.mark.parametrize(
    ("pinned", "sql"),
    [
        ("BIGINT", "'7.5'"),
        ("BIGINT", "7.5::DOUBLE"),
        ("BIGINT", "9007199254740992::DOUBLE"),
        ("BIGINT", "16777216::FLOAT"),
        ("BIGINT", "'nan'::DOUBLE"),
        ("BIGINT", "7.25::DECIMAL(4,2)"),
        ("BIGINT", "true"),
        ("BIGINT", "DATE '2024-05-01'"),
        ("SMALLINT", "70000::HUGEINT"),
        ("DOUBLE", "'high'"),
        ("DOUBLE", "9007199254740993::BIGINT"),
        ("DOUBLE", "9223372036854775807::BIGINT"),
        ("FLOAT", "0.1::DOUBLE"),
        ("VARCHAR", "7.0::DOUBLE"),
        ("VARCHAR", "true"),
        ("VARCHAR", "'\\xAA'::BLOB"),
        ("VARCHAR", "{'a': 1}"),
        ("BOOLEAN", "1"),
        ("BOOLEAN", "'1'"),
        ("DATE", "'2024-05-01 12:00:00'"),
        ("DATE", "TIMESTAMPTZ '2024-05-01 12:00:00Z'"),
        ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP '2024-05-01 12:00:00'"),
        ("TIMESTAMP WITH TIME ZONE", "'2024-05-01 12:00:00'"),
    ],
)
def test_a_value_that_is_not_exactly_one_of_the_pinned_type_is_quarantined(
    shaped: Shaped, pinned: str, sql: str
) -> None:
    (row,) = shaped(mapping(inputs=["x"]), pinned={"x": pinned}, quarantine=True, x=sql)
    assert row[REASON] == "wrong_type:x"


def test_a_pinned_column_that_is_gone_is_quarantined_or_where_it_is_optional_sent_without(shaped: Shaped) -> None:
    (row,) = shaped(mapping(inputs=["x"]), pinned={"x": "BIGINT"}, quarantine=True)
    assert (row[REASON], json.loads(row[ROW])["id"]) == ("missing_column:x", "a")
    (row,) = shaped(mapping(inputs={"x": {"optional": True}}), pinned={"x": "BIGINT"})
    assert (row["x"], row[REASON]) == (None, None)


def test_a_column_that_never_was_is_an_error_even_under_quarantine(shaped: Shaped) -> None:
    with pytest.raises(Misconfigured, match="the source has no column 'x'"):
        shaped(mapping(inputs=["x"]), quarantine=True)


def test_everything_that_does_not_fit_is_told_at_once(shaped: Shaped) -> None:
    with pytest.raises(Misconfigured) as error:
        shaped(
            mapping(inputs=["x", "y"], partner_inference_id="{key}"), pinned={"x": "BIGINT", "y": "DOUBLE"}, x="'7'"
        )
    for text in ("'x' is VARCHAR now and was BIGINT", "no column 'y' any more; it was DOUBLE", "no column 'key'"):
        assert text in str(error.value)


# --------------------------------------------------------------------------------------------------- the event's time


@pytest.mark.parametrize("sql", ["TIMESTAMP '2024-05-01 08:30:00'", "'2024-05-01 08:30:00'::TIMESTAMP_NS"])
def test_a_naive_event_time_is_refused_without_a_zone_and_read_in_it(shaped: Shaped, sql: str) -> None:
    with pytest.raises(Misconfigured, match="without a time zone"):
        shaped(at=sql)
    of = mapping(inference_timestamp={"column": "at", "timezone": "America/New_York"})
    assert shaped(of, at=sql)[0][TIMESTAMP] == AT


def test_a_date_is_its_midnight_in_its_zone(shaped: Shaped) -> None:
    of = mapping(inference_timestamp={"column": "at", "timezone": "Europe/Berlin"})
    assert shaped(of, at="DATE '2024-05-01'")[0][TIMESTAMP] == datetime(2024, 4, 30, 22, tzinfo=UTC)


def test_an_infinite_naive_event_is_rejected_and_breaks_nothing(shaped: Shaped) -> None:
    of = mapping(inference_timestamp={"column": "at", "timezone": "UTC"})
    assert shaped(of, at="'infinity'::TIMESTAMP")[0][REASON] == "infinite_timestamp"


# -------------------------------------------------------------------------------------------------------------- names

ODD = [
    'a "quoted" name',
    "it's",
    "{braces}",
    "größe 🎈",
    "select",
    "row",
    "reason",
    "_part",
    "_row",
    "tidepost:event",
    "$x",
    "a.b",
    " ",
    "at time zone",
]


@pytest.mark.parametrize("name", ODD)
def test_any_name_of_a_column_can_be_an_input(shaped: Shaped, name: str) -> None:
    (row,) = shaped(mapping(inputs={"x": name}), **{name: "42"})
    assert (row[REASON], row["x"]) == (None, 42)


OF_TIDEPOST = ("_part", "_row", "tidepost:event")
"""Columns may have these names, attributes may not."""


@pytest.mark.parametrize("name", [*(name for name in ODD if name not in OF_TIDEPOST), "cursor", "content", "verdict"])
def test_any_name_of_an_attribute_is_staged_as_it_is(shaped: Shaped, name: str) -> None:
    (row,) = shaped(mapping(inputs={name: "x"}), x="42")
    assert (row[REASON], row[name]) == (None, 42)


@pytest.mark.parametrize("name", ODD)
def test_any_name_of_a_column_stands_in_a_rejected_row(shaped: Shaped, name: str) -> None:
    (row,) = shaped(mapping(inputs={"x": name}), id="NULL::VARCHAR", **{name: "42"})
    assert json.loads(row[ROW])[name] == 42


def test_exact_decimals_are_kept_when_declared_as_text(shaped: Shaped) -> None:
    (row,) = shaped(mapping(inputs={"x": {"column": "x", "type": "string"}}), x="1.50::DECIMAL(5, 2)")
    assert Decimal(row["x"]) == Decimal("1.5")


def test_a_column_that_is_missing_is_named_with_its_key() -> None:
    columns = {"id": "VARCHAR", "at": "TIMESTAMP WITH TIME ZONE"}
    with pytest.raises(Misconfigured, match=r"mapping\.predictions: score: the source has no column 'score'"):
        shape(mapping(), columns, pinned={}, finite_only=True)
