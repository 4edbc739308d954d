"""Comparing a source of lanes: what of each is read again, and its numbers.

The joins know one line of positions; each lane has a stretch of it for itself. What was read once and is gone is no
difference: a lane keeps its rows for a while only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tidepost.ledger.comparing import SliceAt
from tidepost.ports import Extent, OfLanes, Source
from tidepost.ranges import Range, Ranges

STRETCH: Final = 2**64
"""How many positions of the line a lane has."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane that is compared; the one without a name is the whole of a source that has none.

    number:  its stretch of the line begins at `number * STRETCH`
    window:  what of it is compared
    held:    what the source holds of it now; None where the source has no such lane, or no lanes at all
    reads:   what of it is read: of lanes, what of the window was scanned and is held
    slices:  what was published of it
    """

    name: str
    number: int
    window: Range
    held: Extent | None
    reads: Ranges
    slices: tuple[SliceAt, ...]

    @property
    def base(self) -> int:
        """What is added to its positions on the line."""
        return self.number * STRETCH

    @property
    def dropped(self) -> frozenset[int]:
        """The slices of which the source has let go rows, or all, since they were read."""
        first = None if self.held is None else self.held.first
        return frozenset(one.sequence for one in self.slices if first is None or one.range.start < first)


def lanes_of(
    source: Source, windows: Mapping[str, Range], scanned: Mapping[str, Ranges], slices: Sequence[SliceAt]
) -> tuple[Lane, ...]:
    """The lanes to compare; `windows` says what of each. Raises as `OfLanes.lanes` does."""
    if not isinstance(source, OfLanes):
        return tuple(Lane(name, 0, one, None, Ranges((one,)), ()) for name, one in windows.items())
    held = source.lanes()
    found: list[Lane] = []
    for number, (name, window) in enumerate(sorted(windows.items())):
        has = held.get(name)
        there = None if has is None or has.first == has.end else window.clamp(Range(has.first, has.end))
        reads = Ranges() if there is None else scanned.get(name, Ranges()).within(there)
        own = tuple(one for one in slices if one.lane == name)
        found.append(Lane(name, number, window, has, reads, own))
    return tuple(found)


def on_the_line(lane: Lane, of: Ranges) -> Ranges:
    """Ranges of a lane as ranges of the line."""
    return Ranges(tuple(Range(one.start + lane.base, one.end + lane.base) for one in of))


def in_the_lane(lane: Lane, of: Ranges) -> Ranges:
    """The reverse."""
    return Ranges(tuple(Range(one.start - lane.base, one.end - lane.base) for one in of))
