"""What a SQL ledger knows of slices and deliveries, for comparing it with the source and with destinations."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, select

from tidepost.ledger.schema import SliceState, cuts, deliveries, slices
from tidepost.ledger.sql import SqlLedger
from tidepost.model import Delivery, DeliveryState, Stream
from tidepost.ranges import Range

SKIPPED = "skipped"
"""Of a delivery that was closed without its rows, in place of its state."""


@dataclass(frozen=True, slots=True)
class SliceAt:
    """A published slice and the range, of its lane, that it was scanned from."""

    sequence: int
    range: Range
    lane: str = ""


class SqlComparing:
    """Beside `ports.Ledger`: reads only."""

    def __init__(self, ledger: SqlLedger) -> None:
        self._database = ledger._database
        self._deliveries = ledger.deliveries

    def slices(self, stream: Stream) -> tuple[SliceAt, ...]:
        """Every published slice, oldest first."""
        chosen = (
            select(slices.c.sequence, cuts.c.start, cuts.c.end, cuts.c.lane)
            .join_from(slices, cuts, slices.c.cut == cuts.c.id)
            .where(slices.c.stream == stream.id, slices.c.state == SliceState.PUBLISHED)
            .order_by(slices.c.sequence)
        )
        with self._database.read() as connection:
            return tuple(
                SliceAt(row.sequence, Range(row.start, row.end), row.lane) for row in connection.execute(chosen)
            )

    def states(self, stream: Stream, destination: str) -> dict[int, str]:
        """The state of every delivery there, by slice; `SKIPPED` for one that was skipped."""
        chosen = select(deliveries.c.sequence, deliveries.c.state, deliveries.c.reason).where(
            deliveries.c.stream == stream.id, deliveries.c.destination == destination
        )
        with self._database.read() as connection:
            return {
                row.sequence: SKIPPED
                if row.state == DeliveryState.CLOSED and row.reason.startswith("skipped: ")
                else str(row.state)
                for row in connection.execute(chosen)
            }

    def closed(self, stream: Stream, destination: str) -> dict[int, float]:
        """When each delivery there closed that did, by slice."""
        chosen = select(deliveries.c.sequence, deliveries.c.closed_at).where(
            deliveries.c.stream == stream.id,
            deliveries.c.destination == destination,
            deliveries.c.state == DeliveryState.CLOSED,
        )
        with self._database.read() as connection:
            return {row.sequence: row.closed_at for row in connection.execute(chosen)}

    def left_out(self, stream: Stream, destination: str) -> dict[int, int]:
        """Slice → rows of its closed delivery that did not arrive, where there are any."""
        chosen = select(deliveries.c.sequence, deliveries.c.rows - deliveries.c.arrived).where(
            deliveries.c.stream == stream.id,
            deliveries.c.destination == destination,
            deliveries.c.state == DeliveryState.CLOSED,
            deliveries.c.arrived < deliveries.c.rows,
        )
        with self._database.read() as connection:
            return {int(sequence): int(rows) for sequence, rows in connection.execute(chosen)}

    def delivery(self, stream: Stream, destination: str, sequence: int) -> Delivery:
        """One delivery as it is now."""
        this = and_(
            deliveries.c.stream == stream.id,
            deliveries.c.destination == destination,
            deliveries.c.sequence == sequence,
        )
        with self._database.read() as connection:
            number = connection.execute(select(deliveries.c.id).where(this)).scalar_one()
        plain = Delivery(number, sequence, destination, DeliveryState.CLOSED, 0)
        return self._deliveries.current(plain)
