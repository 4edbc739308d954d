"""`python -m tidepost.sandbox`: one sandbox as a process, for programs to start.

Prints one line of JSON, `{"url": …}`, when it accepts connections. The access key comes from the environment
variable TIDEPOST_SANDBOX_API_KEY, where the list of processes does not show it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from tidepost.errors import Misconfigured
from tidepost.sandbox.server import serve
from tidepost.sandbox.settings import Fault, Settings

API_KEY_VARIABLE = "TIDEPOST_SANDBOX_API_KEY"


def main(arguments: list[str] | None = None) -> int:
    """Runs a sandbox until a signal, or the end of its standard input, ends it; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings(
            data=options.data,
            host=options.host,
            port=options.port,
            api_key=os.environ.get(API_KEY_VARIABLE),
            on_repeat=options.on_repeat,
            loading_delay=options.loading_delay,
            loading_rate=options.loading_rate,
            provisioning_delay=options.provisioning_delay,
            memory_limit=options.memory_limit,
            faults=tuple(Fault.from_text(text) for text in options.fault),
            seed=options.seed,
        )
        if options.until_stdin_ends:
            threading.Thread(target=_stop_with_stdin, daemon=True).start()
        serve(settings, announce=_announce)
    except Misconfigured as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tidepost.sandbox", description="A local platform to upload to.")
    parser.add_argument("--data", type=Path, required=True, help="directory that holds everything")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765, help="0 is any free one")
    parser.add_argument("--on-repeat", default="refuse", choices=("refuse", "merge", "keep"))
    parser.add_argument("--loading-delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--loading-rate", type=float, default=None, metavar="ROWS", help="rows a second")
    parser.add_argument("--provisioning-delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--memory-limit", default="1GB")
    parser.add_argument("--fault", action="append", default=[], help="such as lose_reply,kind=file,count=1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until-stdin-ends", action="store_true", help="stop when standard input is closed")
    return parser


def _announce(url: str) -> None:
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()


def _stop_with_stdin() -> None:
    """Ends this process with its parent: a pipe is closed however the parent dies."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
