"""The command line: a thin edge that translates arguments to the engine and what it did to text, JSON and exit codes.

Importing it is cheap; each command imports what it needs when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (default: of this process's arguments) and return the process's exit code."""
    from tidepost.cli.app import run  # noqa: PLC0415 - the modules below this package do not need it

    return run(arguments)
