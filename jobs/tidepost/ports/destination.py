"""Who receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from tidepost.model import Proof, Receipt, RowAnswer, StreamName

if TYPE_CHECKING:
    import pyarrow as pa

    from tidepost.ranges import Range


def unguarded() -> float:
    """A guard that lets everything pass, for ever."""
    return float("inf")


@dataclass(frozen=True, slots=True)
class Upload:
    """One part on its way to a destination.

    size:  bytes
    open:  opens the part's bytes anew, so that each attempt sends the whole body
    guard: called before the last bytes leave: until when, by the monotonic clock, they may; raises LeaseLost where
           this process may not finish the send
    """

    name: str
    rows: int
    size: int
    open: Callable[[], IO[bytes]]
    guard: Callable[[], float]
    batch_id: str | None = None


class Destination(Protocol):
    """A platform that receives. It trusts no answer that it cannot check.

    name:    of its deliveries in the ledger
    proof:   what it can show. Only one that shows `rows` is ever given rows one by one or asked for ids and labels,
             and one that shows no more than its `receipt` is not asked for counts either
    loading: seconds that it may take to load what it accepted

    The event time of a label is its ground-truth timestamp. A platform holds one label an id, the last one that it
    loaded: a label that was replaced is counted and found no more, so that counts say little where labels change.
    """

    name: str
    proof: Proof
    loading: float

    def check(self, stream: StreamName, columns: Mapping[str, str]) -> None:
        """Compare the staged columns (name → DuckDB type) with what it expects, before anything is sent.

        Raises Misconfigured (wrong key, no such model, a missing or wrongly typed attribute), Retryable
        (unreachable).
        """

    def send(self, stream: StreamName, upload: Upload) -> Receipt:
        """Send one file. Retries by itself only what provably did not land.

        Raises Retryable (provably did not land), Refused (refused as a whole), Misconfigured (key or model),
        Unknown (may have landed), LeaseLost.
        """

    def send_rows(
        self, stream: StreamName, rows: Sequence[Mapping[str, object]], guard: Callable[[], float] = unguarded
    ) -> Sequence[RowAnswer]:
        """Send rows in the form whose answer names each; `guard` as in `Upload`. Raises as `send` does."""

    def close_batch(self, batch_id: str, total: int) -> None:
        """Say that a batch is complete with `total` rows; repeating it, also with another total, is harmless.
        Raises Retryable, Misconfigured."""

    def counts(self, stream: StreamName, window: Range) -> Mapping[int, int]:
        """Rows that arrived, by hour of event time; `window` is in hours. Raises Retryable, Misconfigured."""

    def ids(self, stream: StreamName, window: Range) -> Iterator[Sequence[str]]:
        """The partner inference ids that arrived with event times in a window of microseconds, in batches of
        bounded size; an id that arrived twice is given twice. Raises Retryable, Misconfigured."""

    def labels(self, window: Range) -> Iterator[pa.Table]:
        """The labels that it holds with event times in a window of microseconds, in tables of bounded size. They
        show which value is there, as an id does not.

        Columns: `partner_inference_id`, `ground_truth_timestamp` (with a zone), and every label attribute under its
        name and in the type that the platform holds it in: a staged value is the same if it is equal after a cast
        to that. Times may be truncated to whole milliseconds. Raises Retryable, Misconfigured.
        """
