"""Arthur, as its API v3 is spoken to by its Python SDK 3.33.3.

The protocol has no idempotency key, no checksum, and answers before it has loaded; so nothing is sent twice without
proof that it did not land, no answer is believed that does not add up, and what arrived is asked for.
"""

from __future__ import annotations

import logging
import random as randomness
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import quote

from tidepost.destinations.arthur.account import ArthurAccount
from tidepost.destinations.arthur.answers import already_there, entries_of, no_inference, succeeded
from tidepost.destinations.arthur.options import ArthurOptions
from tidepost.destinations.arthur.query import counts, listed, milliseconds
from tidepost.destinations.arthur.rows import NotSendable, Row, encode, groups, payload
from tidepost.destinations.body import Body
from tidepost.destinations.multipart import file_form
from tidepost.destinations.transport import Answer
from tidepost.errors import Misconfigured, Refused, Retryable, TidepostError, Unknown
from tidepost.model import Proof, Receipt, RowAnswer, StreamName
from tidepost.ports import Upload, unguarded
from tidepost.ranges import Range

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArthurDestination", "ArthurOptions"]

MOST_SPLITS: Final = 100
"""How often `send_rows` halves requests that are refused as a whole, before it gives up naming rows."""

_log = logging.getLogger("tidepost.destinations")


