"""The body of one request: its exact length is known, its bytes are streamed, and it knows how far it got."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import IO, Final

from tidepost.errors import Retryable

BLOCK: Final = 1 << 19


class Body:
    """`head`, then `size` bytes of `file`, then `tail`, in blocks of half a MiB, for one attempt only.

    The last block of the file and the tail are held back until `guard` has passed, and leave in one write, so that
    whatever fails before is known to have left the receiver with less than `Content-Length` said, and without the
    end of the file.

    finishing: whether the last bytes may have left. False proves that the request did not land
    deadline:  on the monotonic clock; no byte leaves after it
    """

    def __init__(
        self,
        tail: bytes,
        *,
        head: bytes = b"",
        file: IO[bytes] | None = None,
        size: int = 0,
        name: str = "",
        guard: Callable[[], float] | None = None,
    ) -> None:
        self.finishing = False
        self.deadline: float | None = None
        self._head, self._tail = head, tail
        self._file, self._size, self._name = file, size, name
        self._guard = guard

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def left(self) -> float:
        """Seconds until the deadline, more than zero. Raises TimeoutError after it."""
        left = float("inf") if self.deadline is None else self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this request is over")
        return left

    def withheld(self) -> None:
        """The connection did not write the block that it was given last."""
        self.finishing = False

    def __iter__(self) -> Iterator[bytes | memoryview]:
        """The blocks; each is overwritten by the next. Raises Retryable where the file cannot be read or has
        another size, and whatever `guard` raises."""
        if self._head:
            yield self._head
        last = self._tail
        if self._file is not None:
            buffer = memoryview(bytearray(min(BLOCK, self._size)))
            left = self._size
            while left > BLOCK:
                count = self._read(buffer)
                yield buffer[:count]
                left -= count
            filled = 0
            while filled < left:
                filled += self._read(buffer[filled:left])
            if self._more():
                raise Retryable(f"{self._name} is longer than the {self._size} bytes that were staged")
            last = bytes(buffer[:left]) + self._tail
        if self._guard is not None:
            until = self._guard()
            self.deadline = until if self.deadline is None else min(self.deadline, until)
        self.finishing = True
        yield last

    def _read(self, into: memoryview) -> int:
        count = self._into(into)
        if not count:
            raise Retryable(f"{self._name} is shorter than the {self._size} bytes that were staged")
        return count

    def _more(self) -> bool:
        return self._into(memoryview(bytearray(1))) > 0

    def _into(self, into: memoryview) -> int:
        # An error of the staging must not look like one of the connection: the transport judges those.
        assert self._file is not None  # noqa: S101
        try:
            readinto = getattr(self._file, "readinto", None)
            if readinto is not None:
                return int(readinto(into) or 0)
            data = self._file.read(len(into))
        except OSError as error:
            raise Retryable(f"{self._name} cannot be read: {error.strerror or error}") from error
        into[: len(data)] = data
        return len(data)
