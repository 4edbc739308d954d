"""Cursor types: how a source column's values become exact integer positions, and back.

| type      | position                      | text (ledger, command line)        |
|-----------|-------------------------------|------------------------------------|
| timestamp | nanoseconds since 1970, UTC   | 2013-01-03T05:00:00Z, to 9 digits  |
| date      | days since 1970-01-01         | 2013-01-03                         |
| integer   | the integer itself            | 4711                               |
| uuid      | its 128 bits as an integer    | 01890a5d-ac96-774b-bcce-b302099a8057 |

Nothing passes through a float, so no bound is ever rounded past a row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from uuid import UUID
from zoneinfo import ZoneInfo

from tidepost.errors import Misconfigured

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?)?\s*(Z|[+-]\d{2}(?::?\d{2})?)?"
)
NANOSECOND, MICROSECOND, MILLISECOND, SECOND = 1, 1_000, 1_000_000, 1_000_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
HIGHEST_INTEGER = 10**38
UUIDS = 2**128


class CursorType(StrEnum):
    TIMESTAMP = "timestamp"
    DATE = "date"
    INTEGER = "integer"
    UUID = "uuid"


@dataclass(frozen=True, slots=True)
class CursorKind:
    """A cursor's type with the distance between two neighbouring values (`tick`, in positions).

    zone: the zone of naive text and of naive columns; None where a zone must be written out.
    """

    type: CursorType
    tick: int = 1
    zone: str | None = None

    @property
    def timed(self) -> bool:
        """Whether positions are times. Growing ids have no instant: settle resolves through the ledger's log."""
        return self.type in (CursorType.TIMESTAMP, CursorType.DATE)

    @property
    def last(self) -> int:
        """Past every position that a growing id can have: an integer has 38 digits at most."""
        return UUIDS if self.type is CursorType.UUID else HIGHEST_INTEGER

    def parse(self, text: str) -> int:
        """The position that `text` names. Raises Misconfigured for anything that does not name exactly one."""
        text = text.strip()
        try:
            if self.type is CursorType.INTEGER:
                return int(text)
            if self.type is CursorType.UUID:
                return UUID(text).int
            if self.type is CursorType.DATE:
                return (date.fromisoformat(text) - EPOCH.date()).days
            return parse_instant(text, zone=self.zone)
        except ValueError as error:
            raise Misconfigured(f"{text!r} is not a {self.type} position: {error}") from None

    def format(self, position: int) -> str:
        if self.type is CursorType.INTEGER:
            return str(position)
        if self.type is CursorType.UUID:
            # A range may end just past the last one there is, which has no text of its own.
            return str(UUID(int=min(max(position, 0), UUIDS - 1)))
        if self.type is CursorType.DATE:
            return (EPOCH.date() + timedelta(days=position)).isoformat()
        return format_instant(position)

    def floor(self, instant_ns: int) -> int:
        """The first position that is not over at an instant: times rounded down to the tick, dates to their day.

        Only for cursors that are times; a growing id has no instant of its own.
        """
        if self.type is CursorType.TIMESTAMP:
            return instant_ns // self.tick * self.tick
        if self.type is CursorType.DATE:
            zone = ZoneInfo(self.zone or "UTC")
            return (to_datetime(instant_ns).astimezone(zone).date() - EPOCH.date()).days
        raise ValueError(f"a cursor of type {self.type} has no instant")


def parse_instant(text: str, *, zone: str | None = None) -> int:
    """Nanoseconds since 1970 of an ISO 8601 date or time; a naive one is read in `zone`.

    Raises ValueError for text of another form, and for naive text where no zone is given.
    """
    match = _TIMESTAMP.fullmatch(text.strip())
    if match is None:
        raise ValueError("write it as 2013-01-03T05:00:00Z")
    day, minutes, seconds, fraction, offset = match.groups()
    if offset is None and zone is None and minutes is not None:
        raise ValueError("it has no time zone; write it as 2013-01-03T05:00:00Z")
    whole = datetime.fromisoformat(f"{day}T{minutes or '00:00'}:{seconds or '00'}{offset or ''}")
    if whole.tzinfo is None:
        whole = whole.replace(tzinfo=ZoneInfo(zone or "UTC"))
    return to_nanoseconds(whole) + int((fraction or "").ljust(9, "0"))


def format_instant(nanoseconds: int) -> str:
    """ISO 8601 in UTC, with as many digits of a second as are needed: `2013-01-03T05:00:00Z`."""
    seconds, rest = divmod(nanoseconds, SECOND)
    # Not strftime, which leaves years before 1000 unpadded.
    text = (EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(timespec="seconds")
    return f"{text}.{rest:09d}".rstrip("0") + "Z" if rest else f"{text}Z"


def to_nanoseconds(instant: datetime) -> int:
    """Nanoseconds since 1970 of a zone-aware datetime, exactly. Raises ValueError for a naive one."""
    if instant.tzinfo is None:
        raise ValueError(f"{instant} has no time zone")
    since = instant - EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds * MICROSECOND


def to_datetime(nanoseconds: int) -> datetime:
    """The UTC datetime of a position, rounded down to a microsecond."""
    return EPOCH + timedelta(microseconds=nanoseconds // MICROSECOND)
