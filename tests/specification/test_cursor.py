"""A cursor's values become exact positions, and positions become text that names them again."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidepost.cursor import (
    DAY,
    MICROSECOND,
    MILLISECOND,
    SECOND,
    UUIDS,
    CursorKind,
    CursorType,
    format_instant,
    parse_instant,
    to_datetime,
    to_nanoseconds,
)
from tidepost.errors import Misconfigured

TIMES = CursorKind(CursorType.TIMESTAMP)
DATES = CursorKind(CursorType.DATE)
INTEGERS = CursorKind(CursorType.INTEGER)
IDS = CursorKind(CursorType.UUID)
YEAR_ONE = (date(1, 1, 1) - date(1970, 1, 1)).days
LAST_DAY = (date(9999, 12, 31) - date(1970, 1, 1)).days

nanoseconds = st.integers(YEAR_ONE * DAY, (LAST_DAY + 1) * DAY - 1)
instants = st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@given(nanoseconds)
def test_a_time_is_read_back_to_the_nanosecond(position: int) -> None:
    assert TIMES.parse(TIMES.format(position)) == position


@given(st.integers(YEAR_ONE, LAST_DAY))
def test_a_date_is_read_back(position: int) -> None:
    assert DATES.parse(DATES.format(position)) == position


@given(st.integers(-(2**127), 2**128))
def test_an_integer_is_read_back(position: int) -> None:
    assert INTEGERS.parse(INTEGERS.format(position)) == position


@given(st.uuids())
def test_a_uuid_is_read_back(of: UUID) -> None:
    assert IDS.parse(str(of)) == of.int
    assert IDS.format(of.int) == str(of)


@given(st.uuids(), st.uuids())
def test_uuids_are_in_the_order_of_their_bytes(one: UUID, other: UUID) -> None:
    assert (IDS.parse(str(one)) < IDS.parse(str(other))) == (one.bytes < other.bytes)


def test_the_end_of_all_uuids_has_a_text() -> None:
    assert IDS.format(UUIDS) == "ffffffff-ffff-ffff-ffff-ffffffffffff"


@given(nanoseconds, nanoseconds)
def test_texts_of_times_with_as_many_digits_are_in_the_order_of_time(one: int, other: int) -> None:
    one, other = one // SECOND * SECOND, other // SECOND * SECOND
    assert (TIMES.format(one) < TIMES.format(other)) == (one < other)


@given(instants)
def test_a_datetime_is_its_position_and_back(instant: datetime) -> None:
    assert to_datetime(to_nanoseconds(instant)) == instant


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00Z", 0),
        ("1970-01-01 00:00:01Z", SECOND),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.1Z", 100_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T19:00:00-0500", 0),
        ("1969-12-31T23:59:59.999999999Z", -1),
        (" 1970-01-01T00:00:00 Z ", 0),
        ("2262-04-11T23:47:16.854775807Z", 2**63 - 1),
    ],
)
def test_a_time_may_be_written_in_several_ways(text: str, position: int) -> None:
    assert TIMES.parse(text) == position


@pytest.mark.parametrize(
    "text",
    [
        "1970-01-01T00:00:00",
        "1970-01-01T00:00:00.1234567890Z",
        "1970-13-01",
        "1970-01-01T24:01Z",
        "yesterday",
        "",
        "now()",
        "1970-01-01T00:00:00Z extra",
        "1970-01-01Z00:00",
        "12",
    ],
)
def test_a_text_that_names_no_time_exactly_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="is not a timestamp position"):
        TIMES.parse(text)


def test_a_naive_time_is_read_in_the_cursors_zone() -> None:
    kind = CursorKind(CursorType.TIMESTAMP, MICROSECOND, "America/New_York")
    assert kind.format(kind.parse("2024-07-01T00:00:00")) == "2024-07-01T04:00:00Z"
    assert kind.format(kind.parse("2024-01-01")) == "2024-01-01T05:00:00Z"


@pytest.mark.parametrize("text", ["2013-02-30", "2013-01-01T00:00:00Z", "4711"])
def test_a_text_that_names_no_date_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="is not a date position"):
        DATES.parse(text)


@pytest.mark.parametrize("text", ["1.5", "", "2013-01-01"])
def test_a_text_that_names_no_integer_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="integer position"):
        INTEGERS.parse(text)


@given(nanoseconds, st.sampled_from([1, MICROSECOND, MILLISECOND, SECOND]))
def test_an_instant_is_rounded_down_to_the_cursors_resolution(instant: int, tick: int) -> None:
    floor = CursorKind(CursorType.TIMESTAMP, tick).floor(instant)
    assert floor % tick == 0
    assert 0 <= instant - floor < tick


@given(st.integers(-DAY * 10_000, DAY * 30_000))
def test_a_date_is_over_when_the_next_one_begins(instant: int) -> None:
    floor = DATES.floor(instant)
    assert floor * DAY <= instant < (floor + 1) * DAY


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"])
def test_a_date_is_over_in_its_own_zone(zone: str) -> None:
    kind = CursorKind(CursorType.DATE, 1, zone)
    midnight = datetime(2024, 3, 10, tzinfo=ZoneInfo(zone))
    before = to_nanoseconds(midnight - timedelta(microseconds=1))
    assert kind.format(kind.floor(to_nanoseconds(midnight))) == "2024-03-10"
    assert kind.format(kind.floor(before)) == "2024-03-09"


@pytest.mark.parametrize("text", ["1", "", "2013-01-01", "00000000-0000-0000-0000-00000000000g"])
def test_a_text_that_names_no_uuid_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="is not a uuid position"):
        IDS.parse(text)


@pytest.mark.parametrize("kind", [INTEGERS, IDS])
def test_a_growing_id_has_no_instant(kind: CursorKind) -> None:
    assert not kind.timed
    with pytest.raises(ValueError, match="no instant"):
        kind.floor(0)


def test_a_naive_datetime_has_no_position() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        to_nanoseconds(datetime(2024, 1, 1))  # noqa: DTZ001


def test_only_the_digits_that_are_needed_are_written() -> None:
    assert format_instant(0) == "1970-01-01T00:00:00Z"
    assert format_instant(100) == "1970-01-01T00:00:00.0000001Z"
    assert format_instant(-1) == "1969-12-31T23:59:59.999999999Z"
    assert parse_instant("0099-01-01T00:00:00Z") < 0
    assert format_instant(parse_instant("0099-01-01T00:00:00Z")) == "0099-01-01T00:00:00Z"
