"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes
from typing import Final

_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Where the C library is glibc: see malloc_trim(3)."""


def give_back() -> None:
    """Let the C library return what it keeps of freed memory. glibc keeps some for every thread that ever asked, so a
    process of many cuts, each by threads of its own, would seem to grow with them. Takes about a millisecond."""
    if _TRIM is not None:
        _TRIM(0)
