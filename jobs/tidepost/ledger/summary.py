"""What reports answer with: frozen values, from which `status.py` and the commands derive what they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidepost.model import DeliveryState, ScanKind, StreamName
from tidepost.ranges import Range, Ranges


@dataclass(frozen=True, slots=True)
class OpenSlice:
    """A published slice that a destination has not closed.

    state: open or held
    """

    sequence: int
    kind: ScanKind
    range: Range
    lane: str
    state: DeliveryState


@dataclass(frozen=True, slots=True)
class DestinationSummary:
    """A stream at one destination.

    deliveries, rows: by state; states without any are left out
    arrived, refused: rows
    oldest:           per lane, where the oldest open or held slice of an incremental scan starts: the caps of the
                      mark; no entry where nothing caps it
    others:           open or held slices of other scans, by sequence; those below the mark are shown with it
    last_closed_at:   None before the first
    """

    destination: str
    deliveries: Mapping[DeliveryState, int]
    rows: Mapping[DeliveryState, int]
    arrived: int
    refused: int
    oldest: Mapping[str, int]
    others: tuple[OpenSlice, ...]
    last_closed_at: float | None


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """One stream of a job.

    scanned:           per lane; the frontier is the unbroken run from the job's start
    open_cuts:         cuts that are planned or being published
    slices, rows, size: published; size in bytes
    duplicates:        rows dropped as duplicates, over all cuts that are done
    rejected:          reason → rows set aside, over all cuts that are done
    late_rows:         rows that lookback scans found
    late:              how far below the top the earliest of those was that were found in the last week, in seconds
    superseded:        labels left out as a newer one of their inference is known, over all cuts that are done
    waiting:           labels that are held until their inference is published
    null_cursors:      as the newest cut that is done counted them; each counts all that the source has then
    publishing:        the slice that is being published, or None
    last_published_at: None before the first
    last_run_at:       when a run last ended, or a plan was last written, whichever is later
    """

    job: str
    name: StreamName
    scanned: Mapping[str, Ranges]
    open_cuts: int
    slices: int
    rows: int
    size: int
    duplicates: int
    rejected: Mapping[str, int]
    late_rows: int
    late: float
    null_cursors: int
    publishing: int | None
    last_published_at: float | None
    last_run_at: float | None
    destinations: tuple[DestinationSummary, ...]
    superseded: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class RejectedCut:
    """A cut that is done and set rows aside.

    sequence: of its slice, None where nothing of it was published
    reasons:  reason → rows
    at:       when it was done
    """

    cut: int
    kind: ScanKind
    range: Range
    lane: str
    sequence: int | None
    reasons: Mapping[str, int]
    at: float


@dataclass(frozen=True, slots=True)
class SliceRow:
    """A published slice in a listing.

    size:   bytes
    held:   why its deliveries are held, or None
    states: destination → state
    at:     when it was published
    """

    sequence: int
    cut: int
    kind: ScanKind
    range: Range
    lane: str
    rows: int
    size: int
    held: str | None
    states: Mapping[str, DeliveryState]
    at: float


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What somebody did by hand, or the ledger on their word."""

    at: float
    who: str
    what: str
    old: str
    new: str
    why: str
