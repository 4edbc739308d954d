"""The nouns of tidepost: frozen values that the engine, the ledger and the adapters pass to each other.

Positions are integers (see `cursor.py`); event times are microseconds since 1970, UTC; hours are whole hours
since 1970, UTC; instants of the ledger (`at`, `until`) are seconds since 1970 as floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tidepost.ranges import Range, Ranges

MICROSECONDS_AN_HOUR = 3_600_000_000


class StreamName(StrEnum):
    INFERENCES = "inferences"
    GROUND_TRUTH = "ground_truth"

    @property
    def time(self) -> str:
        """The staged column that is the event time of its rows."""
        return "inference_timestamp" if self is StreamName.INFERENCES else "ground_truth_timestamp"


class ScanKind(StrEnum):
    INCREMENTAL = "incremental"
    LOOKBACK = "lookback"
    BACKFILL = "backfill"
    REPAIR = "repair"


class CutState(StrEnum):
    PLANNED = "planned"
    PUBLISHING = "publishing"
    DONE = "done"


class DeliveryState(StrEnum):
    TODO = "todo"
    SENDING = "sending"
    SENT = "sent"
    UNKNOWN = "unknown"
    HELD = "held"
    CLOSED = "closed"


OPEN_DELIVERIES = (DeliveryState.TODO, DeliveryState.SENDING, DeliveryState.SENT, DeliveryState.UNKNOWN)


class Proof(StrEnum):
    """What a destination can show of what arrived, strongest first."""

    ROWS = "rows"
    COUNTS = "counts"
    RECEIPT = "receipt"


class SendForm(StrEnum):
    FILE = "file"
    ROWS = "rows"


class SendState(StrEnum):
    """`intent`: durable before the first byte. The others are what was learnt of it since. `unknown` is final: the
    destination cannot be asked, so that a person or `on_unknown` decides."""

    INTENT = "intent"
    ACCEPTED = "accepted"
    ABSENT = "absent"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Stream:
    """One of a job's two flows, as the ledger knows it.

    id:        the ledger's number of it
    published: the sequence number of the newest published slice, 0 before the first; publishing compares it
    planned:   grows by one with every plan; planning compares it
    allotted:  the newest sequence number that was given to a slice, published or not
    pinned:    the staged column types (name → DuckDB type) that the first slice pinned; empty before it
    columns:   the source's columns (name → DuckDB type) as the newest run that compared them left them
    """

    id: int
    job: str
    name: StreamName
    published: int = 0
    planned: int = 0
    allotted: int = 0
    pinned: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """The stream's folder in the staging, without a slash at its end."""
        return f"{self.job}/{self.name}"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. A plan belongs to its request: the same key gets the same cuts again.

    key:    unique within the stream; from Airflow its dag id, run id and the hash of what was asked
    window: what to scan; None for an incremental run, which takes what is new
    """

    key: str
    kind: ScanKind
    window: Range | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """One piece of a scan's range, durable before anything is done: the unit of work and of retry.

    id:        the ledger's number of it, 0 while it is only planned in memory
    lane:      "" for sources with one cursor; "topic/partition" for Kafka
    estimated: rows that planning expects, or None
    """

    id: int
    kind: ScanKind
    range: Range
    lane: str = ""
    estimated: int | None = None
    state: CutState = CutState.PLANNED


@dataclass(frozen=True, slots=True)
class Coverage:
    """What of a stream's cursor is already scanned, or promised to a cut that is still open, per lane.

    version: the stream's `planned` count that this was read at; a plan is written only if it still holds
    """

    version: int
    scanned: Mapping[str, Ranges] = field(default_factory=dict)
    planned: Mapping[str, Ranges] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A range of the cursor, and what the scan that looked at it last has seen there.

    rows: all that the scan returned, whatever became of them
    ids:  the sum of their ids (see `lookback.py`); None for a range that a person passed over
    """

    range: Range
    rows: int
    ids: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one cut or one delivery until `until`. `fence` grows with each new holder.

    kind: "cut" or "delivery"
    """

    kind: str
    ref: int
    owner: str
    fence: int
    until: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is sent to a destination until somebody says otherwise: who said so, when, in seconds since 1970, and
    why."""

    who: str
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class Part:
    """One finished parquet file of a slice.

    path:   below the stream's folder: `data/event_day=2013-01-03/00000007-00000.parquet`
    size:   bytes
    token:  how the staging finds the finished, not yet visible file again (a scratch path, an upload id)
    hours:  rows by hour of event time
    purged: its file was dropped; its ids are in a sidecar (see `index.py`)
    """

    number: int
    path: str
    rows: int
    size: int
    sha256: str
    event_min: int
    event_max: int
    hours: Mapping[int, int]
    token: str = ""
    batch_id: str | None = None
    purged: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the rows that one cut's scan returned; every one of them is in exactly one number.

    published:    rows in the slice
    duplicates:   rows dropped because an equal row of the same id was published, or stands in this slice
    known:        in a scan that looks again: rows that were published, or set aside, when they were scanned before
    superseded:   labels left out as a newer one of their inference is known
    waiting:      labels held until their inference is published
    rejected:     reason → rows set aside (conflicts and `changed_after_sent` included)
    null_cursors: rows of the source whose cursor is NULL, which no range can hold; not part of `scanned`
    ids:          the sum of the ids of all rows scanned (see `lookback.py`); empty where nobody summed them
    late:         in a lookback scan: how far below the top the earliest of the published rows was, in seconds
    """

    scanned: int = 0
    published: int = 0
    duplicates: int = 0
    known: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    null_cursors: int = 0
    ids: str = ""
    late: float = 0.0
    superseded: int = 0
    waiting: int = 0

    def __post_init__(self) -> None:
        left_out = self.duplicates + self.known + self.superseded + self.waiting
        if self.scanned != self.published + left_out + self.rejects:
            raise ValueError(f"rows unaccounted for: {self}")

    @property
    def rejects(self) -> int:
        return sum(self.rejected.values())

    def plus(self, other: Tally) -> Tally:
        """Both together, without the ids."""
        reasons = {*self.rejected, *other.rejected}
        return Tally(
            scanned=self.scanned + other.scanned,
            published=self.published + other.published,
            duplicates=self.duplicates + other.duplicates,
            known=self.known + other.known,
            rejected={name: self.rejected.get(name, 0) + other.rejected.get(name, 0) for name in sorted(reasons)},
            null_cursors=max(self.null_cursors, other.null_cursors),
            late=max(self.late, other.late),
            superseded=self.superseded + other.superseded,
            waiting=self.waiting + other.waiting,
        )


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of one cut that the index did not hold, frozen when published.

    sequence: its name; grows with each slice of the stream and is never used twice
    held:     why its deliveries are held for a person, or None
    joined:   of labels, the days since 1970 (UTC) of their inferences, ascending; see `versions.py`
    """

    sequence: int
    cut: int
    kind: ScanKind
    range: Range
    parts: tuple[Part, ...]
    tally: Tally
    lane: str = ""
    held: str | None = None
    joined: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def hours(self) -> dict[int, int]:
        """Rows by hour of event time."""
        total: dict[int, int] = {}
        for part in self.parts:
            for hour, rows in part.hours.items():
                total[hour] = total.get(hour, 0) + rows
        return total


