"""A staged file as Arrow IPC streams: looked through first, so that each one's length is known, then sent as it is
read.

No more than one row group of the file is in memory at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from tidepost.destinations.arize.rows import Rows
from tidepost.errors import Refused, Retryable, TidepostError

BATCH_ROWS: Final = 16_384
END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""Ends a stream (Arrow columnar format, IPC streaming format)."""


@dataclass(frozen=True, slots=True)
class Request:
    """A stretch of a file that goes in one request.

    first, end: its batches, counted from 0
    rows:       in it
    size:       bytes of its batches in the stream
    """

    first: int
    end: int
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Load:
    """What a look through a file found.

    rows:     all of the file's
    requests: what goes
    kept:     for each batch, which rows go (None: all)
    faults:   what is wrong with rows that do not go → how many
    """

    rows: int
    requests: tuple[Request, ...]
    kept: tuple[pa.BooleanArray | None, ...]
    faults: Counter[str]


@dataclass(frozen=True, slots=True)
class Staged:
    """A staged file, and how it is read.

    batch_rows: in one batch of it, at most
    """

    name: str
    rows: Rows
    file: pq.ParquetFile
    batch_rows: int = BATCH_ROWS

    @property
    def batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self.file.iter_batches(self.batch_rows, columns=self.rows.schema.names, use_threads=False):
            yield batch
            pa.default_memory_pool().release_unused()  # else what batches have left adds up to more than they need

    def look(self, *, rows: int, size: int) -> Load:
        """Look every row through, and cut the file into requests of at most so many rows and bytes; never within a
        batch. Raises Refused where the file is no parquet file."""
        requests: list[Request] = []
        kept: list[pa.BooleanArray | None] = []
        faults: Counter[str] = Counter()
        seen = 0
        try:
            for number, batch in enumerate(self.batches):
                seen += batch.num_rows
                mask, found = self.rows.faults(batch)
                kept.append(mask)
                faults += found
                going = self.rows.sendable(batch, mask)
                _add(requests, number, going, rows=rows, size=size)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.name, error) from error
        return Load(seen, tuple(requests), tuple(kept), faults)

    def stream(self, request: Request, load: Load) -> Stream:
        """The batches of one request, as they are read."""
        return Stream(self.name, self._messages(request, load))

    def _messages(self, request: Request, load: Load) -> Iterator[pa.Buffer]:
        for number, batch in enumerate(self.batches):
            if number >= request.end:
                return
            if number >= request.first:
                going = self.rows.sendable(batch, load.kept[number])
                if going.num_rows:
                    yield going.serialize()


def _add(requests: list[Request], number: int, batch: pa.RecordBatch, *, rows: int, size: int) -> None:
    """Put a batch into the last request, or into a new one where that would be too large."""
    if not batch.num_rows:
        return
    more = pa.ipc.get_record_batch_size(batch)
    last = requests[-1] if requests else None
    if last is None or last.rows + batch.num_rows > rows or last.size + more > size:
        requests.append(Request(number, number + 1, batch.num_rows, more))
    else:
        requests[-1] = Request(last.first, number + 1, last.rows + batch.num_rows, last.size + more)


def opened(name: str, file: IO[bytes]) -> pq.ParquetFile:
    """A staged file. Raises Refused where it is no parquet file, Retryable where it cannot be read."""
    try:
        return pq.ParquetFile(file, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(name, error) from error


def unreadable(name: str, error: Exception) -> TidepostError:
    """What it means that a file cannot be read: its disk or store fails (which gives an errno), or it is no parquet
    file."""
    if isinstance(error, OSError) and error.errno is not None:
        return Retryable(f"{name} cannot be read: {error.strerror or error}")
    return Refused(f"{name} cannot be read as parquet: {error}")


class Stream:
    """The messages of a stream, to be read once from the beginning to the end, as a file is."""

    def __init__(self, name: str, messages: Iterator[pa.Buffer]) -> None:
        self._name = name
        self._messages = messages
        self._left = memoryview(b"")

    def readinto(self, into: memoryview) -> int:
        """Fill as much of `into` as the current message has; 0 at the end. Raises Retryable."""
        while not self._left:
            try:
                message = next(self._messages, None)
            except pa.ArrowException as error:
                raise Retryable(f"{self._name} cannot be read: {error}") from error
            if message is None:
                return 0
            self._left = memoryview(message).cast("B")
        count = min(len(into), len(self._left))
        into[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
