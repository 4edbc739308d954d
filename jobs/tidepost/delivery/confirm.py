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

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from tidepost.definition.job import DestinationDefinition, Job
from tidepost.delivery.deliver import MOST_FILE_SENDS, Courier, Parcel
from tidepost.delivery.labelled import replaced, unequal
from tidepost.delivery.unshown import disbelieved, let_go, repeats, silent, unheard
from tidepost.engine import BATCH_ROWS, Engine
from tidepost.errors import Misconfigured, Refused, Retryable, Unknown
from tidepost.events import Settled, Waiting, Warned
from tidepost.labels.versions import follows
from tidepost.model import (
    MICROSECONDS_AN_HOUR,
    DeliveryState,
    Part,
    Proof,
    RowAnswer,
    SendForm,
    SendState,
    StreamName,
)
from tidepost.ranges import Range, Ranges
from tidepost.rows.rejects import ID, by_hour, read_rejects, refused_key, write_refused

ROWS_A_SEND = 5_000
FIRST_REPEAT = 1.0
"""Seconds before a file that nobody answered is sent again where the job says so; each time twice as long."""
MOST_TRIES = 2
"""How often missing rows of a part are sent row by row and answered; a person is needed if they still do not show."""


@dataclass(slots=True)
class Looked:
    """What the looks at one delivery have seen so far."""

    counts: Mapping[int, int] | None = None
    unchanged: int = 0
    asked_at: Mapping[int, int] | None = None
    replaces: bool | None = None


