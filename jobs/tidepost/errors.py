"""What can go wrong, by what the caller can do about it.

Each error carries the process's exit code, and up to two lines beside its message: what is safe (`safe`) and
what to type (`hint`). No message ever holds a secret or, above DEBUG, a row's values.
"""

from __future__ import annotations

from typing import ClassVar


class TidepostError(Exception):
    """The root of every error that tidepost raises on purpose.

    message: what happened, naming the file, the key or the row
    safe:    what was kept, and where the mark stands
    hint:    what to change or to type
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, safe: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.safe = safe
        self.hint = hint

    def __str__(self) -> str:
        return "\n  ".join(line for line in (self.message, self.safe, self.hint) if line)


class Misconfigured(TidepostError):
    """The definition, the project or the platform's model must be changed; a retry cannot mend it."""

    exit_code = 2


class Refused(TidepostError):
    """The platform refused rows, or too many rows were rejected: the slice is held until somebody decides."""

    exit_code = 3


class Retryable(TidepostError):
    """Nothing landed and nothing was lost: run again, later.

    retry_after: seconds that the other side asked for, or None
    """

    exit_code = 4

    def __init__(self, message: str, *, safe: str = "", hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, safe=safe, hint=hint)
        self.retry_after = retry_after


class Vanished(Retryable):
    """A finished file is gone before it was made visible; its cut must be staged again."""


class Unknown(TidepostError):
    """A send that may have landed: the destination must be asked before anything is sent again."""

    exit_code = 5


class HeldElsewhere(TidepostError):
    """Another run holds the lease of this cut or delivery."""

    exit_code = 6


class LeaseLost(HeldElsewhere):
    """This process slept through its lease and another one took over: it may not publish nor finish a send."""


class Outdated(TidepostError):
    """Another run got there first: a compare-and-set lost, or a delivery was ended meanwhile. Look again."""

    exit_code = 6


class Differs(TidepostError):
    """Two sides were compared, and rows are lost, missing or there more than once."""

    exit_code = 7
