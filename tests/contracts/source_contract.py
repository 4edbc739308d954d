"""What every source keeps. A subclass says how rows get into one: `holding`, and `types` where it lacks some.

Each fact is checked for each type of cursor that the source has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest

from tidepost.cursor import CursorKind, CursorType, parse_instant
from tidepost.engine import Engine
from tidepost.errors import Misconfigured
from tidepost.ports import CURSOR, Source
from tidepost.ranges import Range

ALL = Range(-(2**62), 2**62)
"""Every position that a time or an integer here has."""


@dataclass(frozen=True)
class Case:
    """A type of cursor: values as SQL, in order, with their positions; and a zone where the type has none."""

    type: str
    values: Mapping[str, int]
    kind: CursorKind
    zone: str | None = None

    @property
    def positions(self) -> list[int]:
        return list(self.values.values())

    @property
    def all(self) -> Range:
        """Every position that a row can have."""
        if self.kind.type is CursorType.UUID:
            return Range(0, 2**128)
        return Range(-100_000, 100_000) if self.kind.type is CursorType.DATE else ALL


def at(text: str) -> int:
    return parse_instant(text)


TIMES = {
    "'1969-12-31 23:59:59'": at("1969-12-31T23:59:59Z"),
    "'2024-05-01 00:00:00'": at("2024-05-01T00:00:00Z"),
    "'2024-05-01 00:00:01'": at("2024-05-01T00:00:01Z"),
    "'2024-05-03 23:59:59'": at("2024-05-03T23:59:59Z"),
}
FRACTIONS = {
    "'2024-05-04 00:00:00.123'": at("2024-05-04T00:00:00.123Z"),
    "'2024-05-04 00:00:00.124'": at("2024-05-04T00:00:00.124Z"),
}
MICROS = {"'2024-05-04 00:00:00.124001'": at("2024-05-04T00:00:00.124001Z")}
NANOS = {
    "'2024-05-04 00:00:00.124001001'": at("2024-05-04T00:00:00.124001001Z"),
    "'2024-05-04 00:00:00.124001002'": at("2024-05-04T00:00:00.124001002Z"),
}
DATES = {
    "'1969-12-31'": -1,
    "'1970-01-01'": 0,
    "'2024-05-01'": at("2024-05-01") // at("1970-01-02"),
    "'2024-05-02'": at("2024-05-02") // at("1970-01-02"),
}
UUIDS = {
    f"'{UUID(int=position)}'": position
    for position in (1, 2, 100, 0x018F_0000_0000 << 80, 2**127 - 1, 2**127, 2**128 - 2)
}
INTEGERS = {"-7": -7, "-1": -1, "0": 0, "1": 1, "2": 2, "100": 100, "127": 127}
NATURALS = {"0": 0, "1": 1, "2": 2, "100": 100, "255": 255}


def times(type_: str, tick: int, values: Mapping[str, int], zone: str | None = None) -> Case:
    return Case(type_, values, CursorKind(CursorType.TIMESTAMP, tick, zone), zone)


ZONED_TIMES = {f"{text[:-1]}Z'": position for text, position in (TIMES | FRACTIONS | MICROS).items()}
CASES = (
    times("TIMESTAMPTZ", 1000, ZONED_TIMES),
    times("TIMESTAMP", 1000, TIMES | FRACTIONS | MICROS, "UTC"),
    times("TIMESTAMP_S", 10**9, TIMES, "UTC"),
    times("TIMESTAMP_MS", 10**6, TIMES | FRACTIONS, "UTC"),
    times("TIMESTAMP_NS", 1, TIMES | FRACTIONS | MICROS | NANOS, "UTC"),
    Case("DATE", DATES, CursorKind(CursorType.DATE)),
    Case("TINYINT", INTEGERS, CursorKind(CursorType.INTEGER)),
    Case("INTEGER", INTEGERS | {"2147483647": 2**31 - 1}, CursorKind(CursorType.INTEGER)),
    Case("BIGINT", INTEGERS | {"4611686018427387000": 4611686018427387000}, CursorKind(CursorType.INTEGER)),
    Case("UTINYINT", NATURALS, CursorKind(CursorType.INTEGER)),
    Case("UBIGINT", NATURALS | {"4611686018427387000": 4611686018427387000}, CursorKind(CursorType.INTEGER)),
    Case("HUGEINT", INTEGERS | {"4611686018427387000": 4611686018427387000}, CursorKind(CursorType.INTEGER)),
    Case("UUID", UUIDS, CursorKind(CursorType.UUID)),
)
SPRING = Case(
    "TIMESTAMP",
    {
        "'2024-03-10 01:59:59'": at("2024-03-10T06:59:59Z"),
        "'2024-03-10 03:00:00'": at("2024-03-10T07:00:00Z"),
        "'2024-03-10 03:30:00'": at("2024-03-10T07:30:00Z"),
    },
    CursorKind(CursorType.TIMESTAMP, 1000, "America/New_York"),
    "America/New_York",
)
AUTUMN = (
    "'2024-11-03 00:59:59'",
    "'2024-11-03 01:00:00'",
    "'2024-11-03 01:30:00'",
    "'2024-11-03 01:59:59.999999'",
    "'2024-11-03 02:00:00'",
    "'2024-11-03 02:30:00'",
)
"""Naive times of New York around the hour that it has twice: which of the two a value means cannot be known."""

Holding = Callable[..., Source]
"""`holding(rows, zone=…)`: a source with the columns `id`, `c` (the cursor), `v`; `rows` is SQL that selects them."""


def rows_of(case: Case, *, nulls: int = 0, copies: int = 1) -> str:
    """SQL of rows with ids a0, a1, …, their cursors, and values; every cursor `copies` times."""
    values = [sql for sql in case.values for _ in range(copies)] + ["NULL"] * nulls
    listed = ", ".join(f"('a{n}', CAST({sql} AS {case.type}), {n})" for n, sql in enumerate(values))
    return f"SELECT * FROM (VALUES {listed}) AS t(id, c, v)"


def read(source: Source, engine: Engine, *windows: Range) -> list[tuple[str, int]]:
    """(id, position) of what a source gives of some ranges, one after the other, by id."""
    connection = engine.connect()
    found: list[tuple[str, int]] = []
    try:
        for window in windows:
            with source.read(connection, window, ["id", "v"]) as relation:
                sql = f'SELECT id, "{CURSOR}", v FROM ({relation.sql})'
                rows = connection.execute(sql, dict(relation.values)).fetchall()
            assert all(id_ == f"a{v}" for id_, _, v in rows)
            found += [(id_, UUID(at).int if isinstance(at, str) else int(at)) for id_, at, _ in rows]
    finally:
        connection.close()
    return sorted(found)


class SourceContract:
    """The port `Source`."""

    types: tuple[str, ...] = tuple(case.type for case in CASES)

    @pytest.fixture
    def holding(self) -> Holding:
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Check a fact that takes a `case` for each type that the source has."""
        if "case" in metafunc.fixturenames:
            cases = [case for case in CASES if case.type in self.types]
            metafunc.parametrize("case", cases, ids=[case.type for case in cases])

    def test_columns_are_told_with_their_types(self, holding: Holding, case: Case) -> None:
        columns = holding(rows_of(case), zone=case.zone).columns()
        assert list(columns) == ["id", "c", "v"]
        assert columns["id"] == "VARCHAR"

    def test_the_cursor_has_the_columns_own_type_and_resolution(self, holding: Holding, case: Case) -> None:
        assert holding(rows_of(case), zone=case.zone).cursor() == case.kind

    def test_every_row_has_its_exact_position(self, holding: Holding, case: Case, engine: Engine) -> None:
        found = read(holding(rows_of(case), zone=case.zone), engine, case.all)
        assert found == sorted((f"a{n}", position) for n, position in enumerate(case.positions))

    def test_a_range_holds_its_start_and_not_its_end(self, holding: Holding, case: Case, engine: Engine) -> None:
        source = holding(rows_of(case, copies=2), zone=case.zone)
        for low, high in pairwise(case.positions):
            assert [position for _, position in read(source, engine, Range(low, high))] == [low, low]

    def test_ranges_that_meet_at_a_row_hold_each_row_once(self, holding: Holding, case: Case, engine: Engine) -> None:
        source = holding(rows_of(case, copies=2), zone=case.zone)
        ends = [case.all.start, *case.positions, case.all.end]
        found = read(source, engine, *(Range(start, end) for start, end in pairwise(ends)))
        assert found == read(source, engine, case.all)

    def test_a_range_may_begin_and_end_between_two_values(self, holding: Holding, case: Case, engine: Engine) -> None:
        source = holding(rows_of(case), zone=case.zone)
        tick = case.kind.tick
        for position in case.positions:
            assert read(source, engine, Range(position - tick + 1, position + 1)) == read(
                source, engine, Range(position, position + tick)
            )
            assert read(source, engine, Range(position + 1, position + tick)) == [] if tick > 1 else True

    def test_a_survey_counts_what_a_range_holds(self, holding: Holding, case: Case) -> None:
        survey = holding(rows_of(case, copies=3), zone=case.zone).survey(case.all)
        assert survey.highest == max(case.positions)
        assert sum(count for _, count in survey.buckets) == 3 * len(case.positions)
        starts = [start for start, _ in survey.buckets]
        assert starts == sorted(set(starts))

    def test_the_rows_of_a_bucket_lie_between_it_and_the_next(self, holding: Holding, case: Case) -> None:
        survey = holding(rows_of(case), zone=case.zone).survey(case.all)
        ends = [*(start for start, _ in survey.buckets[1:]), case.all.end]
        for (start, count), end in zip(survey.buckets, ends, strict=True):
            assert count == sum(1 for position in case.positions if start <= position < end)

    def test_the_highest_of_a_range_is_exact(self, holding: Holding, case: Case) -> None:
        source = holding(rows_of(case), zone=case.zone)
        for low, high in pairwise(case.positions):
            assert source.survey(Range(low, high)).highest == low
            assert source.survey(Range(low, high + 1)).highest == high

    def test_a_range_without_rows_has_no_highest(self, holding: Holding, case: Case, engine: Engine) -> None:
        source = holding(rows_of(case), zone=case.zone)
        empty = Range(case.positions[-1] + case.kind.tick, case.positions[-1] + 2 * case.kind.tick)
        survey = source.survey(empty)
        assert (survey.highest, survey.buckets) == (None, ())
        assert read(source, engine, empty) == []

    def test_rows_without_a_cursor_are_counted_and_never_read(
        self, holding: Holding, case: Case, engine: Engine
    ) -> None:
        source = holding(rows_of(case, nulls=2), zone=case.zone)
        assert source.survey(case.all).null_cursors in (2, 0)  # 0 where the source's own range leaves them out
        assert len(read(source, engine, case.all)) == len(case.positions)

    def test_a_survey_has_at_most_about_a_thousand_buckets(self, holding: Holding) -> None:
        case = next(one for one in CASES if one.type == self.types[0])
        value = f"CAST(TIMESTAMPTZ '2024-01-01 00:00:00Z' + INTERVAL (i) DAY AS {case.type})"
        many = f"SELECT 'a' || i AS id, {value} AS c, i AS v FROM range(5000) AS r(i)"
        survey = holding(many, zone=case.zone).survey(case.all)
        assert 10 < len(survey.buckets) <= 1100
        assert sum(count for _, count in survey.buckets) == 5000


