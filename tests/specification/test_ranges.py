"""Ranges behave as the sets of whole numbers that they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidepost.ranges import Range, Ranges

positions = st.integers(-30, 30)
ranges = st.tuples(positions, st.integers(1, 12)).map(lambda pair: Range(pair[0], pair[0] + pair[1]))
sets = st.lists(ranges, max_size=6)


def members(of: Ranges) -> set[int]:
    return {position for one in of for position in range(one.start, one.end)}


def listed(of: list[Range]) -> set[int]:
    return {position for one in of for position in range(one.start, one.end)}


def assert_normal(of: Ranges) -> None:
    """Sorted, disjoint, and not even touching."""
    assert all(one.end < other.start for one, other in zip(of.items, of.items[1:], strict=False))


@pytest.mark.parametrize(("start", "end"), [(1, 1), (2, 1)])
def test_an_empty_or_reversed_range_cannot_be_built(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="an empty range"):
        Range(start, end)


def test_a_range_holds_its_start_and_not_its_end() -> None:
    assert 3 in Ranges.of([Range(3, 5)])
    assert 5 not in Ranges.of([Range(3, 5)])


def test_no_ranges_are_false() -> None:
    assert not Ranges()
    assert Ranges.of([Range(0, 1)])


@given(ranges, ranges)
def test_clamping_is_intersection(one: Range, other: Range) -> None:
    clamped = one.clamp(other)
    assert listed([one]) & listed([other]) == (set() if clamped is None else listed([clamped]))


@given(sets)
def test_any_ranges_become_sorted_disjoint_and_apart(some: list[Range]) -> None:
    made = Ranges.of(some)
    assert_normal(made)
    assert members(made) == listed(some)
    assert Ranges.of(reversed(some)) == made


@given(sets, positions)
def test_membership(some: list[Range], position: int) -> None:
    assert (position in Ranges.of(some)) == (position in listed(some))


@given(sets, sets)
def test_union(one: list[Range], other: list[Range]) -> None:
    both = Ranges.of(one).union(Ranges.of(other))
    assert_normal(both)
    assert members(both) == listed(one) | listed(other)


@given(sets, sets)
def test_difference(one: list[Range], other: list[Range]) -> None:
    left = Ranges.of(one).minus(Ranges.of(other))
    assert_normal(left)
    assert members(left) == listed(one) - listed(other)


@given(sets, ranges)
def test_what_lies_within_a_window(some: list[Range], window: Range) -> None:
    inside = Ranges.of(some).within(window)
    assert_normal(inside)
    assert members(inside) == listed(some) & listed([window])


@given(sets, positions)
def test_the_unbroken_run_ends_at_the_first_position_that_is_missing(some: list[Range], start: int) -> None:
    end = Ranges.of(some).unbroken_from(start)
    assert end >= start
    assert set(range(start, end)) <= listed(some)
    assert end not in listed(some)
