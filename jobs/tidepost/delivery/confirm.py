"""Confirming: a delivery closes when the destination shows its rows, not when it says yes.

Rows are counted by event hour first, which costs one question for many deliveries. Where counts cannot prove
anything (something of unknown outcome is in play, others write too) or differ, the ids are asked for. What does not
show is loading, until the destination's time for that is over and two looks in a row saw no change; then

* a file of unknown outcome, none of whose rows is there, did not land, and is sent again as a file, and so is one
  of a delivery that was reopened;
* other missing rows go once in the form whose answer names each: accepted, already there, or refused.

A destination that shows less is asked for less. Where it shows counts alone, they decide for files; where it shows no
more than a receipt, a delivery closes when every file has one whose numbers add up. What cannot be found out is held
for a person, or sent again where the job says so (`on_unknown`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tidepost.definition.job import DestinationDefinition, Job
from tidepost.delivery.deliver import MOST_FILE_SENDS, Courier, Parcel
from tidepost.delivery.endings import Endings
from tidepost.delivery.mending import Mending
from tidepost.delivery.unshown import disbelieved, let_go, repeats, silent, unheard
from tidepost.engine import Engine
from tidepost.events import Waiting, Warned
from tidepost.labels.versions import follows
from tidepost.model import DeliveryState, Proof, SendForm, SendState, StreamName
from tidepost.ranges import Range
from tidepost.rows.rejects import ID

FIRST_REPEAT = 1.0
"""Seconds before a file that nobody answered is sent again where the job says so; each time twice as long."""


@dataclass(slots=True)
class Confirmer:
    """Confirms deliveries at one destination, many at a time. Seconds throughout; `now` is the courier's."""

    courier: Courier
    job: Job
    engine: Engine
    loading: float
    shared: bool
    now: Callable[[], float]
    endings: Endings = field(init=False)
    mending: Mending = field(init=False)

    def __post_init__(self) -> None:
        self.endings = Endings(self.courier, self.job)
        self.mending = Mending(self.courier, self.engine, self.endings)

    @property
    def to(self) -> DestinationDefinition:
        """The destination as the job defines it."""
        return self.job.to(self.courier.destination.name)

    def look(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Ask once. Returns the parcels that are still open; some of them may have files to deliver again (their
        delivery is `todo`). Raises LeaseLost, Retryable, Misconfigured."""
        if not parcels:
            return []
        if self._proof is Proof.RECEIPT:
            return self._told([parcel for parcel in parcels if not self._by_receipt(parcel)])
        counts, proven = self._counted(parcels)
        waiting: list[Parcel] = []
        last = max(map(self._deadline, parcels))
        for parcel in parcels:
            hours = {hour: counts.get(hour, 0) for hour in parcel.slice.hours}
            if parcel.delivery.id in proven:
                self.endings.close(parcel, Proof.COUNTS)
            elif not self._settled_down(parcel, hours) or not self._decided(parcel, hours, last):
                waiting.append(parcel)
        return self._told(waiting)

    def _decided(self, parcel: Parcel, hours: Mapping[int, int], last: float) -> bool:
        if self._proof is Proof.ROWS:
            return self._by_ids(parcel, hours)
        return self._by_counts(parcel, hours, last)

    @property
    def _proof(self) -> Proof:
        """What the destination can show here: where others write too, its counts show nothing."""
        proof = self.courier.destination.proof
        return Proof.RECEIPT if proof is Proof.COUNTS and self.shared else proof

    def _told(self, waiting: list[Parcel]) -> list[Parcel]:
        if waiting:
            rows = sum(parcel.delivery.rows for parcel in waiting)
            left = max(self._deadline(parcel) for parcel in waiting) - self.now()
            self.courier.notice(Waiting(self.courier.destination.name, len(waiting), rows, max(0.0, left)))
        return waiting

    # ---------------------------------------------------------------------------------------- by counts

    def _counted(self, parcels: Sequence[Parcel]) -> tuple[Mapping[int, int], set[int]]:
        """Rows at the destination by hour, and the deliveries that these numbers prove.

        What should be there is read before and after the question: where it changed in between, or something of
        unknown outcome is in flight in an hour, the hour proves nothing.
        """
        hours = sorted({hour for parcel in parcels for hour in parcel.slice.hours})
        if not hours:
            return {}, {parcel.delivery.id for parcel in parcels}
        window = Range(hours[0], hours[-1] + 1)
        before = self._should(window)
        counts = self.courier.destination.counts(self.courier.stream.name, window)
        after = self._should(window)
        expected, flying = after
        sure = {
            hour
            for hour in hours
            if before == after and hour not in flying and counts.get(hour, 0) == expected.get(hour, 0)
        }
        proven = {
            parcel.delivery.id
            for parcel in parcels
            if not self.shared
            and parcel.delivery.state is DeliveryState.SENT
            and parcel.delivery.reopened is None  # other rows may stand in for those that are gone
            and not self._replaces(parcel)
            and sure.issuperset(parcel.slice.hours)
        }
        return counts, proven

    def _should(self, window: Range) -> tuple[Mapping[int, int], frozenset[int]]:
        reports, stream, name = self.courier.ledger.reports, self.courier.stream, self.courier.destination.name
        return reports.expected(stream, name, window), reports.in_flight(stream, name, window)

    def _settled_down(self, parcel: Parcel, hours: Mapping[int, int]) -> bool:
        """Whether it is time to ask for ids: two looks in a row saw the same numbers, and not these before."""
        looked = parcel.looked
        looked.unchanged = looked.unchanged + 1 if looked.counts == hours else 0
        looked.counts = hours
        if self._surely_loading(parcel, hours):
            return False
        again = looked.asked_at != hours or self.now() >= self._deadline(parcel)
        return looked.unchanged > 0 and (again or self._replaces(parcel))

    def _replaces(self, parcel: Parcel) -> bool:
        """Whether labels of it take the place of others: then neither counts nor ids show that they have."""
        if self.courier.stream.name is StreamName.INFERENCES:
            return False
        if parcel.looked.replaces is None:
            found = follows(self.courier.records, self.courier.stream, parcel.slice.cut)
            parcel.looked.replaces = bool(found[1])
        return parcel.looked.replaces

    def _surely_loading(self, parcel: Parcel, hours: Mapping[int, int]) -> bool:
        """Whether fewer rows are there than it has alone, and it is too early to act on that: ids tell no more."""
        plain = not parcel.failed and not any(send.form is SendForm.ROWS for send in parcel.sends)
        fewer = any(hours[hour] < rows for hour, rows in parcel.slice.hours.items())
        return plain and fewer and self.now() < self._deadline(parcel)

    def _deadline(self, parcel: Parcel) -> float:
        """When what was sent has loaded at the latest."""
        return parcel.noticed + self.loading

    def _by_counts(self, parcel: Parcel, hours: Mapping[int, int], last: float) -> bool:
        """Let counts decide for a destination that shows no ids. True where the delivery is done with.

        last: when all that is on its way has loaded at the latest
        """
        parcel.looked.asked_at = hours
        unsure, beside = silent(parcel), self._beside(parcel)
        over = self.now() >= last
        expected, _ = self._should(Range(min(hours), max(hours) + 1))
        own = parcel.slice.hours
        others = {hour: expected.get(hour, 0) - (0 if unsure else own[hour]) for hour in hours}
        short = {hour: max(0, min(own[hour], own[hour] + others[hour] - hours[hour])) for hour in hours}
        if unsure and not beside and (done := self._heard_of(parcel, short, over=over)) is not None:
            return done
        if not over and not parcel.failed:
            return False
        if unsure:
            return self._unheard(parcel)
        if beside - {DeliveryState.HELD} and self.now() < self._deadline(parcel) + self.loading:
            return False  # until it is known what has become of that
        if let_go(parcel):
            self.endings.close(parcel, Proof.COUNTS, refused=short)
            return True
        rows, name = sum(short.values()), self.courier.destination.name
        what = f"{rows} of {parcel.delivery.rows} rows do not show at {name}, which does not say which"
        nothing = f"the counts of {name} prove nothing: another slice there is unsettled"
        self.endings.hold(parcel, what if rows else nothing)
        return True

    def _heard_of(self, parcel: Parcel, short: Mapping[int, int], *, over: bool) -> bool | None:
        """Close a delivery with sends that have no answer, or let their files go again, where what is short of its
        rows by hour tells all of them from none. None where it does not; else as `_by_counts`."""
        parts = {send.part for send in silent(parcel)}
        lacking = replace(parcel.slice, parts=tuple(one for one in parcel.slice.parts if one.number in parts))
        if not any(short.values()):
            self.endings.found(parcel)
            self.endings.close(parcel, Proof.COUNTS)
            return True
        if not over or {hour: rows for hour, rows in short.items() if rows} != lacking.hours:
            return None
        for part in lacking.parts:
            self.courier.absent(parcel, part)
        self.endings.again(parcel, "sent again: it did not land")
        return False

    def _beside(self, parcel: Parcel) -> set[DeliveryState]:
        """The states of the other deliveries of which something may be in the same hours, and is not expected there:
        counts cannot tell theirs from this one's."""
        deliveries, stream = self.courier.ledger.deliveries, self.courier.stream
        name = self.courier.destination.name
        found: set[DeliveryState] = set()
        for one in (*deliveries.open(stream, name), *deliveries.held(stream, name)):
            if one.id != parcel.delivery.id and one.state is not DeliveryState.SENT:
                contents, sends = deliveries.contents(one)
                if sends and not parcel.slice.hours.keys().isdisjoint(contents.hours):
                    found.add(one.state)
        return found

    # --------------------------------------------------------------------------------------- by receipts

    def _by_receipt(self, parcel: Parcel) -> bool:
        """Close a delivery by what was answered to it, as there is nothing to ask. True where it is done with."""
        if silent(parcel):
            return self._unheard(parcel)
        if any(parcel.old(sends[-1]) for part in parcel.slice.parts if (sends := parcel.of(part, SendForm.FILE))):
            self.endings.again(parcel, "sent again without asking, as a person wanted")
            return False
        doubt, failed = disbelieved(parcel), parcel.failed
        if doubt:
            self.endings.hold(parcel, doubt)
        elif failed and not let_go(parcel):
            refused = f"{self.courier.destination.name} refused {failed} of {parcel.delivery.rows} rows"
            self.endings.hold(parcel, f"{refused} and does not say which")
        else:
            self.endings.close(parcel, Proof.RECEIPT, lost=failed)
        return True

    def _unheard(self, parcel: Parcel) -> bool:
        """What to do about sends that have no answer, and will have none: hold the delivery, or send them again.
        True where the delivery is done with.

        It is held before they count as unknown for good, so that of a delivery that is not held, they were decided.
        """
        unsure, times = silent(parcel), repeats(parcel)
        if self.to.on_unknown == "stop" or times >= MOST_FILE_SENDS:
            reason = unheard(parcel, self.job.name)
            self.endings.settle(parcel, DeliveryState.HELD, reason)
            for send in unsure:
                self.courier.answer(parcel, send, SendState.UNKNOWN, {"message": reason})
            self.endings.end(parcel)
            return True
        if self.now() >= parcel.noticed + FIRST_REPEAT * 2 ** (times - 1):
            for send in unsure:
                self.courier.answer(parcel, send, SendState.UNKNOWN, {"then": "sent again, as on_unknown says"})
            self.endings.again(parcel, "sent again without knowing whether it arrived, as on_unknown says")
        return False

    # ------------------------------------------------------------------------------------------- by ids

    def _by_ids(self, parcel: Parcel, hours: Mapping[int, int]) -> bool:
        """Ask which ids are there; close the delivery, or act on what is missing when its time has come.
        True where the delivery is done with."""
        refused = set(self.endings.refused(parcel).column(ID).to_pylist())
        missing = {part.number: self.mending.missing(parcel, part, refused) for part in parcel.slice.parts}
        parcel.looked.asked_at = hours
        lost = sum(len(ids) for ids in missing.values())
        if not lost:
            self._note_surplus(parcel, hours)
            self.endings.found(parcel)
            self.endings.close(parcel, Proof.ROWS)
            return True
        told_so = lost == parcel.failed and not any(send.form is SendForm.ROWS for send in parcel.sends)
        if self.now() < self._deadline(parcel) and not told_so:
            return False
        return self.mending.mend(parcel, missing)

    def _note_surplus(self, parcel: Parcel, hours: Mapping[int, int]) -> None:
        """Tell where more rows are there than were sent: somebody else's, or rows that arrived twice."""
        if self.shared or not hours:
            return
        expected, _ = self._should(Range(min(hours), max(hours) + 1))
        over = [count - expected.get(hour, 0) for hour, count in hours.items()]
        surplus = [rows for rows in over if rows > 0]
        if surplus and parcel.delivery.state is DeliveryState.SENT:
            text = (
                f"{self.courier.destination.name} holds {sum(surplus)} rows more than were sent to it in "
                f"{len(surplus)} hours of slice {parcel.slice.sequence}; "
                f"if others write to this model too, set destination.shared: true"
            )
            self.courier.notice(Warned(text))
