"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes
import itertools
from typing import Final

EVERY: Final = 8
"""Cuts. What is given back is asked for again by the next ones, which costs a few percent of their time."""
_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Where the C library is glibc: see malloc_trim(3)."""
_cuts = itertools.count(1)


def give_back() -> None:
    """To be called after each cut: every so often, let the C library return what it keeps of freed memory.

    glibc keeps some for every thread that ever asked, so that a process of many cuts would seem to grow.
    """
    if next(_cuts) % EVERY == 0 and _TRIM is not None:
        _TRIM(0)
