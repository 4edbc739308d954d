"""What a comparison found: every row in exactly one number, here and at each destination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from tidepost.ports import Extent
from tidepost.ranges import Range, Ranges


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers that can be added."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(one.name for one in fields(cls))


@dataclass(frozen=True, slots=True)
class There(Numbers):
    """Published rows at one destination, each in exactly one of these but the last two: further rows there.

    arrived:   shown by the destination
    taken:     accepted by one that cannot be asked, so that nobody can say whether they are there
    in_flight: not there, and the delivery is open
    held:      not there, and the delivery waits for a person
    refused:   refused by the destination, and kept
    skipped:   given up by a person
    lost:      not there, and the delivery is closed
    replaced:  labels that had arrived, in whose place a newer one of their inference was sent
    doubled:   further copies of rows that are there
    others:    rows with ids that were never published here
    """

    arrived: int = 0
    taken: int = 0
    in_flight: int = 0
    held: int = 0
    refused: int = 0
    skipped: int = 0
    lost: int = 0
    replaced: int = 0
    doubled: int = 0
    others: int = 0

    @property
    def published(self) -> int:
        unsettled = self.in_flight + self.held + self.refused + self.skipped
        return self.arrived + self.taken + unsettled + self.lost + self.replaced


@dataclass(frozen=True, slots=True)
class Here(Numbers):
    """Rows of the source, each in exactly one of the others.

    gone:       published, and not in the source any more, or labels of files (these are in `published` too)
    duplicates: repeat a row of the same id with the same content
    conflicts:  repeat an id with other content
    rejected:   cannot be sent, or could not be when they were scanned
    waiting:    not scanned yet, or published since the comparison began
    missing:    scanned, and nowhere
    superseded: labels older than one of their inference that is known
    unmatched:  labels that are held until their inference is published
    orphans:    those that are held for longer than the job bears
    """

    source: int = 0
    gone: int = 0
    published: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    waiting: int = 0
    missing: int = 0
    superseded: int = 0
    unmatched: int = 0
    orphans: int = 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """One hour or day of event time.

    start: in microseconds; None for rows that have no event time
    """

    start: int | None
    here: Here
    there: Mapping[str, There]


@dataclass(frozen=True, slots=True)
class LaneNumbers:
    """The numbers of one lane. Where an id is in several lanes, only all of them together add up.

    window: its positions that were compared; those that it still holds were read
    held:   what it holds now; None where the source has it no more
    """

    name: str
    window: Range
    held: Extent | None
    here: Here
    there: Mapping[str, There]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison found. The ids that differ stay in the connection, see `Results.differences`.

    cursor:  the range of the source that was read; None where it was not read, and of a source of lanes
    reasons: why rows were rejected → rows
    lost:    destination → slice → rows that are lost there
    taken:   destination that cannot be asked → slice → rows that it accepted
    unnamed: destination that cannot be asked → of those, rows that it refused without saying which
    missing: where in the cursor missing rows are, within what was scanned; of lanes, in any of them
    lanes:   those of a source that has several, where it was read
    """

    cursor: Range | None
    buckets: tuple[Bucket, ...]
    total: Bucket
    reasons: Mapping[str, int]
    lost: Mapping[str, Mapping[int, int]]
    taken: Mapping[str, Mapping[int, int]]
    unnamed: Mapping[str, int]
    missing: Ranges
    lanes: tuple[LaneNumbers, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether nothing is lost, missing, or there more than once."""
        return not self.total.here.missing and not any(one.lost or one.doubled for one in self.total.there.values())