@dataclass(slots=True)
class Confirmer:
    """Confirms deliveries at one destination, many at a time. Seconds throughout; `now` is the courier's."""

    courier: Courier
    job: Job
    engine: Engine
    loading: float
    shared: bool
    now: Callable[[], float]
    _looked: dict[int, Looked] = field(default_factory=dict)

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
                self._close(parcel, Proof.COUNTS)
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
        looked = self._looked.setdefault(parcel.delivery.id, Looked())
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
        looked = self._looked.setdefault(parcel.delivery.id, Looked())
        if looked.replaces is None:
            looked.replaces = bool(follows(self.courier.records, self.courier.stream, parcel.slice.cut)[1])
        return looked.replaces

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
        self._looked[parcel.delivery.id].asked_at = hours
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
            self._close(parcel, Proof.COUNTS, refused=short)
            return True
        rows, name = sum(short.values()), self.courier.destination.name
        what = f"{rows} of {parcel.delivery.rows} rows do not show at {name}, which does not say which"
        self.hold(parcel, what if rows else f"the counts of {name} prove nothing: another slice there is unsettled")
        return True

    def _heard_of(self, parcel: Parcel, short: Mapping[int, int], *, over: bool) -> bool | None:
        """Close a delivery with sends that have no answer, or let their files go again, where what is short of its
        rows by hour tells all of them from none. None where it does not; else as `_by_counts`."""
        parts = {send.part for send in silent(parcel)}
        lacking = replace(parcel.slice, parts=tuple(one for one in parcel.slice.parts if one.number in parts))
        if not any(short.values()):
            self._found(parcel)
            self._close(parcel, Proof.COUNTS)
            return True
        if not over or {hour: rows for hour, rows in short.items() if rows} != lacking.hours:
            return None
        for part in lacking.parts:
            self.courier.absent(parcel, part)
        self._again(parcel, "sent again: it did not land")
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
            self._again(parcel, "sent again without asking, as a person wanted")
            return False
        doubt, failed = disbelieved(parcel), parcel.failed
        if doubt:
            self.hold(parcel, doubt)
        elif failed and not let_go(parcel):
            name = self.courier.destination.name
            self.hold(parcel, f"{name} refused {failed} of {parcel.delivery.rows} rows and does not say which")
        else:
            self._close(parcel, Proof.RECEIPT, lost=failed)
        return True

    def _unheard(self, parcel: Parcel) -> bool:
        """What to do about sends that have no answer, and will have none: hold the delivery, or send them again.
        True where the delivery is done with.

        It is held before they count as unknown for good, so that of a delivery that is not held, they were decided.
        """
        unsure, times = silent(parcel), repeats(parcel)
        if self.to.on_unknown == "stop" or times >= MOST_FILE_SENDS:
            reason = unheard(parcel, self.job.name)
            self._settle(parcel, DeliveryState.HELD, reason)
            for send in unsure:
                self.courier.answer(parcel, send, SendState.UNKNOWN, {"message": reason})
            self._end(parcel)
            return True
        if self.now() >= parcel.noticed + FIRST_REPEAT * 2 ** (times - 1):
            for send in unsure:
                self.courier.answer(parcel, send, SendState.UNKNOWN, {"then": "sent again, as on_unknown says"})
            self._again(parcel, "sent again without knowing whether it arrived, as on_unknown says")
        return False

    def _again(self, parcel: Parcel, reason: str) -> None:
        """Let the files that are to be sent go again."""
        self._settle(parcel, DeliveryState.TODO, reason)
        self._looked.pop(parcel.delivery.id, None)

    # ------------------------------------------------------------------------------------------- by ids

    def _by_ids(self, parcel: Parcel, hours: Mapping[int, int]) -> bool:
        """Ask which ids are there; close the delivery, or act on what is missing when its time has come.
        True where the delivery is done with."""
        refused = set(self._refused(parcel).column(ID).to_pylist())
        missing = {part.number: self._missing(parcel, part, refused) for part in parcel.slice.parts}
        self._looked[parcel.delivery.id].asked_at = hours
        lost = sum(len(ids) for ids in missing.values())
        if not lost:
            self._note_surplus(parcel, hours)
            self._found(parcel)
            self._close(parcel, Proof.ROWS)
            return True
        told_so = lost == parcel.failed and not any(send.form is SendForm.ROWS for send in parcel.sends)
        if self.now() < self._deadline(parcel) and not told_so:
            return False
        return self._mend(parcel, missing)

    def _missing(self, parcel: Parcel, part: Part, refused: set[str]) -> set[str]:
        if self.courier.stream.name is StreamName.GROUND_TRUTH:
            with self.engine.connect() as connection:
                missing = unequal(connection, self.courier, part) - refused
                if missing and parcel.delivery.reopened is not None:  # newer ones may have been sent since it closed
                    missing -= replaced(connection, self.courier, parcel.slice)
                return missing
        with self.courier.staging.open(self.courier.stream, part) as file:
            ids = {
                id_
                for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=[ID])
                for id_ in batch.column(0).to_pylist()
            } - refused
        for window in Ranges.of(Range(hour, hour + 1) for hour in part.hours):
            micros = Range(window.start * MICROSECONDS_AN_HOUR, window.end * MICROSECONDS_AN_HOUR)
            for there in self.courier.destination.ids(self.courier.stream.name, micros):
                ids.difference_update(there)
        return ids

    def _mend(self, parcel: Parcel, missing: Mapping[int, set[str]]) -> bool:
        """Send what was shown to be missing. True where the delivery is done with."""
        parts = {part.number: part for part in parcel.slice.parts}
        again = False
        for number, ids in missing.items():
            if not ids:
                continue
            part = parts[number]
            files = parcel.of(part, SendForm.FILE)
            tries = _tries(parcel, part)
            if len(ids) == part.rows and files and (files[-1].state is SendState.INTENT or parcel.old(files[-1])):
                self.courier.absent(parcel, part)
                again = True
            elif tries >= MOST_TRIES:
                self.hold(parcel, f"{len(ids)} rows of {part.path} were accepted row by row and still do not show")
                return True
            else:
                try:
                    self._send_rows(parcel, part, ids, tries + 1)
                except Refused as error:
                    self.hold(parcel, error.message)
                    return True
        if again:
            self._found(parcel, but={number for number, ids in missing.items() if ids})
            self._again(parcel, "sent again: it did not land")
        else:
            self._found(parcel)
            self._settle_sent(parcel)
        self._looked.pop(parcel.delivery.id, None)
        return False

    def _send_rows(self, parcel: Parcel, part: Part, ids: set[str], number: int) -> None:
        for rows, texts in self._rows(part, ids):
            self.courier.keeper.guard(parcel.lease)
            try:
                send = self.courier.intend(parcel, part, SendForm.ROWS, len(rows))
                answers = self.courier.destination.send_rows(
                    self.courier.stream.name, rows, lambda: self.courier.keeper.guard(parcel.lease)
                )
            except Unknown:
                parcel.noticed = self.now()
                return
            except (Retryable, Misconfigured, Refused) as error:
                state = SendState.REFUSED if isinstance(error, Refused) else SendState.ABSENT
                self.courier.answer(parcel, send, state, {"message": error.message})
                raise
            refused = [
                (answer, text)
                for answer, text in zip(answers, texts, strict=True)
                if not answer.accepted and not answer.already_there
            ]
            if refused:
                self._keep_refused(parcel, refused)
            counted = {
                "try": number,
                "accepted": sum(answer.accepted for answer in answers),
                "already_there": sum(answer.already_there for answer in answers),
                "refused": len(refused),
            }
            self.courier.answer(parcel, send, SendState.ACCEPTED, counted)
            parcel.noticed = self.now()

    def _rows(self, part: Part, ids: set[str]) -> Iterator[tuple[list[dict[str, object]], list[str]]]:
        """The staged rows of some ids, in groups, and each row as JSON text."""
        with self.engine.connect() as connection:
            relation = self.courier.staging.relation(connection, self.courier.stream, [part])
            connection.register("missing", pa.table({"id": pa.array(sorted(ids), pa.string())}))
            reader = connection.execute(
                f"SELECT * EXCLUDE (_part, _row), CAST(to_json(r) AS VARCHAR) AS _json FROM ({relation.sql}) AS r "
                f"WHERE {ID} IN (SELECT id FROM missing)",
                dict(relation.values),
            ).to_arrow_reader(ROWS_A_SEND)
            for batch in reader:
                texts = batch.column("_json").to_pylist()
                yield batch.drop_columns(["_json"]).to_pylist(), texts

    def _found(self, parcel: Parcel, *, but: Set[int] = frozenset()) -> None:
        """Answer the sends without an answer: the destination was asked, and what is missing is known."""
        for send in parcel.sends:
            if send.state is SendState.INTENT and send.part not in but:
                self.courier.answer(parcel, send, SendState.ACCEPTED, {"found": "by asking"})

    # ------------------------------------------------------------------------------------------- endings

    def _refused(self, parcel: Parcel) -> pa.Table:
        key = refused_key(self.courier.stream, parcel.slice.sequence, self.courier.destination.name)
        return read_rejects(self.courier.records, key)

    def _keep_refused(self, parcel: Parcel, refused: Sequence[tuple[RowAnswer, str]]) -> None:
        name = self.courier.destination.name
        write_refused(self.courier.records, self.courier.stream, parcel.slice.sequence, name, refused)

    def _settle_sent(self, parcel: Parcel) -> None:
        refused = by_hour(self._refused(parcel))
        state = DeliveryState.UNKNOWN if parcel.unanswered() else DeliveryState.SENT
        parcel.delivery = self.courier.ledger.deliveries.settle(
            parcel.lease, parcel.delivery, state, refused=refused, reason=""
        )

    def _close(
        self, parcel: Parcel, proof: Proof, *, refused: Mapping[int, int] | None = None, lost: int | None = None
    ) -> None:
        """Close a delivery, or hold it where too much of it was refused.

        refused: by hour, where no rows were kept that tell
        lost:    of its rows, where nothing tells their hours
        """
        refused = by_hour(self._refused(parcel)) if refused is None else refused
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
        self._end(parcel)

    def hold(self, parcel: Parcel, reason: str) -> None:
        """Leave a delivery to a person, with what is known of it."""
        self._settle(parcel, DeliveryState.HELD, reason)
        self._end(parcel)

    def _settle(self, parcel: Parcel, state: DeliveryState, reason: str) -> None:
        parcel.delivery = self.courier.ledger.deliveries.settle(parcel.lease, parcel.delivery, state, reason=reason)

    def _end(self, parcel: Parcel) -> None:
        self._looked.pop(parcel.delivery.id, None)
        self.courier.keeper.release(parcel.lease)
        self.courier.notice(Settled(parcel.delivery))

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


def _tries(parcel: Parcel, part: Part) -> int:
    """How often missing rows of a part were sent row by row, and answered."""
    tried = [send for send in parcel.of(part, SendForm.ROWS) if not parcel.old(send)]
    answered = [send for send in tried if send.state is SendState.ACCEPTED]
    return max((json.loads(send.detail).get("try", 0) for send in answered), default=0)
