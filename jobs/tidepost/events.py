"""What a run tells while it goes on: frozen values, from which the command line draws its progress and its log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tidepost.model import Cut, Delivery, Part, Receipt, Slice, Tally


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run is going to do. `resumed`: open cuts and deliveries of earlier runs that are finished first.

    null_cursors: rows of the source that no scan can find, as their cursor is NULL
    bound:        the end of what this run may read, as text; None where nothing is visible
    """

    cuts: tuple[Cut, ...]
    resumed: int
    null_cursors: int
    bound: str | None


@dataclass(frozen=True, slots=True)
class CutStaged:
    """A cut was read and published; `slice` is None where nothing of it was new. Seconds it took."""

    cut: Cut
    tally: Tally
    slice: Slice | None
    seconds: float


@dataclass(frozen=True, slots=True)
class PartSent:
    """A destination accepted a file; it has not shown yet that its rows arrived."""

    destination: str
    sequence: int
    part: Part
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rows are still loading at a destination. Seconds until the missing ones are sent in another form."""

    destination: str
    deliveries: int
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Settled:
    """A delivery is closed or held."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that loses nothing and should be looked at."""

    text: str


@dataclass(frozen=True, slots=True)
class Following:
    """Which lanes are followed from now on; none while others have them all, or before they are shared out."""

    lanes: tuple[str, ...]


Event = Planned | CutStaged | PartSent | Waiting | Settled | Warned | Following
Notice = Callable[[Event], None]
