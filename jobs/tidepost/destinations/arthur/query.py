"""Questions to Arthur API v3's query endpoint: rows by hour, and ids and labels by time.

Times are compared and come back with milliseconds, so every window here is aligned to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tidepost.destinations.arthur.model import ID, LABEL_TIME, TIME
from tidepost.errors import Retryable
from tidepost.model import StreamName
from tidepost.ranges import Range

MOST_IDS: Final = 50_000
"""Ids asked for at a time."""

_UNITS: Final[Sequence[tuple[str, int]]] = (("hour", 3_600_000), ("minute", 60_000), ("second", 1_000))
"""What times are rounded to when rows are counted, with its milliseconds, widest first."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Ask = Callable[[Mapping[str, object]], Sequence[Mapping[str, Any]]]
"""A query's body → the rows of its result. Raises Retryable, Misconfigured."""


def counts(stream: StreamName, hours: Range, ask: Ask) -> dict[int, int]:
    """Rows by hour of event time, of a window of hours; hours without rows are left out."""
    width = _UNITS[0][1]
    found = _counted(stream, Range(hours.start * width, hours.end * width), 0, ask)
    return {start // width: rows for start, rows in found}


def listed(stream: StreamName, window: Range, ask: Ask) -> Iterator[list[str]]:
    """The ids with event times in a window of milliseconds, in lists of at most 50,000."""
    for rows in selected(stream, window, (ID,), ask):
        yield [id_of(row) for row in rows]


def selected(
    stream: StreamName, window: Range, properties: Sequence[str], ask: Ask
) -> Iterator[Sequence[Mapping[str, Any]]]:
    """These properties of all rows with event times in a window of milliseconds, in lists of at most 50,000.

    Rows are counted first, by hour, and where that is too many by minute, by second, by halves of a second; a single
    millisecond is asked for as a whole, whatever it holds. Raises Retryable where fewer rows come than were counted.
    """
    for part, count in _parts(stream, window, 0, ask):
        question = {"select": [{"property": name} for name in properties], **_within(stream, part)}
        found = ask(question)
        if len(found) < count:
            raise Retryable(f"the platform counts {count} rows and lists only {len(found)}")
        for start in range(0, len(found), MOST_IDS):
            yield found[start : start + MOST_IDS]


def milliseconds(window: Range) -> Range:
    """A window of microseconds, widened outward to whole milliseconds."""
    return Range(window.start // 1000, -(-window.end // 1000))


def _parts(stream: StreamName, window: Range, level: int, ask: Ask) -> Iterator[tuple[Range, int]]:
    """Windows that hold at most 50,000 rows, or are of one millisecond, with their rows, in order; none is empty."""
    if level == len(_UNITS):
        yield from _halves(stream, window, ask)
        return
    width = _UNITS[level][1]
    gathered, start, end = 0, window.start, window.start
    for bucket, rows in _counted(stream, window, level, ask):
        if gathered + rows > MOST_IDS:
            if gathered:
                yield Range(start, end), gathered
            gathered, start = 0, max(bucket, window.start)
        end = min(bucket + width, window.end)
        if rows > MOST_IDS:
            yield from _parts(stream, Range(start, end), level + 1, ask)
            start = end
        else:
            gathered += rows
    if gathered:
        yield Range(start, end), gathered


def _halves(stream: StreamName, window: Range, ask: Ask) -> Iterator[tuple[Range, int]]:
    todo = [window]
    while todo:
        part = todo.pop()
        rows = ask({"select": [{"function": "count"}], **_within(stream, part)})
        count = _count(rows[0].get("count") if len(rows) == 1 else None)
        if count > MOST_IDS and part.end - part.start > 1:
            middle = (part.start + part.end) // 2
            todo += [Range(middle, part.end), Range(part.start, middle)]
        elif count:
            yield part, count


def _counted(stream: StreamName, window: Range, level: int, ask: Ask) -> list[tuple[int, int]]:
    """(first millisecond, rows) of each hour, minute or second with rows, in order, of a window of milliseconds."""
    unit, width = _UNITS[level]
    interval = {"property": _time(stream), "time_interval": unit}
    rows = ask(
        {
            "select": [
                {"function": "roundTimestamp", "alias": "bucket", "parameters": interval},
                {"function": "count", "alias": "rows"},
            ],
            **_within(stream, window),
            "group_by": [{"alias": "bucket"}],
        }
    )
    found = sorted((instant(row.get("bucket")), _count(row.get("rows"))) for row in rows)
    starts = {start for start, _ in found}
    inside = all(start % width == 0 and window.start - width < start < window.end for start in starts)
    if not inside or len(starts) != len(found):
        raise Retryable(f"the platform's counts by {unit} make no sense")
    return found


def _time(stream: StreamName) -> str:
    return LABEL_TIME if stream is StreamName.GROUND_TRUTH else TIME


def _within(stream: StreamName, window: Range) -> dict[str, object]:
    bounds = [
        {"property": _time(stream), "comparator": "gte", "value": _text(window.start)},
        {"property": _time(stream), "comparator": "lt", "value": _text(window.end)},
    ]
    table = {"from": "ground_truth"} if stream is StreamName.GROUND_TRUTH else {}
    return {**table, "filter": bounds}


def _text(milliseconds_: int) -> str:
    instant = _EPOCH + timedelta(milliseconds=milliseconds_)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instant(text: object) -> int:
    """A time in an answer, in milliseconds since 1970. Raises Retryable where it is none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        raise Retryable("a time in the platform's answer makes no sense") from None
    return ((found if found.tzinfo is not None else found.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise Retryable("a count in the platform's answer makes no sense")


def id_of(row: Mapping[str, Any]) -> str:
    """The id in a row of an answer. Raises Retryable where it has none."""
    found = row.get(ID)
    if not isinstance(found, str):
        raise Retryable("an id in the platform's answer is not a text")
    return found
