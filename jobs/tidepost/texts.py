"""Numbers, sizes, spans and positions as people read them: on a terminal, in logs and on pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_FRACTION: Final = re.compile(r"\.\d+Z$")
_SECONDS: Final = re.compile(r"(?<=T\d\d:\d\d):00Z$")
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_SPANS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def count(number: int, noun: str, many: str = "") -> str:
    """`1 row`, `2,699 rows`."""
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"


def size(amount: float) -> str:
    """Bytes in powers of ten: `13.2 MB`."""
    for unit in _UNITS:
        if amount < 1000 or unit == _UNITS[-1]:
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def span(seconds: float) -> str:
    """A length of time in its one or two largest units: `3 h 5 min`, `12 d`, `0.4 s`."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    at = next(index for index, (_, length) in enumerate(_SPANS) if seconds >= length)
    unit, length = _SPANS[at]
    whole, rest = divmod(int(seconds), length)
    if at + 1 == len(_SPANS) or whole >= 10 or rest < _SPANS[at + 1][1]:
        return f"{whole:,} {unit}"
    next_unit, next_length = _SPANS[at + 1]
    return f"{whole} {unit} {rest // next_length} {next_unit}"


def instant(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC; None stays None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def short(position: str) -> str:
    """A position's text for people: without parts of a second, and without seconds that are zero."""
    return _SECONDS.sub("Z", _FRACTION.sub("Z", position))
