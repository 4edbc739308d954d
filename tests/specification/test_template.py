"""An id is the same text whoever writes it: DuckDB, Python, any session, any machine."""

# ruff: noqa: DTZ001 - naive timestamps are one of the types
from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidepost.definition.template import Template
from tidepost.errors import Misconfigured
from tidepost.sql import quote_identifier, quote_literal

BOUND = {"TIMESTAMP WITH TIME ZONE": "VARCHAR", "HUGEINT": "VARCHAR", "UHUGEINT": "VARCHAR"}
"""Types whose values are handed to DuckDB as text: its Python client would convert them by the session's zone."""


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A session whose zone is not UTC, so that nothing may depend on it."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Kolkata'")
        yield connection


def in_sql(
    connection: duckdb.DuckDBPyConnection, template: str, types: dict[str, str], values: dict[str, object]
) -> str | None:
    columns = ", ".join(
        f"CAST(CAST(? AS {BOUND.get(kind, kind)}) AS {kind}) AS {quote_identifier(name)}"
        for name, kind in types.items()
    )
    sql = f"SELECT {Template(template).sql(types, quote_identifier)} FROM (SELECT {columns})"
    given = [
        str(values[name]) if kind in BOUND and values[name] is not None else values[name]
        for name, kind in types.items()
    ]
    row = connection.execute(sql, given).fetchone()
    assert row is not None
    found: str | None = row[0]
    return found


def limits(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
ZONES = st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata", "Europe/Berlin", "Australia/Lord_Howe"])
DIRECTIVES = st.sampled_from(
    ["%Y", "%m", "%d", "%H", "%M", "%S", "%f", "%j", "%y", "%%", "-", "T", ":", "ü", "'", " "]
)
PATTERNS = st.lists(DIRECTIVES, max_size=6).map(lambda some: "%Y" + "".join(some))
NAIVE = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30))
AWARE = st.builds(
    lambda moment, minutes: moment.replace(tzinfo=timezone(timedelta(minutes=minutes))),
    st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2030, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
)
PADS = st.one_of(st.just(""), st.integers(1, 40).map(lambda width: f":0{width}d"))


@st.composite
def parts(draw: st.DrawFn) -> tuple[str, str, object]:
    """A column's form in a template (what follows its name), its type and a value."""
    none: st.SearchStrategy[str] = st.just("")
    times = st.one_of(none, PATTERNS.map(lambda pattern: f":{pattern}"))
    zoned = st.builds(lambda pattern, zone: f":{pattern}|{zone}", PATTERNS, ZONES)
    kinds: list[tuple[st.SearchStrategy[str], str, st.SearchStrategy[object]]] = [
        (none, "VARCHAR", TEXT),
        (PADS, "TINYINT", limits(8)),
        (PADS, "INTEGER", limits(32)),
        (PADS, "BIGINT", limits(64)),
        (PADS, "HUGEINT", limits(128)),
        (PADS, "UBIGINT", limits(64, signed=False)),
        (PADS, "UHUGEINT", limits(128, signed=False)),
        (none, "DECIMAL(18,4)", st.decimals(-(10**13), 10**13, places=4)),
        (none, "DECIMAL(38,0)", st.integers(-(10**20), 10**20).map(Decimal)),
        (none, "DECIMAL(4,4)", st.decimals(Decimal("-0.9999"), Decimal("0.9999"), places=4)),
        (none, "BOOLEAN", st.booleans()),
        (none, "UUID", st.uuids()),
        (times, "DATE", st.dates()),
        (times, "TIMESTAMP", NAIVE),
        (st.one_of(times, zoned), "TIMESTAMP WITH TIME ZONE", AWARE),
    ]
    form, kind, values = draw(st.sampled_from(kinds))
    return draw(form), kind, draw(st.one_of(values, values, values, st.none()))


