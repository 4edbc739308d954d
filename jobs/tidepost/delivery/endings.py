"""What becomes of a delivery once its destination was looked at: it closes, is held for a person, or goes again."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import pyarrow as pa

from tidepost.definition.job import Job
from tidepost.delivery.deliver import Courier, Looked, Parcel
from tidepost.events import Settled
from tidepost.model import DeliveryState, Proof, SendState
from tidepost.rows.rejects import by_hour, read_rejects, refused_key


@dataclass(frozen=True, slots=True)
class Endings:
    """Writes what becomes of deliveries to the ledger. Everything here raises LeaseLost."""

    courier: Courier
    job: Job

    def close(
        self, parcel: Parcel, proof: Proof, *, refused: Mapping[int, int] | None = None, lost: int | None = None
    ) -> None:
        """Close a delivery, or hold it where too much of it was refused.

        refused: by hour, where no rows were kept that tell
        lost:    of its rows, where nothing tells their hours
        """
        refused = by_hour(self.refused(parcel)) if refused is None else refused
        lost = sum(refused.values()) if lost is None else lost
        limit = self.job.limits.rejects
        over = not parcel.delivery.released and limit.exceeded(rejects=lost, candidates=parcel.delivery.rows)
        parcel.delivery = self.courier.ledger.deliveries.settle(
            parcel.lease,
            parcel.delivery,
            DeliveryState.HELD if over else DeliveryState.CLOSED,
            arrived=parcel.delivery.rows - lost,
            refused=refused,
            reason=f"{lost} of {parcel.delivery.rows} rows refused, over the limit of {limit}" if over else "",
            proof=proof,
        )
        self.end(parcel)

    def hold(self, parcel: Parcel, reason: str) -> None:
        """Leave a delivery to a person, with what is known of it."""
        self.settle(parcel, DeliveryState.HELD, reason)
        self.end(parcel)

    def again(self, parcel: Parcel, reason: str) -> None:
        """Let the files that are to be sent go again."""
        self.settle(parcel, DeliveryState.TODO, reason)
        parcel.looked = Looked()

    def settle_sent(self, parcel: Parcel) -> None:
        """Wait for what was sent row by row."""
        refused = by_hour(self.refused(parcel))
        state = DeliveryState.UNKNOWN if parcel.unanswered() else DeliveryState.SENT
        parcel.delivery = self.courier.ledger.deliveries.settle(
            parcel.lease, parcel.delivery, state, refused=refused, reason=""
        )
        parcel.looked = Looked()

    def settle(self, parcel: Parcel, state: DeliveryState, reason: str) -> None:
        """Put a delivery into another state."""
        parcel.delivery = self.courier.ledger.deliveries.settle(parcel.lease, parcel.delivery, state, reason=reason)

    def found(self, parcel: Parcel, *, but: Set[int] = frozenset()) -> None:
        """Answer the sends without an answer: the destination was asked, and what is missing is known."""
        for send in parcel.sends:
            if send.state is SendState.INTENT and send.part not in but:
                self.courier.answer(parcel, send, SendState.ACCEPTED, {"found": "by asking"})

    def refused(self, parcel: Parcel) -> pa.Table:
        """The rows of it that were refused and are kept, as `read_rejects` has them."""
        key = refused_key(self.courier.stream, parcel.slice.sequence, self.courier.destination.name)
        return read_rejects(self.courier.records, key)

    def end(self, parcel: Parcel) -> None:
        """Let a delivery go that is closed or held, and tell of it."""
        self.courier.keeper.release(parcel.lease)
        self.courier.notice(Settled(parcel.delivery))
