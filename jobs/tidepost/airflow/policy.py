"""Which errors of a task a retry can mend."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from airflow.sdk import RetryAction, RetryDecision, RetryPolicy

from tidepost.errors import Differs, HeldElsewhere, Misconfigured, Refused, Retryable, Unknown

LONGEST: Final = 3600.0
"""Seconds that a platform's wish to be left alone is heeded at most."""


class Retries(RetryPolicy):
    """Fails at once on what no retry can mend; comes back when a platform says; otherwise as the task has it.

    | error                       | decision                                                        |
    |-----------------------------|-----------------------------------------------------------------|
    | Misconfigured               | fail: the definition, the project or the platform must change   |
    | Refused, Differs            | fail: a person decides about rows                               |
    | Retryable                   | retry, after `retry_after` where the other side named it        |
    | Unknown, HeldElsewhere      | retry: the next try asks the platform, or finds the lease free  |
    | anything else               | as the task has it: retries, then failure                       |
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        kind = type(exception).__name__
        if isinstance(exception, (Misconfigured, Refused, Differs)):
            return RetryDecision(RetryAction.FAIL, reason=f"{kind}: no retry can mend it")
        if isinstance(exception, Retryable) and exception.retry_after is not None:
            delay = min(max(exception.retry_after, 1.0), LONGEST)
            return RetryDecision(RetryAction.RETRY, timedelta(seconds=delay), f"{kind}: asked to wait {delay:.0f} s")
        if isinstance(exception, (Retryable, Unknown, HeldElsewhere)):
            return RetryDecision(RetryAction.RETRY, reason=f"{kind}: nothing was lost")
        return RetryDecision(RetryAction.DEFAULT)
