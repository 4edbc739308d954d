"""What a destination that shows ids lacks of a delivery, and sending that again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from tidepost.delivery.deliver import Courier, Parcel
from tidepost.delivery.endings import Endings
from tidepost.delivery.labelled import replaced, unequal
from tidepost.engine import BATCH_ROWS, Engine
from tidepost.errors import Misconfigured, Refused, Retryable, Unknown
from tidepost.model import MICROSECONDS_AN_HOUR, Part, RowAnswer, SendForm, SendState, StreamName
from tidepost.ranges import Range, Ranges
from tidepost.rows.rejects import ID, write_refused

ROWS_A_SEND = 5_000
MOST_TRIES = 2
"""How often missing rows of a part are sent row by row and answered; a person is needed if they still do not show."""


@dataclass(frozen=True, slots=True)
class Mending:
    """Asks for the ids of a part, and sends those rows once more that are not there."""

    courier: Courier
    engine: Engine
    endings: Endings

    def missing(self, parcel: Parcel, part: Part, refused: set[str]) -> set[str]:
        """The ids of a part that do not show, but for those that were refused."""
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

    def mend(self, parcel: Parcel, missing: Mapping[int, set[str]]) -> bool:
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
                rows = f"{len(ids)} rows of {part.path}"
                self.endings.hold(parcel, f"{rows} were accepted row by row and still do not show")
                return True
            else:
                try:
                    self._send_rows(parcel, part, ids, tries + 1)
                except Refused as error:
                    self.endings.hold(parcel, error.message)
                    return True
        if again:
            self.endings.found(parcel, but={number for number, ids in missing.items() if ids})
            self.endings.again(parcel, "sent again: it did not land")
        else:
            self.endings.found(parcel)
            self.endings.settle_sent(parcel)
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
                parcel.noticed = self.courier.now()
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
            parcel.noticed = self.courier.now()

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

    def _keep_refused(self, parcel: Parcel, refused: Sequence[tuple[RowAnswer, str]]) -> None:
        name = self.courier.destination.name
        write_refused(self.courier.records, self.courier.stream, parcel.slice.sequence, name, refused)


def _tries(parcel: Parcel, part: Part) -> int:
    """How often missing rows of a part were sent row by row, and answered."""
    tried = [send for send in parcel.of(part, SendForm.ROWS) if not parcel.old(send)]
    answered = [send for send in tried if send.state is SendState.ACCEPTED]
    return max((json.loads(send.detail).get("try", 0) for send in answered), default=0)
