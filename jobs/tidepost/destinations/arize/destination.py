"""Arize, as its Python SDKs 7.54 and 8.61 speak to its HTTP API.

A batch is one Arrow stream; the answer says that it was taken, and nothing can be asked after that. So the strongest
proof is a receipt, nothing is sent twice without proof that it did not land, and rows that break one of Arize's
rules, which would fail their whole batch, are counted and left out before anything is sent.
"""

from __future__ import annotations

import logging
import platform
import random as randomness
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import IO, TYPE_CHECKING, Final, NoReturn, cast

from tidepost.destinations.answers import Reading
from tidepost.destinations.arize.columns import BATCH, check_columns, columns_of
from tidepost.destinations.arize.options import ArizeOptions
from tidepost.destinations.arize.rows import Rows
from tidepost.destinations.arize.schema import METADATA_KEY, Constants, encoded
from tidepost.destinations.arize.stream import BATCH_ROWS, END, Load, Request, Staged, opened
from tidepost.destinations.backoff import Backoff
from tidepost.destinations.body import Body
from tidepost.destinations.calls import Calls
from tidepost.destinations.transport import Answer, Transport
from tidepost.errors import Misconfigured, Refused, Retryable, TidepostError, Unknown
from tidepost.model import Proof, Receipt, RowAnswer, StreamName
from tidepost.ports import Upload, unguarded
from tidepost.ranges import Range

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArizeDestination", "ArizeOptions"]

PATH: Final = "/pandas_arrow"
ACCEPTED: Final = (200, 201, 202)
SPOKEN: Final = "8.61.0"
"""The version of Arize's Python SDK whose requests these are."""
FEW: Final = 5
JOINS_WITHIN: Final = 14 * 86_400.0
"""Seconds after an inference was received in which a label joins it: Arize's joiner looks no further back."""

_log = logging.getLogger("tidepost.destinations")


