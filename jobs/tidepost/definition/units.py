"""Durations, sizes, limits and zones as people write them: `1h30m`, `128MB`, `1%`, `Europe/Berlin`.

Each has one parser, which raises ValueError with a sentence that follows the key's name, and one writer, which
gives the shortest text that the parser reads back as the same value.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_LONGEST: Final = 36_525 * _SECONDS["d"]
_BYTES: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}

DURATION_PATTERN: Final = r"^(?=[0-9])([0-9]{1,6}w)?([0-9]{1,7}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$"
SIZE_PATTERN: Final = r"^[0-9]{1,15} ?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$"
PERCENT_PATTERN: Final = r"^[0-9]{1,3}(\.[0-9]{1,6})? ?%$"

_SIZE_UNITS: Final = {unit.lower(): unit for unit in _BYTES}


def parse_duration(text: str) -> timedelta:
    """`1w2d3h4m5s`, or any part of it, largest unit first → a duration in whole seconds, at least zero."""
    found = re.fullmatch(DURATION_PATTERN, text, re.ASCII)
    if not found:
        raise ValueError("is not a duration; write one like 30s, 10m, 2h, 1h30m, 3d or 1w")
    seconds = sum(int(part[:-1]) * _SECONDS[part[-1]] for part in found.groups() if part)
    if seconds > _LONGEST:
        raise ValueError("is longer than a hundred years")
    return timedelta(seconds=seconds)


def duration_text(value: timedelta) -> str:
    """The text of a duration in whole seconds, from days down: `1d12h`; `0s` for none."""
    left = int(value.total_seconds())
    text = ""
    for unit in "dhms":
        count, left = divmod(left, _SECONDS[unit])
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def parse_size(text: str) -> int:
    """`128MB` (powers of ten) or `64MiB` (powers of two) → bytes; the unit's letters may be of either case."""
    found = re.fullmatch(r"([0-9]{1,15}) ?([A-Za-z]+)", text, re.ASCII)
    unit = _SIZE_UNITS.get(found[2].lower()) if found else None
    if not found or not unit:
        raise ValueError("is not a size; write one like 128MB (128,000,000 bytes) or 64MiB (67,108,864 bytes)")
    return int(found[1]) * _BYTES[unit]


def size_text(value: int) -> str:
    """The text of a number of bytes, in the largest unit that divides it: `128MB`."""
    fitting = [unit for unit, size in _BYTES.items() if value and value % size == 0]
    unit = max(fitting, key=lambda name: _BYTES[name], default="B")
    return f"{value // _BYTES[unit]}{unit}"


@dataclass(frozen=True, slots=True)
class RejectLimit:
    """How many rows of a slice may be rejected before it is held: a share of its candidate rows, or a number.

    Exactly one of `percent` (0 to 100) and `rows` (0 or more) is set.
    """

    percent: Decimal | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        if (self.percent is None) == (self.rows is None):
            raise ValueError("a limit is either a percentage or a number of rows")
        if self.percent is not None and not 0 <= self.percent <= 100:
            raise ValueError("is not between 0% and 100%")
        if self.rows is not None and self.rows < 0:
            raise ValueError("is less than 0")

    def exceeded(self, *, rejects: int, candidates: int) -> bool:
        """Whether `rejects` of `candidates` rows are too many; exactly at the limit is not."""
        if self.percent is not None:
            return rejects * 100 > self.percent * candidates
        return self.rows is not None and rejects > self.rows

    def __str__(self) -> str:
        return f"{self.percent}%" if self.percent is not None else str(self.rows)


def parse_reject_limit(text: str) -> RejectLimit:
    """`1%` or `0.5%` → a share of the candidate rows."""
    if not re.fullmatch(PERCENT_PATTERN, text, re.ASCII):
        raise ValueError('is neither a percentage like "1%" nor a number of rows')
    return RejectLimit(percent=Decimal(text.rstrip("% ")))


def parse_zone(name: str) -> ZoneInfo:
    """The IANA time zone of that name; `localtime`, which is another zone on another machine, is none."""
    try:
        if name != "localtime":
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    near = difflib.get_close_matches(name, available_timezones(), n=1)
    guess = f"; did you mean {near[0]}?" if near else "; write one like UTC or Europe/Berlin"
    raise ValueError(f"is not a time zone{guess}")
