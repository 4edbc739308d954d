"""Destinations that show less than Arthur does. The sandbox behind them is real; asking them too much is a fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tidepost.model import Proof, Receipt, RowAnswer, StreamName
from tidepost.ports import Destination, Upload, unguarded
from tidepost.ranges import Range


@dataclass
class Showing:
    """A destination that shows no more than `proof` says."""

    whole: Destination
    proof: Proof
    name: str = ""
    loading: float = 0.0

    def __post_init__(self) -> None:
        self.name, self.loading = self.whole.name, self.whole.loading

    def check(self, stream: StreamName, columns: Mapping[str, str]) -> None:
        self.whole.check(stream, columns)

    def send(self, stream: StreamName, upload: Upload) -> Receipt:
        return self.whole.send(stream, upload)

    def send_rows(
        self, stream: StreamName, rows: Sequence[Mapping[str, object]], guard: Any = unguarded
    ) -> Sequence[RowAnswer]:
        raise AssertionError(f"{self.proof} takes no single rows")

    def close_batch(self, batch_id: str, total: int) -> None:
        self.whole.close_batch(batch_id, total)

    def counts(self, stream: StreamName, window: Range) -> Mapping[int, int]:
        assert self.proof is Proof.COUNTS, f"{self.proof} was asked for counts"
        return self.whole.counts(stream, window)

    def ids(self, stream: StreamName, window: Range) -> Iterator[Sequence[str]]:
        raise AssertionError(f"{self.proof} was asked for ids")

    def labels(self, window: Range) -> Iterator[pa.Table]:
        raise AssertionError(f"{self.proof} was asked for labels")

    def close(self) -> None:
        self.whole.close()  # type: ignore[attr-defined]
