"""What paths say of the times of their rows."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from tidepost.paths import Component, Field, PathTemplate, Span, check_template, span_of, units


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("text", "unit", "path"),
    [
        ("/log/{start:%Y}.csv", "year", "log/2024.csv"),
        ("/log/{start:%Y/%m}/*.csv", "month", "log/2024/03/*.csv"),
        ("/log/{start:%Y/%m/%d}/*.csv", "day", "log/2024/03/05/*.csv"),
        ("/log/{start:%Y}/{start:%j}/x", "day", "log/2024/065/x"),
        ("/log/day={start:%Y-%m-%d}/hour={start:%H}/**", "hour", "log/day=2024-03-05/hour=07/**"),
        ("/log/{start:%Y/%-m/%-d/%-H}/x", "hour", "log/2024/3/5/7/x"),
        ("/log/{start:%H.%d.%m.%Y}", "hour", "log/07.05.03.2024"),
        ("s3://b/{start:%Y%m%d%H}-*.gz", "hour", "2024030507-*.gz"),
        ("/log/*/%Y.csv", None, "log/*/%Y.csv"),
        ("/{braces}/x", None, "{braces}/x"),
    ],
)
def test_a_template_names_the_path_of_a_moment(text: str, unit: str | None, path: str) -> None:
    template = PathTemplate(text)
    assert template.unit == unit
    assert "/".join(one.at(moment("2024-03-05T07:59:59")) for one in template.components) == path


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("log/{end:%Y}", "holds {end:%Y}, which is no placeholder; write one like {start:%Y/%m/%d}"),
        ("log/{start}/x", "holds {start}, which is no placeholder"),
        ("log/{date}/x", "holds {date}, which is no placeholder"),
        ("log/{start:}/x", "holds {start:}, which names no unit"),
        ("log/{start:%Y-%M}", "holds {start:%Y-%M}, whose %M is none of %Y %m %-m %d %-d %j %H %-H"),
        ("log/{start:%m/%d}", "names units of time without the larger ones; add %Y"),
        ("log/{start:%Y}/{start:%d}", "names units of time without the larger ones; add %m"),
        ("log/{start:%Y-%m}/{start:%H}", "names units of time without the larger ones; add %d or %j"),
        ("log/{start:%H}", "add %Y and %d or %j"),
        ("log/**/{start:%Y}", "has ** before a placeholder"),
        ("gs://bucket/x", "begins with gs://, which cannot be read"),
        ("s3://", "names no bucket"),
        ("s3://{start:%Y}/x", "names no bucket"),
    ],
)
def test_a_template_that_means_nothing_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fault)):
        check_template(text)


def test_a_name_is_read_as_it_is_written() -> None:
    component = Component(("day=", Field("Y"), "-", Field("m"), "*"))
    assert component.read("day=2024-03") == {"Y": 2024, "m": 3}
    assert component.read("day=2024-03.old") == {"Y": 2024, "m": 3}
    assert component.read("day=2024-3") is None
    assert component.read("xday=2024-03") is None


def test_a_name_that_contradicts_itself_is_none() -> None:
    assert Component((Field("Y"), "-", Field("Y"))).read("2024-2025") is None


def test_spans_are_as_long_as_what_is_said() -> None:
    assert span_of({"Y": 2024}) == Span(moment("2024-01-01"), moment("2025-01-01"))
    assert span_of({"Y": 2024, "m": 2}) == Span(moment("2024-02-01"), moment("2024-03-01"))
    assert span_of({"Y": 2024, "m": 2, "d": 29}) == Span(moment("2024-02-29"), moment("2024-03-01"))
    assert span_of({"Y": 2024, "j": 366}) == Span(moment("2024-12-31"), moment("2025-01-01"))
    assert span_of({"Y": 2024, "j": 60, "H": 23}) == Span(moment("2024-02-29T23:00"), moment("2024-03-01"))
    assert span_of({"Y": 2024, "H": 5}) == Span(moment("2024-01-01"), moment("2025-01-01"))
    assert span_of({"m": 5}) is None
    assert span_of({"Y": 9999, "m": 12}) == Span(moment("9999-12-01"), moment("9999-12-31T23:59:59.999999"))


@pytest.mark.parametrize("said", [{"Y": 2023, "m": 2, "d": 29}, {"Y": 2023, "j": 366}, {"Y": 0}])
def test_a_date_that_is_none_is_refused(said: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"day|year"):
        span_of(said)


def test_the_units_of_a_span_are_those_that_it_meets() -> None:
    span = Span(moment("2023-12-31T23:30"), moment("2024-01-01T01:00"))
    assert list(units(span, "hour")) == [
        moment("2023-12-31T23:00"),
        moment("2024-01-01T00:00"),
    ]
    assert list(units(span, "day")) == [moment("2023-12-31"), moment("2024-01-01")]
    assert list(units(span, "month")) == [moment("2023-12-01"), moment("2024-01-01")]
    assert list(units(span, "year")) == [moment("2023-01-01"), moment("2024-01-01")]
