"""Planning: what is still to be scanned, cut into pieces, as a function of values."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidepost.cursor import DAY, CursorKind, CursorType
from tidepost.model import Coverage, Cut, Request, ScanKind
from tidepost.planning.plan import (
    Sizing,
    bound,
    frontier,
    high_water_mark,
    overfull,
    pending,
    plan,
    refined,
)
from tidepost.ports import Survey
from tidepost.ranges import Range, Ranges

NEW = Request("run", ScanKind.INCREMENTAL)

positions = st.integers(0, 60)
ranges = st.tuples(positions, st.integers(1, 25)).map(lambda pair: Range(pair[0], pair[0] + pair[1]))
todos = st.lists(ranges, min_size=1, max_size=4).map(Ranges.of)
surveys = st.dictionaries(positions, st.integers(1, 9), max_size=20).map(
    lambda counted: Survey(max(counted, default=None), tuple(sorted(counted.items())))
)
sizings = st.builds(Sizing, st.integers(1, 20), st.sampled_from([None, 5, 10]))


def members(of: Ranges) -> set[int]:
    return {position for one in of for position in range(one.start, one.end)}


def positions_of(cuts: tuple[Cut, ...]) -> list[int]:
    return [position for cut in cuts for position in range(cut.range.start, cut.range.end)]


def planned(todo: Ranges, survey: Survey, sizing: Sizing, limit: int) -> tuple[Cut, ...]:
    return plan(NEW.kind, todo=todo, bound=bound(limit, survey.highest, 1), survey=survey, sizing=sizing)


# --------------------------------------------------------------------------------------------------- what is pending


@given(st.lists(ranges, max_size=4), st.lists(ranges, max_size=4), positions, positions)
def test_an_incremental_run_takes_what_is_neither_scanned_nor_promised(
    scanned: list[Range], promised: list[Range], start: int, limit: int
) -> None:
    coverage = Coverage(0, {"": Ranges.of(scanned)}, {"": Ranges.of(promised)})
    todo = pending(NEW, start=start, limit=limit, coverage=coverage)
    assert members(todo) == set(range(start, limit)) - members(Ranges.of(scanned)) - members(Ranges.of(promised))


@given(st.lists(ranges, max_size=4), ranges, positions)
def test_a_window_that_was_asked_for_is_looked_at_again_below_the_limit(
    scanned: list[Range], window: Range, limit: int
) -> None:
    coverage = Coverage(0, {"": Ranges.of(scanned)})
    todo = pending(Request("again", ScanKind.BACKFILL, window), start=0, limit=limit, coverage=coverage)
    assert members(todo) == {position for position in range(window.start, window.end) if position < limit}


def test_lanes_are_planned_apart() -> None:
    coverage = Coverage(0, {"topic/0": Ranges.of([Range(0, 10)])})
    assert members(pending(NEW, start=0, limit=10, coverage=coverage, lane="topic/1")) == set(range(10))


# ----------------------------------------------------------------------------------------------------- the bound


def test_nothing_visible_sets_no_bound() -> None:
    assert bound(100, None, 1) is None


@given(positions, positions, st.integers(1, 10))
def test_the_bound_is_just_past_the_last_row_and_never_beyond_the_limit(limit: int, highest: int, tick: int) -> None:
    assert bound(limit, highest, tick) == min(limit, highest + tick)


# ------------------------------------------------------------------------------------------------------- the cuts


@given(todos, surveys, sizings, positions)
def test_cuts_cover_what_is_pending_below_the_bound_once_and_oldest_first(
    todo: Ranges, survey: Survey, sizing: Sizing, limit: int
) -> None:
    found = positions_of(planned(todo, survey, sizing, limit))
    end = bound(limit, survey.highest, 1)
    assert found == sorted(position for position in members(todo) if end is not None and position < end)


@given(todos, surveys, sizings, positions)
def test_a_plan_is_the_same_however_often_it_is_made(
    todo: Ranges, survey: Survey, sizing: Sizing, limit: int
) -> None:
    assert planned(todo, survey, sizing, limit) == planned(todo, survey, sizing, limit)


@given(surveys, st.integers(1, 20))
def test_a_cut_holds_no_more_than_aimed_at_unless_one_bucket_does(survey: Survey, rows: int) -> None:
    todo = Ranges.of([Range(0, 100)])
    for cut in planned(todo, survey, Sizing(rows), 100):
        inside = [count for position, count in survey.buckets if cut.range.start <= position < cut.range.end]
        assert cut.estimated == sum(inside)
        assert sum(inside) <= rows or len(inside) == 1


@given(surveys, sizings)
def test_cuts_begin_where_rows_begin_so_that_one_cursor_value_is_never_split(survey: Survey, sizing: Sizing) -> None:
    cuts = planned(Ranges.of([Range(0, 100)]), survey, sizing, 100)
    starts = {position for position, _ in survey.buckets}
    assert all(cut.range.start in starts for cut in cuts[1:])


def test_rows_of_one_cursor_value_are_one_cut_however_many() -> None:
    survey = Survey(7, ((7, 1_000_000),))
    (cut,) = planned(Ranges.of([Range(0, 100)]), survey, Sizing(10), 100)
    assert cut.range == Range(0, 8)


def test_an_empty_stretch_between_rows_belongs_to_a_cut() -> None:
    survey = Survey(50, ((0, 10), (50, 10)))
    cuts = planned(Ranges.of([Range(0, 100)]), survey, Sizing(10), 100)
    assert [cut.range for cut in cuts] == [Range(0, 50), Range(50, 51)]


def test_an_empty_stretch_at_the_end_is_left_for_later() -> None:
    cuts = planned(Ranges.of([Range(0, 100)]), Survey(50, ((0, 10), (50, 10))), Sizing(100), 100)
    assert cuts[-1].range.end == 51


def test_a_source_without_rows_is_not_scanned_off() -> None:
    assert planned(Ranges.of([Range(0, 100)]), Survey(None, ()), Sizing(10), 100) == ()


def test_cuts_are_made_at_preferred_boundaries_once_they_are_half_full() -> None:
    survey = Survey(39, tuple((position, 1) for position in range(40)))
    cuts = planned(Ranges.of([Range(0, 100)]), survey, Sizing(15, align=10), 100)
    assert [cut.range.start for cut in cuts] == [0, 10, 20, 30]


def test_times_are_cut_by_days_and_numbers_are_not() -> None:
    assert Sizing.of(CursorKind(CursorType.TIMESTAMP), 10).align == DAY
    assert Sizing.of(CursorKind(CursorType.INTEGER), 10).align is None
    assert Sizing.of(CursorKind(CursorType.DATE), 10).align is None


def test_the_estimates_of_all_cuts_are_the_rows_of_the_survey() -> None:
    survey = Survey(39, tuple((position, position + 1) for position in range(40)))
    cuts = planned(Ranges.of([Range(0, 100)]), survey, Sizing(15), 100)
    assert sum(cut.estimated or 0 for cut in cuts) == sum(count for _, count in survey.buckets)


# ------------------------------------------------------------------------------------------------- finer surveys


@given(surveys, st.integers(1, 4))
def test_only_buckets_of_more_than_two_cuts_are_counted_more_finely(survey: Survey, rows: int) -> None:
    large = {position for position, count in survey.buckets if count > 2 * rows}
    found = overfull(survey, Sizing(rows))
    assert {one.start for one in found} <= large
    assert all(one.end - one.start > 1 for one in found)


def test_a_bucket_of_one_position_cannot_be_counted_more_finely() -> None:
    assert overfull(Survey(7, ((6, 100), (7, 100))), Sizing(10)) == ()


def test_finer_counts_take_the_place_of_the_bucket() -> None:
    coarse = Survey(30, ((0, 5), (10, 90), (20, 5)))
    finer = refined(coarse, {10: Survey(19, ((10, 40), (15, 50)))})
    assert finer.buckets == ((0, 5), (10, 40), (15, 50), (20, 5))
    assert all(one < other for (one, _), (other, _) in pairwise(finer.buckets))


# ------------------------------------------------------------------------------------------------------- the mark


@pytest.mark.parametrize(("scanned", "end"), [([], 5), ([Range(5, 9)], 9), ([Range(6, 9)], 5), ([Range(0, 9)], 9)])
def test_the_frontier_is_the_end_of_the_unbroken_scanned_range(scanned: list[Range], end: int) -> None:
    assert frontier(5, {"": Ranges.of(scanned)}) == end


def test_the_mark_is_the_frontier_capped_by_the_oldest_slice_that_is_open() -> None:
    assert high_water_mark(90, None) == 90
    assert high_water_mark(90, 40) == 40
    assert high_water_mark(90, 95) == 90
