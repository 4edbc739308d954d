"""Half-open ranges of cursor positions, and sets of them.

A position is an integer, whatever the cursor's type (see `cursor.py`), so the algebra of planning is exact.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """`[start, end)`: never empty, never reversed. Raises ValueError for anything else."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError(f"an empty range: [{self.start}, {self.end})")

    def clamp(self, within: Range) -> Range | None:
        """The part of this range inside `within`, or None where they do not meet."""
        start, end = max(self.start, within.start), min(self.end, within.end)
        return Range(start, end) if start < end else None


@dataclass(frozen=True, slots=True)
class Ranges:
    """A set of positions as sorted, disjoint, non-touching ranges; built from any ranges by `Ranges.of`."""

    items: tuple[Range, ...] = ()

    @classmethod
    def of(cls, ranges: Iterable[Range]) -> Ranges:
        merged: list[Range] = []
        for one in sorted(ranges):
            if merged and one.start <= merged[-1].end:
                merged[-1] = Range(merged[-1].start, max(merged[-1].end, one.end))
            else:
                merged.append(one)
        return cls(tuple(merged))

    def __iter__(self) -> Iterator[Range]:
        return iter(self.items)

    def __bool__(self) -> bool:
        return bool(self.items)

    def __contains__(self, position: int) -> bool:
        at = bisect_right(self.items, position, key=lambda one: one.start) - 1
        return at >= 0 and position < self.items[at].end

    def union(self, other: Iterable[Range]) -> Ranges:
        return Ranges.of((*self.items, *other))

    def within(self, window: Range) -> Ranges:
        return Ranges(tuple(part for one in self.items if (part := one.clamp(window)) is not None))

    def minus(self, other: Ranges) -> Ranges:
        """What is here and not in `other`."""
        left: list[Range] = []
        for one in self.items:
            start = one.start
            for hole in other.within(one):
                if start < hole.start:
                    left.append(Range(start, hole.start))
                start = hole.end
            if start < one.end:
                left.append(Range(start, one.end))
        return Ranges(tuple(left))

    def unbroken_from(self, start: int) -> int:
        """The end of the unbroken run of positions from `start`; `start` itself where none begins there."""
        for one in self.items:
            if one.start <= start < one.end:
                return one.end
        return start
