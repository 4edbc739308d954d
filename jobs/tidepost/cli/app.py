"""The commands, and the one place where what they raise becomes a message and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Final

import typer
from typer.main import get_command

import tidepost
from tidepost.cli import (
    backfill,
    demo,
    ground_truth,
    init,
    ledger,
    pause,
    plan,
    purge,
    reconcile,
    rejects,
    release,
    resend,
    sandbox,
    skip,
    status,
    stream,
    upload,
    validate,
)
from tidepost.cli.command import app, command
from tidepost.cli.failures import USAGE, show, told
from tidepost.cli.output import write
from tidepost.cli.session import Session

__all__ = ["app", "run"]

_MODULES: Final = (
    demo,
    init,
    validate,
    plan,
    upload,
    backfill,
    ground_truth,
    stream,
    status,
    rejects,
    release,
    skip,
    pause,
    reconcile,
    resend,
    purge,
    ledger,
    sandbox,
)
"""What declares the commands, by being imported."""

_ORDER: Final = (
    "demo init validate plan run backfill ground-truth stream status reconcile resend rejects release skip pause "
    "resume purge sandbox version"
).split()
_INTERRUPTED: Final = 130
# Newer versions of Typer carry their own Click, so its root of usage errors is found by way of Typer's own name.
_UsageError: Final[type[Exception]] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Uploads model inferences from logs to monitoring platforms: every row arrives once, and you can see it."""
    if version:
        write(tidepost.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        write(context.get_help())
        raise typer.Exit


@command("version", example="tidepost version --json")
def version(session: Session) -> int:
    """Show the version."""
    session.answer({"version": tidepost.__version__}, tidepost.__version__)
    return 0


app.registered_commands.sort(key=lambda one: _ORDER.index(one.name or ""))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; nothing is raised."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for output in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a stream that is no text file can show every letter
            output.reconfigure(errors="replace")  # type: ignore[union-attr]
    as_json, verbose = "--json" in given, "--verbose" in given
    try:
        code = get_command(app).main(given, prog_name="tidepost", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except _UsageError as error:
        show(_usage(error, given), as_json=as_json)
        return USAGE
    except Exception as error:
        failure = told(error, verbose=verbose)
        show(failure, as_json=as_json)
        return int(failure["exit_code"])
    return int(code or 0)


def _usage(error: BaseException, arguments: Sequence[str]) -> dict[str, object]:
    """A mistake on the command line, as the other errors are told."""
    text = getattr(error, "format_message", lambda: str(error))()
    names = [
        *(one.name for one in app.registered_commands),
        *(one.name for one in app.registered_groups),
    ]
    of = next((name for name in arguments if name in names), "")
    return {
        "kind": "Usage",
        "message": text,
        "safe": "",
        "hint": f"See:  tidepost {of} --help".replace("  --", " --"),
        "exit_code": USAGE,
    }
