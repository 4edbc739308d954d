"""Ctrl-C and SIGTERM: the first ends a run in order, the second at once."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from tidepost.cli.log import LogFormat

SAID = "finishing what is on its way; again to stop at once"
_SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def stoppable(log_format: LogFormat) -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second one ends the process with 130 or 143."""
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            if sys.stderr.isatty():
                _say(_SHOW_CURSOR)  # a progress bar hides it
            os._exit(128 + number)  # threads that wait for a platform would keep the interpreter from ending
        stop.set()
        line = json.dumps({"level": "warning", "message": SAID}) if log_format is LogFormat.JSON else SAID
        _say(f"{line}\n".encode())

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: bytes) -> None:
    """Write past Python's buffers, which the signal may have interrupted."""
    with suppress(OSError):
        os.write(2, text)