@st.composite
def templates(draw: st.DrawFn) -> tuple[str, dict[str, str], dict[str, object]]:
    """A template with at least one column, and the types and values of its columns by name."""
    some = st.lists(st.one_of(parts(), TEXT), min_size=1, max_size=5)
    pieces = draw(some.filter(lambda found: any(isinstance(piece, tuple) for piece in found)))
    template, types, values = "", {}, {}
    for number, piece in enumerate(pieces):
        if isinstance(piece, str):
            template += piece.replace("{", "{{").replace("}", "}}")
        else:
            name = f'c "{number}"'
            template += f"{{{name}{piece[0]}}}"
            types[name], values[name] = piece[1], piece[2]
    return template, types, values


@given(templates())
@settings(max_examples=300, deadline=None)
def test_sql_and_python_write_the_same_id(
    connection: duckdb.DuckDBPyConnection, found: tuple[str, dict[str, str], dict[str, object]]
) -> None:
    template, types, values = found
    assert in_sql(connection, template, types, values) == Template(template).python(values)


@pytest.mark.parametrize(
    ("template", "kind", "given", "expected"),
    [
        ("c", "VARCHAR", "  As It Is ", "  As It Is "),
        ("c", "INTEGER", 7, "7"),
        ("{c:05d}", "INTEGER", 42, "00042"),
        ("{c:05d}", "INTEGER", -42, "-0042"),
        ("{c:02d}", "BIGINT", 12345, "12345"),
        ("c", "DECIMAL(10,4)", Decimal("1.5000"), "1.5"),
        ("c", "DECIMAL(10,4)", Decimal("200.0000"), "200"),
        ("c", "DECIMAL(18,0)", Decimal("200"), "200"),
        ("c", "DECIMAL(10,4)", Decimal("-0.0"), "0"),
        ("c", "BOOLEAN", True, "true"),
        ("c", "UUID", UUID("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("c", "DATE", date(2013, 1, 31), "2013-01-31"),
        ("{c:%Y%m%d}", "DATE", date(999, 1, 31), "09990131"),
        ("c", "TIMESTAMP", datetime(2013, 1, 31, 5), "2013-01-31T05:00:00"),
        ("c", "TIMESTAMP", datetime(2013, 1, 31, 5, 0, 0, 120_000), "2013-01-31T05:00:00.12"),
        ("c", "TIMESTAMP WITH TIME ZONE", datetime(2013, 1, 31, 5, tzinfo=UTC), "2013-01-31T05:00:00Z"),
        ("{c:%Y-%m-%d}", "TIMESTAMP WITH TIME ZONE", datetime(2013, 1, 31, 4, 59, tzinfo=UTC), "2013-01-31"),
        (
            "{c:%Y%m%d|America/New_York}",
            "TIMESTAMP WITH TIME ZONE",
            datetime(2013, 1, 31, 4, 59, tzinfo=UTC),
            "20130130",
        ),
        ("{{{c}}}", "VARCHAR", "x", "{x}"),
        ("it's {c}", "VARCHAR", "x", "it's x"),
    ],
)
def test_each_type_has_one_text(
    connection: duckdb.DuckDBPyConnection, template: str, kind: str, given: object, expected: str
) -> None:
    assert in_sql(connection, template, {"c": kind}, {"c": given}) == expected
    assert Template(template).python({"c": given}) == expected


def test_nanoseconds_are_kept(connection: duckdb.DuckDBPyConnection) -> None:
    sql = Template("{c}").sql({"c": "TIMESTAMP_NS"}, lambda _: "TIMESTAMP_NS '2013-01-31 05:00:00.123456789'")
    assert connection.execute(f"SELECT {sql}").fetchone() == ("2013-01-31T05:00:00.123456789",)


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"])
def test_an_infinite_time_gives_no_id(connection: duckdb.DuckDBPyConnection, kind: str) -> None:
    for template in ("x{c}", "x{c:%Y}"):
        sql = Template(template).sql({"c": kind}, lambda _: f"CAST('infinity' AS {kind})")
        assert connection.execute(f"SELECT {sql}").fetchone() == (None,)


def test_an_enum_is_text(connection: duckdb.DuckDBPyConnection) -> None:
    assert in_sql(connection, "{c}-1", {"c": "ENUM('a', 'b')"}, {"c": "b"}) == "b-1"


def test_a_row_that_lacks_a_column_has_no_id() -> None:
    assert Template("{a}-{b}").python({"a": "x", "b": None}) is None
    assert Template("{a}-{b}").python({"a": "x"}) is None


def test_text_without_braces_is_one_column_whatever_its_characters() -> None:
    assert Template("flight no: 1|2").columns == ("flight no: 1|2",)


def test_columns_are_named_once_in_order() -> None:
    assert Template("{b}-{a:05d}-{b}").columns == ("b", "a")


def test_templates_are_equal_by_their_text() -> None:
    assert Template("{a}") == Template("{a}") != Template("a")
    assert str(Template("{a}-{b}")) == "{a}-{b}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no column"),
        ("{{only text}}", "names no column"),
        ("{a", "has a { without } at character 1"),
        ("a}", "has a } without { at character 2"),
        ("{a{b}}", "has a { without }"),
        ("{}", "names no column"),
        ("{ a }", "without spaces"),
        ("{a:}", "format is neither"),
        ("{a:5d}", "format is neither"),
        ("{a:0d}", "format is neither"),
        ("{a:x}", "format is neither"),
        ("{a:05d|UTC}", "format is neither"),
        ("{a:%Q}", "whose %Q is none of"),
        ("{a:%}", "whose % is none of"),
        ("{a:%Y|}", "is not a time zone"),
        ("{a:%Y|Amerika/New_York}", "did you mean America/New_York?"),
        ("a\0b", "NUL"),
    ],
)
def test_what_is_no_template_cannot_be_built(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Template(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("{c}", "DOUBLE", "floating point numbers cannot be part of an id"),
        ("c", "FLOAT", "floating point numbers cannot be part of an id"),
        ("c", "INTEGER[]", "cannot be part of an id"),
        ("c", "BLOB", "cannot be part of an id"),
        ("{c:05d}", "VARCHAR", "only integers can be padded"),
        ("{c:05d}", "DECIMAL(18,0)", "only integers can be padded"),
        ("{c:%Y}", "VARCHAR", "only dates and timestamps take a format"),
        ("{c:%Y|UTC}", "TIMESTAMP", "which has no zone"),
        ("{c:%Y|UTC}", "DATE", "which has no zone"),
    ],
)
def test_a_type_that_has_no_one_text_is_refused(text: str, kind: str, said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        Template(text).sql({"c": kind}, quote_identifier, where="jobs/f.yaml:7:3: mapping.partner_inference_id")
    assert said in caught.value.message
    assert caught.value.message.startswith("jobs/f.yaml:7:3: mapping.partner_inference_id: ")


def test_a_column_that_is_not_there_is_named_with_the_nearest_that_is() -> None:
    with pytest.raises(Misconfigured, match='no column "fligth"; did you mean "flight"'):
        Template("{fligth}").sql({"flight": "INTEGER"}, quote_identifier)


@pytest.mark.parametrize("given", [1.5, b"x", [1], Decimal("NaN")])
def test_python_refuses_what_sql_refuses(given: object) -> None:
    with pytest.raises(Misconfigured, match="cannot be part of an id"):
        Template("{c}").python({"c": given})


@given(TEXT.filter(bool))
@settings(max_examples=100, deadline=None)
def test_any_text_can_be_quoted(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    sql = f"SELECT {quote_identifier(text)} FROM (SELECT {quote_literal(text)} AS {quote_identifier(text)})"
    assert connection.execute(sql).fetchone() == (text,)


@pytest.mark.parametrize(
    ("quote", "text"), [(quote_identifier, ""), (quote_identifier, "a\0"), (quote_literal, "\0")]
)
def test_what_no_engine_can_hold_is_not_quoted(quote: Callable[[str], str], text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        quote(text)
