"""Leaving destinations that fail alone, each for a while of its own, so that the others need not wait for them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts while something does not answer, the first and at most; each is twice the last one."""


@dataclass(slots=True)
class Rests:
    """Who is left alone. Times are seconds of a clock that does not jump."""

    _found: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By destination: how long it was left alone last, and until when."""

    def resting(self, now: float) -> frozenset[str]:
        """Those that are left alone."""
        return frozenset(name for name, (_, until) in self._found.items() if until > now)

    def until(self, now: float) -> float:
        """When the first of them is tried again; infinity where there are none."""
        return min((until for _, until in self._found.values() if until > now), default=float("inf"))

    def learn(self, tried: Collection[str], failed: Collection[str], now: float) -> None:
        """What became of those that were tried: who failed rests, longer each time, and who did not starts anew."""
        for name in tried:
            if name not in failed:
                self._found.pop(name, None)
                continue
            last = self._found[name][0] if name in self._found else FIRST_PAUSE / 2
            pause = min(LONGEST_PAUSE, last * 2)
            self._found[name] = (pause, now + pause)