class ArthurDestination:
    """A model at Arthur. Satisfies `Destination`; safe for use by several threads.

    sleep:  waits a number of seconds between two attempts
    random: between 0 and 1
    """

    def __init__(
        self,
        options: ArthurOptions,
        *,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self.name = options.name
        self.proof = Proof.ROWS
        self.loading = options.loading
        self._batches = options.batches
        self._account = ArthurAccount(options, sleep=sleep, random=random)
        self._reading = self._account.reading

    def close(self) -> None:
        """Closes the connections; the destination is not used after that."""
        self._account.close()

    def check(self, stream: StreamName, columns: Mapping[str, str]) -> None:
        """See `Destination.check`. Looks the model up anew; everything that is wrong is listed at once."""
        self._account.model(fresh=True).check(stream, columns, batches=self._batches)

    def send(self, stream: StreamName, upload: Upload) -> Receipt:
        """See `Destination.send`.

        Content-Length frames the body and its last block is held back until `upload.guard` has passed, so whatever
        fails before that block leaves cannot have been accepted: the server never had the end of the file. That is
        tried again here, with a body made anew, as are 429, and a 5xx that came before the end. From that block on
        a failure, a 5xx, or an answer that does not add up is Unknown.
        """
        what = f"{upload.name} ({upload.rows} rows)"
        part = "ground_truth_data" if stream is StreamName.GROUND_TRUTH else "inference_data"
        fields = [("batch_id", upload.batch_id or "")] if stream is StreamName.INFERENCES else []

        @contextmanager
        def form() -> Iterator[tuple[str, Body]]:
            upload.guard()
            with closing(_opened(upload)) as file:
                yield file_form(part, file, name=upload.name, size=upload.size, guard=upload.guard, fields=fields)

        answer = self._account.deliver("POST", self._account.path("/inferences/file"), what, form)
        receipt = self._reading.receipt(answer, rows=upload.rows, what=what)
        _log.info("%s took %s: %d accepted, %d failed", self.name, what, receipt.accepted, receipt.failed)
        return receipt

    def send_rows(
        self,
        stream: StreamName,
        rows: Sequence[Mapping[str, object]],
        guard: Callable[[], float] = unguarded,
    ) -> Sequence[RowAnswer]:
        """See `Destination.send_rows`: one answer a row, in the order of the rows, in requests of at most 1000 rows
        and about 4 MB.

        A row that JSON or its attribute cannot hold is answered as refused without being sent. A request that is
        refused as a whole is halved until the rows that are at fault are named. Once a request was answered, a
        failure of a later one is Unknown, as some rows have landed.
        """
        model = self._account.model()
        answers: dict[int, RowAnswer] = {}
        ready: list[Row] = []
        for position, row in enumerate(rows):
            try:
                ready.append(encode(model, stream, position, row))
            except NotSendable as error:
                id_ = str(row.get("partner_inference_id") or "")
                answers[position] = RowAnswer(id_, accepted=False, message=str(error))
        todo = list(groups(ready))[::-1]
        splits = 0
        landed = False
        while todo:
            group = todo.pop()
            try:
                answered = self._send_group(stream, group, guard)
                landed = True
            except Refused as error:
                if len(group) > 1 and splits < MOST_SPLITS:
                    middle = len(group) // 2
                    todo += [group[middle:], group[:middle]]
                    splits += 1
                    continue
                if len(group) > 1:
                    raise self._after(landed, error) from error
                answered = [RowAnswer(group[0].id, accepted=False, message=error.message)]
            except (Retryable, Misconfigured) as error:
                raise self._after(landed, error) from error
            answers |= {row.position: answer for row, answer in zip(group, answered, strict=True)}
        return [answers[position] for position in range(len(rows))]

    def counts(self, stream: StreamName, window: Range) -> Mapping[int, int]:
        """See `Destination.counts`; hours without rows are left out."""
        return counts(stream, window, self._account.query)

    def ids(self, stream: StreamName, window: Range) -> Iterator[Sequence[str]]:
        """See `Destination.ids`; at most 50,000 ids a list.

        Arthur compares times by the millisecond, so the window is widened outward to whole ones: what comes may
        hold ids of up to a millisecond outside of it, and misses none inside.
        """
        yield from listed(stream, milliseconds(window), self._account.query)

    def labels(self, window: Range) -> Iterator[pa.Table]:
        """See `Destination.labels`; at most 50,000 a table, of a window that is widened as for `ids`."""
        from tidepost.destinations.arthur.labels import labels  # noqa: PLC0415 - it brings Arrow along

        yield from labels(self._account.model(), milliseconds(window), self._account.query)

    def close_batch(self, batch_id: str, total: int) -> None:
        """Say that a batch of `total` rows is complete; repeating it is harmless. Raises Misconfigured, Retryable."""
        if batch_id in ("", ".", ".."):
            raise Misconfigured(f"{batch_id!r} cannot be the id of a batch: it would name another path")
        content = {"status": "uploaded", "total_record_count": total}
        path = self._account.path(f"/batches/{quote(batch_id, safe='')}")
        self._account.ask("PATCH", path, f"closing the batch {batch_id}", content)

    def _send_group(
        self, stream: StreamName, group: Sequence[Row], guard: Callable[[], float]
    ) -> Sequence[RowAnswer]:
        method = "PATCH" if stream is StreamName.GROUND_TRUTH else "POST"
        what = f"{len(group)} rows"
        text = payload(group)
        answer = self._account.deliver(
            method,
            self._account.path("/inferences"),
            what,
            lambda: nullcontext(("application/json", Body(text, guard=guard))),
        )
        return self._row_answers(stream, answer, group, what)

    def _row_answers(
        self, stream: StreamName, answer: Answer, group: Sequence[Row], what: str
    ) -> Sequence[RowAnswer]:
        receipt = self._reading.receipt(answer, rows=len(group), what=what)
        content = answer.json()
        results = entries_of(content, "results") or entries_of(content, "failures")
        if len(results) != len(group) or sum(map(succeeded, results)) != receipt.accepted:
            raise Unknown(f"{self.name} accepted {what}, but answered with {len(results)} results that do not add up")
        return [
            RowAnswer(
                row.id,
                accepted=succeeded(result),
                already_there=already_there(result),
                message="" if succeeded(result) else self._reading.words(result.get("message") or ""),
                no_inference=stream is StreamName.GROUND_TRUTH and no_inference(result),
            )
            for row, result in zip(group, results, strict=True)
        ]

    def _after(self, landed: bool, error: TidepostError) -> TidepostError:
        if not landed:
            return error
        return Unknown(f"some rows have landed, then: {error.message}", hint=error.hint)


def _opened(upload: Upload) -> IO[bytes]:
    try:
        return upload.open()
    except OSError as error:
        raise Retryable(f"{upload.name} cannot be read: {error.strerror or error}") from error
