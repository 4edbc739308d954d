"""Which data files a SQL ledger lets go, and that they went."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ScalarSelect, Select, and_, exists, func, select, update

from tidepost.ledger.contents import read_parts
from tidepost.ledger.plans import lock
from tidepost.ledger.schema import SliceState, deliveries, parts, slices
from tidepost.ledger.sql import SqlLedger
from tidepost.model import DeliveryState, Stream
from tidepost.ports import PartRef


class SqlPurging:
    """Beside `ports.Ledger`: what a purge needs. Each write is one transaction."""

    def __init__(self, ledger: SqlLedger) -> None:
        self._database = ledger._database

    def purgeable(self, stream: Stream, destinations: Sequence[str], keep: float) -> tuple[tuple[int, int], ...]:
        """The published slices, oldest first, with a file that is kept and may go, each with its cut: each
        destination has closed the slice, more than `keep` seconds ago. A destination that has no delivery of it yet
        pins it."""
        with self._database.read() as connection:
            before = self._database.now(connection) - keep
            chosen = _purgeable(stream, destinations, before).order_by(slices.c.sequence)
            return tuple((row.sequence, row.cut) for row in connection.execute(chosen))

    def purge(self, stream: Stream, sequence: int, destinations: Sequence[str], keep: float) -> bool:
        """Mark the files of a slice as purged; False where it may not go, or not any more."""
        with self._database.write() as connection:
            lock(connection, stream)  # a delivery that is reopened or enrolled meanwhile is seen, or sees this
            now = self._database.now(connection)
            may = _purgeable(stream, destinations, now - keep).where(slices.c.sequence == sequence)
            if connection.execute(may).first() is None:
                return False
            these = (parts.c.stream == stream.id, parts.c.sequence == sequence, parts.c.purged_at.is_(None))
            connection.execute(update(parts).where(*these).values(purged_at=now))
            return True

    def parts(self, stream: Stream, sequence: int) -> tuple[PartRef, ...]:
        """The parts of a slice, purged or not."""
        with self._database.read() as connection:
            return read_parts(connection, [(parts.c.stream == stream.id, parts.c.sequence == sequence)])

    def purged(self, stream: Stream) -> dict[str, tuple[int, int]]:
        """The parts that are purged: path → slice and its cut."""
        of_slice = and_(parts.c.stream == slices.c.stream, parts.c.sequence == slices.c.sequence)
        chosen = (
            select(parts.c.path, parts.c.sequence, slices.c.cut)
            .join_from(parts, slices, of_slice)
            .where(parts.c.stream == stream.id, parts.c.purged_at.is_not(None))
        )
        with self._database.read() as connection:
            return {row.path: (row.sequence, row.cut) for row in connection.execute(chosen)}


def _purgeable(stream: Stream, destinations: Sequence[str], before: float) -> Select[tuple[int, int]]:
    kept = exists().where(
        parts.c.stream == slices.c.stream, parts.c.sequence == slices.c.sequence, parts.c.purged_at.is_(None)
    )
    return select(slices.c.sequence, slices.c.cut).where(
        slices.c.stream == stream.id,
        slices.c.state == SliceState.PUBLISHED,
        kept,
        _closed(destinations, before) == len(set(destinations)),
    )


def _closed(destinations: Sequence[str], before: float) -> ScalarSelect[int]:
    """How many of the destinations have closed the slice before then."""
    return (
        select(func.count())
        .where(
            deliveries.c.stream == slices.c.stream,
            deliveries.c.sequence == slices.c.sequence,
            deliveries.c.destination.in_(set(destinations)),
            deliveries.c.state == DeliveryState.CLOSED,
            deliveries.c.closed_at < before,
        )
        .scalar_subquery()
    )