class NaiveTimesContract:
    """What a source whose cursor has no zone of its own keeps where clocks change."""

    @pytest.fixture
    def holding(self) -> Holding:
        raise NotImplementedError

    def test_a_cursor_without_a_zone_asks_for_one(self, holding: Holding) -> None:
        with pytest.raises(Misconfigured, match="without a time zone"):
            holding(rows_of(SPRING), zone=None).cursor()

    def test_positions_leap_with_the_clock_in_spring(self, holding: Holding, engine: Engine) -> None:
        found = read(holding(rows_of(SPRING), zone=SPRING.zone), engine, ALL)
        assert [position for _, position in found] == SPRING.positions

    @pytest.mark.parametrize("minutes", [20, 60])
    def test_every_row_is_in_exactly_one_of_adjacent_ranges_in_spring(
        self, holding: Holding, engine: Engine, minutes: int
    ) -> None:
        source = holding(rows_of(SPRING), zone=SPRING.zone)
        assert in_slices(source, engine, at("2024-03-10T04:00:00Z"), at("2024-03-10T10:00:00Z"), minutes) == [
            f"a{n}" for n in range(len(SPRING.values))
        ]

    @pytest.mark.parametrize("minutes", [20, 60])
    def test_every_row_is_in_exactly_one_of_adjacent_ranges_in_autumn(
        self, holding: Holding, engine: Engine, minutes: int
    ) -> None:
        listed = ", ".join(f"('a{n}', TIMESTAMP {value}, {n})" for n, value in enumerate(AUTUMN))
        source = holding(f"SELECT * FROM (VALUES {listed}) AS t(id, c, v)", zone="America/New_York")
        assert in_slices(source, engine, at("2024-11-03T02:00:00Z"), at("2024-11-03T10:00:00Z"), minutes) == [
            f"a{n}" for n in range(len(AUTUMN))
        ]
        assert sum(count for _, count in source.survey(ALL).buckets) == len(AUTUMN)


def in_slices(source: Source, engine: Engine, start: int, end: int, minutes: int) -> list[str]:
    """The ids that adjacent ranges of some minutes give, each as often as it is given."""
    width = minutes * 60 * 10**9
    return [id_ for id_, _ in read(source, engine, *(Range(low, low + width) for low in range(start, end, width)))]


@cache
def _scratchpad() -> duckdb.DuckDBPyConnection:
    """One database in memory for all that only writes files: to open one takes longer than most tests."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def execute(sql: str, connection: duckdb.DuckDBPyConnection | None = None) -> list[tuple[Any, ...]]:
    """Run something in DuckDB, in UTC."""
    if connection is None:
        connection = _scratchpad()
    else:
        connection.execute("SET TimeZone = 'UTC'")
    return connection.execute(sql).fetchall()


def arrow(sql: str) -> pa.Table:
    """The rows of a query as an Arrow table."""
    return _scratchpad().execute(sql).to_arrow_table()
