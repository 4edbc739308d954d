"""Turns: when a delivery of labels may go.

At one destination a slice of labels goes once the slices of inferences that it joined are closed there, and so are
the slices that hold earlier labels of its ids. So a label is never sent while another version of it is unsettled,
and what was replaced is settled before what replaced it is sent: nothing older can land later.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidepost.labels.holding import inferences_of
from tidepost.labels.versions import follows
from tidepost.model import Delivery, DeliveryState, Stream, StreamName
from tidepost.ports import Ledger, Records


def in_turn(ledger: Ledger, records: Records, stream: Stream, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Those deliveries of a stream that may go now; of inferences, all. Raises Retryable where the staging does not
    tell what one comes after."""
    if stream.name is StreamName.INFERENCES:
        return list(deliveries)
    inferences = ledger.plans.find(stream.job, inferences_of(stream).name)
    names = {one.destination for one in deliveries}
    before = {name: _unsettled(ledger, inferences, name) for name in names}
    beside = {name: _unsettled(ledger, stream, name) for name in names}
    found: list[Delivery] = []
    for one in deliveries:
        if one.state in (DeliveryState.HELD, DeliveryState.CLOSED):
            found.append(one)  # only told of
            continue
        joined, replaced = follows(records, stream, ledger.deliveries.contents(one)[0].cut)
        if joined.isdisjoint(before[one.destination]) and replaced.isdisjoint(beside[one.destination]):
            found.append(one)
    return found


def _unsettled(ledger: Ledger, stream: Stream | None, destination: str) -> frozenset[int]:
    """The slices of a stream that are not closed at a destination."""
    if stream is None:
        return frozenset()
    ledger.deliveries.enroll(stream, destination)  # one that joined later has closed nothing
    both = (*ledger.deliveries.open(stream, destination), *ledger.deliveries.held(stream, destination))
    return frozenset(one.sequence for one in both)
