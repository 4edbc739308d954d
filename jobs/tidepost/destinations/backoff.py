"""When to try again: full jitter, exponential, and never earlier than the other side asked for."""

from __future__ import annotations

import logging
import random as randomness
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

from tidepost.errors import Retryable

LONGEST_WAIT: Final = 60.0
"""Seconds that one wait of ours grows to."""
LONGEST_ASKED: Final = 120.0
"""Seconds of `Retry-After` that are waited for here; a longer one is left to the caller."""

_log = logging.getLogger("tidepost.destinations")

T = TypeVar("T")


class NotLanded(Exception):
    """An attempt that left nothing behind, so that it may be repeated.

    retry_after: seconds that the other side asked for, or None
    """

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Backoff:
    """Repeats attempts that did not land.

    retries: attempts after the first
    random:  between 0 and 1
    """

    retries: int
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = randomness.random
    base: float = 0.5

    def run(self, what: str, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, once it does not raise NotLanded.

        Raises Retryable after the last attempt, or at once where the other side asked for more than
        `LONGEST_ASKED` seconds. Everything else that `attempt` raises passes through.
        """
        for tried in range(self.retries + 1):
            try:
                return attempt()
            except NotLanded as failure:
                asked = failure.retry_after
                if tried == self.retries or (asked or 0.0) > LONGEST_ASKED:
                    times = "" if tried == 0 else f" ({tried + 1} attempts)"
                    raise Retryable(f"{what}: {failure.reason}{times}", retry_after=asked) from failure
                wait = (asked or 0.0) + self.random() * min(LONGEST_WAIT, self.base * 2**tried)
                _log.info("%s: %s; attempt %d follows in %.1f s", what, failure.reason, tried + 2, wait)
                self.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")


def retry_after(headers: Mapping[str, str], *, clock: Callable[[], float] = time.time) -> float | None:
    """Seconds of `Retry-After` (RFC 9110, 10.2.3: seconds, or an HTTP date), never negative; None where there is
    none or it makes no sense. A date is measured against the answer's own `Date`, as clocks differ."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    until = _instant(text)
    if until is None:
        return None
    now = _instant(headers.get("Date", ""))
    return max(0.0, until - (clock() if now is None else now))


def _instant(text: str) -> float | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