@dataclass(frozen=True, slots=True)
class Delivery:
    """One slice at one destination.

    rows:    to arrive
    arrived: shown to have arrived, at the strongest proof there is
    refused: refused by the destination, and kept as rejects
    reason:  why it is held or unknown; empty otherwise
    released: when a person last let it go after it was held, by the ledger's clock: no limit of before holds it again
    reopened: when, in seconds since 1970, it was opened again after it was closed, as rows of it were not there
              any more; None where it never was. What was sent before that is no attempt at what is missing now
    unknown:  since when, by the ledger's clock, it is unknown: all that was sent of it had left by then; else None
    """

    id: int
    sequence: int
    destination: str
    state: DeliveryState
    rows: int
    arrived: int = 0
    refused: int = 0
    reason: str = ""
    released: float | None = None
    reopened: float | None = None
    unknown: float | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """One request, or one group of row requests, to a destination; its intent is durable before its first byte.

    at:       when the intent was written
    answered: when its outcome was written down, None while it is an intent
    """

    id: int
    delivery: int
    part: int
    attempt: int
    form: SendForm
    rows: int
    at: float
    state: SendState = SendState.INTENT
    detail: str = ""
    answered: float | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a destination answered to one send.

    accepted, failed: rows, by its own count; they add up to what was sent, or the answer is not believed
    messages:         a few of its own words on failed rows, without row values
    """

    accepted: int
    failed: int
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What a destination said of one row that was sent in the form whose answer names rows.

    no_inference: it refused a label, as it knows no inference of that id
    """

    partner_inference_id: str
    accepted: bool
    already_there: bool = False
    message: str = ""
    no_inference: bool = False