class ArizeDestination:
    """A model at Arize. Satisfies `Destination`; safe for use by several threads.

    sleep:  waits a number of seconds between two attempts
    random: between 0 and 1
    clock:  seconds since 1970, which old and future timestamps are measured by
    """

    def __init__(
        self,
        options: ArizeOptions,
        *,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = randomness.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = options.name
        self.proof = Proof.RECEIPT
        self.loading = 0.0
        self._options = options
        self._clock = clock
        key = options.api_key.strip()
        reading = Reading(
            options.name,
            key,
            key_hint="See the variable that `api_key` refers to, the key's rights, and `space_id`.",
            absent="has nothing at the address",
            absent_hint="See the destination's `url`.",
            size_hint="Lower the destination's `request_bytes`, then release the slice.",
        )
        space = options.space_id.strip()
        headers = {
            "authorization": key,
            "arize-space-id": space,
            "space_id": space,  # where servers of the time of SDK 7 look
            "arize-interface": "batch",
            "sdk-language": "python",
            "language-version": platform.python_version(),
            "sdk-version": SPOKEN,
            "sync": "0",
        }
        self._transport = Transport(
            options.base,
            headers,
            timeout=options.timeout,
            connections=options.connections,
            ca_file=options.ca_file,
        )
        self._calls = Calls(self._transport, Backoff(options.retries, sleep, random), reading)

    def close(self) -> None:
        """Closes the connections; the destination is not used after that."""
        self._transport.close()

    def check(self, stream: StreamName, columns: Mapping[str, str]) -> None:
        """See `Destination.check`. The address and the key are tried with a request that holds no rows."""
        check_columns(self._options, stream, columns)
        if self._options.environment == "validation" and not (self._options.batch_id or BATCH in columns):
            raise Misconfigured(
                "a validation set needs a batch id",
                hint="Write destination.batch_id, or mapping.batch_id for one of each row's own.",
            )
        self._try_the_key()

    def send(self, stream: StreamName, upload: Upload) -> Receipt:
        """See `Destination.send`. A file that is larger than one request may be goes in several, in order.

        The file is looked through before anything of it is sent: rows that break a rule of Arize's stay behind, and
        are the receipt's `failed`. Content-Length frames each stream, and its last block is held back until
        `upload.guard` has passed, so whatever fails before that block leaves cannot have been accepted. Once one
        request of several was answered, a failure of a later one is Unknown, as some rows have landed.
        """
        with self._staged(stream, upload) as staged:
            load = staged.look(rows=self._options.request_rows, size=self._options.request_bytes)
        if load.rows != upload.rows:
            raise Refused(f"{upload.name} holds {load.rows} rows, and {upload.rows} were staged")
        for number, request in enumerate(load.requests):
            try:
                self._send(stream, upload, load, request)
            except (Retryable, Misconfigured, Refused) as error:
                raise _after(number, error) from error
        failed = load.faults.total()
        messages = tuple(f"{rows} rows: {what}" for what, rows in load.faults.most_common(FEW))
        _log.info("%s took %s: %d rows, %d left out", self.name, upload.name, upload.rows - failed, failed)
        return Receipt(upload.rows - failed, failed, messages)

    def send_rows(
        self, stream: StreamName, rows: Sequence[Mapping[str, object]], guard: Callable[[], float] = unguarded
    ) -> Sequence[RowAnswer]:
        """Raises Misconfigured: no answer of Arize's names rows."""
        self._unanswerable()

    def close_batch(self, batch_id: str, total: int) -> None:
        """Arize's batches are names only: nothing closes them."""

    def counts(self, stream: StreamName, window: Range) -> Mapping[int, int]:
        """Raises Misconfigured: Arize cannot be asked."""
        self._unanswerable()

    def ids(self, stream: StreamName, window: Range) -> Iterator[Sequence[str]]:
        """Raises Misconfigured: Arize cannot be asked."""
        self._unanswerable()

    def labels(self, window: Range) -> Iterator[pa.Table]:
        """Raises Misconfigured: Arize cannot be asked."""
        self._unanswerable()

    def _unanswerable(self) -> NoReturn:
        raise Misconfigured(
            f"{self.name} cannot be asked what arrived: Arize has no call for it",
            hint="Its deliveries close by receipts; compare in Arize itself.",
        )

    def _send(self, stream: StreamName, upload: Upload, load: Load, request: Request) -> Answer:
        what = f"{upload.name} ({request.rows} rows)"

        @contextmanager
        def form() -> Iterator[tuple[Mapping[str, str], Body]]:
            upload.guard()
            with self._staged(stream, upload) as staged:
                metadata = {METADATA_KEY: encoded(self._constants(stream, upload), staged.rows.columns)}
                head = staged.rows.schema.with_metadata(metadata).serialize().to_pybytes()
                file = cast(IO[bytes], staged.stream(request, load))  # a Body reads it, and does nothing else
                body = Body(END, head=head, file=file, size=request.size, name=upload.name, guard=upload.guard)
                yield {"number-of-rows": str(request.rows)}, body

        answer = self._calls.deliver("POST", PATH, what, form, status=ACCEPTED)
        if not isinstance(answer.json(), dict):
            raise Unknown(f"{self.name} answered {answer.status} to {what}, but not as Arize does")
        return answer

    @contextmanager
    def _staged(self, stream: StreamName, upload: Upload) -> Iterator[Staged]:
        """An upload's file, open. Raises Retryable where it cannot be read, Refused where it is none."""
        try:
            file = upload.open()
        except OSError as error:
            raise Retryable(f"{upload.name} cannot be read: {error.strerror or error}") from error
        with closing(file), closing(opened(upload.name, file)) as parquet:
            schema = parquet.schema_arrow
            columns = columns_of(self._options, stream, schema.names)
            rows = Rows.of(self._options, columns, schema, self._clock())
            yield Staged(upload.name, rows, parquet, min(BATCH_ROWS, self._options.request_rows))

    def _constants(self, stream: StreamName, upload: Upload) -> Constants:
        of = self._options
        version = "" if stream is StreamName.GROUND_TRUTH else of.version
        return Constants(of.model, of.environment, of.model_type, version, upload.batch_id or of.batch_id)

    def _try_the_key(self) -> None:
        """Send nothing at all. Raises Misconfigured for a key that is refused or an address where nothing is, and
        Retryable where nobody answers; that nothing is no batch, whatever it is called, is as it should be."""
        what = "a request without rows"

        def attempt() -> None:
            answer = self._calls.once("POST", PATH, None, headers={"number-of-rows": "0"})
            # A server that knows no such request may as well call it a fault of its own, but not with 502 and above.
            mistake = 400 <= answer.status <= 501 and answer.status not in (401, 403, 404, 407, 408, 425, 429)
            if not mistake:
                self._calls.reading.expect(answer, status=ACCEPTED, what=what, harmless=True)

        self._calls.backoff.run(f"{self.name}: {what}", attempt)


def _after(answered: int, error: TidepostError) -> TidepostError:
    if not answered:
        return error
    return Unknown(f"{answered} requests of it have landed, then: {error.message}", hint=error.hint)
