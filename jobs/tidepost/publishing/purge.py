"""Purging: data files go once every destination has closed them and `staging.keep` is over; their ids stay.

For each slice: the sidecars of its parts are written, one ledger transaction marks the parts as purged, then the
files go. Killed between any two, the next purge goes on: a file that is marked and still there is dropped first. A
slice that a destination has not closed keeps its files, however long the destination is down.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import duckdb

from tidepost.engine import Engine, translated
from tidepost.errors import HeldElsewhere
from tidepost.leases import Keeper
from tidepost.ledger.purging import SqlPurging
from tidepost.ledger.sql import SqlLedger
from tidepost.model import Lease, Stream
from tidepost.ports import PartRef, Records, Staging
from tidepost.publishing.publish import agree
from tidepost.rows.index import write_sidecar


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge of a stream dropped, or would drop.

    size:  bytes of the files that went
    left:  bytes of the sidecars that stay for them; 0 where nothing was done
    busy:  slices that somebody else works on, left for the next purge
    """

    slices: int = 0
    parts: int = 0
    rows: int = 0
    size: int = 0
    left: int = 0
    busy: int = 0


@dataclass(frozen=True, slots=True)
class Purge:
    """What purging a stream needs.

    destinations: of the job; each pins what it has not closed
    keep:         seconds that files stay after the last of them closed
    """

    stream: Stream
    ledger: SqlLedger
    staging: Staging
    records: Records
    destinations: Sequence[str]
    keep: float

    def look(self) -> Purged:
        """What may go now. Changes nothing."""
        purging, found = SqlPurging(self.ledger), Purged()
        for sequence, _ in purging.purgeable(self.stream, self.destinations, self.keep):
            found = _with(found, [one for one in purging.parts(self.stream, sequence) if not one.part.purged])
        return found

    def purge(self, engine: Engine, owner: str) -> Purged:
        """Drop what may go. Raises Misconfigured where the ledger is not the staging's, or a file is not what was
        published; Retryable for a disk or a ledger that does not answer. Nothing is lost by either."""
        agree(self.ledger, self.records, self.stream)
        purging, found = SqlPurging(self.ledger), Purged()
        with Keeper(self.ledger, owner) as keeper, engine.connect() as connection:
            self._drop_what_was_marked(purging, keeper)
            for sequence, cut in purging.purgeable(self.stream, self.destinations, self.keep):
                try:
                    with keeper.holding("cut", cut) as lease:
                        parts = [one for one in purging.parts(self.stream, sequence) if not one.part.purged]
                        left = sum(self._sidecar(connection, one) for one in parts)
                        keeper.guard(lease)
                        if purging.purge(self.stream, sequence, self.destinations, self.keep):
                            self._drop(keeper, lease, parts)
                            found = _with(found, parts, left=left)
                except HeldElsewhere:
                    found = replace(found, busy=found.busy + 1)
        return found

    def _sidecar(self, connection: duckdb.DuckDBPyConnection, one: PartRef) -> int:
        try:
            return write_sidecar(connection, self.staging, self.records, self.stream, one, columns=self.stream.pinned)
        except duckdb.Error as error:
            raise translated(error, f"staging: {self.stream.prefix}/{one.part.path}") from error

    def _drop(self, keeper: Keeper, lease: Lease, parts: Sequence[PartRef]) -> None:
        for one in parts:
            keeper.guard(lease)  # whoever takes over may stage them again
            self.staging.withdraw(self.stream, one.part)

    def _drop_what_was_marked(self, purging: SqlPurging, keeper: Keeper) -> None:
        """Drop the files whose purge died after it was recorded."""
        prefix = f"{self.stream.prefix}/"
        purged = purging.purged(self.stream)
        there = {key.removeprefix(prefix) for key in self.records.list(f"{prefix}data")} if purged else set()
        for sequence, cut in sorted({purged[path] for path in there & purged.keys()}):
            with suppress(HeldElsewhere), keeper.holding("cut", cut) as lease:
                self._drop(keeper, lease, [one for one in purging.parts(self.stream, sequence) if one.part.purged])


def _with(found: Purged, parts: Sequence[PartRef], *, left: int = 0) -> Purged:
    return replace(
        found,
        slices=found.slices + 1,
        parts=found.parts + len(parts),
        rows=found.rows + sum(one.part.rows for one in parts),
        size=found.size + sum(one.part.size for one in parts),
        left=found.left + left,
    )
