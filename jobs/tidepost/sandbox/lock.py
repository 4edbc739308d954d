"""One sandbox per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from tidepost.errors import Misconfigured


class DataLock:
    """Holds a data directory for this process; the operating system lets go when the process dies, however it does.

    Raises Misconfigured when another sandbox, in this process or another, holds it.
    """

    def __init__(self, data: Path) -> None:
        try:
            data.mkdir(parents=True, exist_ok=True)
            self._file = os.open(data / "sandbox.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Misconfigured(
                f"the data directory {data} cannot be used: {error.strerror}", hint="Name another with --data."
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 64).decode(errors="replace").strip()
            os.close(self._file)
            raise Misconfigured(
                f"another sandbox (process {holder or 'unknown'}) is using {data}",
                hint="Stop it, or name another directory with --data.",
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Lets go; may be called once."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
