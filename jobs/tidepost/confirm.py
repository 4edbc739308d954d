"""Confirming: a delivery closes when the destination shows its rows, not when it says yes.

Rows are counted by event hour first, which costs one question for many deliveries. Where counts cannot prove
anything (something of unknown outcome is in play, others write too) or differ, the ids are asked for. What does not
show is loading, until the destination's time for that is over and two looks in a row saw no change; then

* a file of unknown outcome, none of whose rows is there, did not land, and is sent again as a file, and so is one
  of a delivery that was reopened;
* other missing rows go once in the form whose answer names each: accepted, already there, or refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from tidepost.cursor import HOUR, parse_instant
from tidepost.deliver import Courier, Parcel
from tidepost.engine import BATCH_ROWS, Engine
from tidepost.errors import Misconfigured, Refused, Retryable, Unknown
from tidepost.events import Settled, Waiting, Warned
from tidepost.job import Job
from tidepost.model import MICROSECONDS_AN_HOUR, DeliveryState, Part, Proof, RowAnswer, SendForm, SendState
from tidepost.ranges import Range, Ranges
from tidepost.rejects import ID, read_rejects, refused_key, write_refused
from tidepost.shape import TIMESTAMP

ROWS_A_SEND = 5_000
MOST_TRIES = 2
"""How often missing rows of a part are sent row by row and answered; a person is needed if they still do not show."""


@dataclass(slots=True)
class Looked:
    """What the looks at one delivery have seen so far."""

    counts: Mapping[int, int] | None = None
    unchanged: int = 0
    asked_at: Mapping[int, int] | None = None


@dataclass(slots=True)
class Confirmer:
    """Confirms deliveries at one destination, many at a time. Seconds throughout."""

    courier: Courier
    job: Job
    engine: Engine
    loading: float
    shared: bool
    now: Callable[[], float]
    _looked: dict[int, Looked] = field(default_factory=dict)

    def look(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Ask once. Returns the parcels that are still open; some of them may have files to deliver again (their
        delivery is `todo`). Raises LeaseLost, Retryable, Misconfigured."""
        if not parcels:
            return []
        counts, proven = self._counted(parcels)
        waiting: list[Parcel] = []
        for parcel in parcels:
            hours = {hour: counts.get(hour, 0) for hour in parcel.slice.hours}
            if parcel.delivery.id in proven:
                self._close(parcel, Proof.COUNTS)
            elif self._settled_down(parcel, hours):
                if not self._by_ids(parcel, hours):
                    waiting.append(parcel)
            else:
                waiting.append(parcel)
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
        return looked.unchanged > 0 and (looked.asked_at != hours or self.now() >= self._deadline(parcel))

    def _surely_loading(self, parcel: Parcel, hours: Mapping[int, int]) -> bool:
        """Whether fewer rows are there than it has alone, and it is too early to act on that: ids tell no more."""
        plain = not parcel.failed and not any(send.form is SendForm.ROWS for send in parcel.sends)
        fewer = any(hours[hour] < rows for hour, rows in parcel.slice.hours.items())
        return plain and fewer and self.now() < self._deadline(parcel)

    def _deadline(self, parcel: Parcel) -> float:
        """When what was sent has loaded at the latest."""
        told = [send.answered or send.at for send in parcel.sends]
        return max([parcel.noticed, *told]) + self.loading

    # ------------------------------------------------------------------------------------------- by ids

    def _by_ids(self, parcel: Parcel, hours: Mapping[int, int]) -> bool:
        """Ask which ids are there; close the delivery, or act on what is missing when its time has come.
        True where the delivery is done with."""
        refused = set(self._refused(parcel).column(ID).to_pylist())
        missing = {part.number: self._missing(part, refused) for part in parcel.slice.parts}
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

    def _missing(self, part: Part, refused: set[str]) -> set[str]:
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
            deliveries = self.courier.ledger.deliveries
            parcel.delivery = deliveries.settle(
                parcel.lease, parcel.delivery, DeliveryState.TODO, reason="sent again: it did not land"
            )
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

    def _by_hour(self, refused: pa.Table) -> dict[int, int]:
        """Refused rows by hour of event time."""
        hours: dict[int, int] = {}
        for text in refused.column("row").to_pylist():
            hour = parse_instant(json.loads(text)[TIMESTAMP], zone="UTC") // HOUR
            hours[hour] = hours.get(hour, 0) + 1
        return hours

    def _settle_sent(self, parcel: Parcel) -> None:
        refused = self._by_hour(self._refused(parcel))
        state = DeliveryState.UNKNOWN if parcel.unanswered() else DeliveryState.SENT
        parcel.delivery = self.courier.ledger.deliveries.settle(
            parcel.lease, parcel.delivery, state, refused=refused, reason=""
        )

    def _close(self, parcel: Parcel, proof: Proof) -> None:
        refused = self._by_hour(self._refused(parcel))
        lost = sum(refused.values())
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
        parcel.delivery = self.courier.ledger.deliveries.settle(
            parcel.lease, parcel.delivery, DeliveryState.HELD, reason=reason
        )
        self._end(parcel)

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
