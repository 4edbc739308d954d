"""Errors at the edge: three lines for people or one JSON document, and the exit code that says what to do.

0 done, or nothing new   1 a bug   2 misconfigured   3 refused or held   4 retry later   5 outcome unknown
6 held by another run    7 rows are lost, missing or doubled    130, 143 stopped at once by a second Ctrl-C or SIGTERM
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from typing import Any, Final

from tidepost.cli.output import write, write_json
from tidepost.errors import TidepostError

BUG: Final = 1
USAGE: Final = 2


def code_of(error: BaseException) -> int:
    return error.exit_code if isinstance(error, TidepostError) else BUG


def document_of(error: BaseException, *, about: str = "", hint: str = "") -> dict[str, Any]:
    """An error as JSON; of a bug only its type, as its text may hold anything.

    about: the job that it is about, which a message says by itself where it names the job's file
    """
    if isinstance(error, TidepostError):
        prefix = f"{about}: " if about and not error.message.startswith(("jobs/", f"{about}:")) else ""
        return {
            "kind": type(error).__name__,
            "message": f"{prefix}{error.message}",
            "safe": error.safe,
            "hint": error.hint or hint,
            "exit_code": error.exit_code,
        }
    return {
        "kind": type(error).__name__,
        "message": f"a bug in tidepost: {type(error).__name__}",
        "safe": "Nothing is sent twice: the next run finishes what this one began.",
        "hint": hint,
        "exit_code": BUG,
    }


def told(error: BaseException, *, verbose: bool) -> dict[str, Any]:
    """The error as JSON. A bug's traceback was shown on standard error or written to a file that the hint names."""
    if isinstance(error, TidepostError):
        return document_of(error)
    trace = "".join(traceback.format_exception(error))
    if verbose:
        write(trace, sys.stderr)
        return document_of(error, hint="Please report it with the traceback above.")
    with tempfile.NamedTemporaryFile("w", prefix="tidepost-bug-", suffix=".txt", delete=False) as file:
        file.write(trace)
    return document_of(error, hint=f"Please report it with the traceback in {file.name}.")


def show(error: dict[str, Any], *, as_json: bool) -> None:
    """Write an error where its reader looks for it: JSON to standard output, else lines to standard error."""
    if as_json:
        write_json({"error": error})
        return
    lines = [line for line in (error["message"], error["safe"], error["hint"]) if line]
    write("\n  ".join([f"error: {lines[0]}", *lines[1:]]), sys.stderr)
