"""How a command is declared: a function of a session and its own options, with an example in its help."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import typer

from tidepost.cli.log import LogFormat, set_up
from tidepost.cli.session import Session

app: Final = typer.Typer(
    name="tidepost",
    help="Uploads model inferences from logs to monitoring platforms: every row arrives once, and you can see it.",
    epilog="\b\nExample:\n  tidepost demo",
    add_completion=False,
    rich_markup_mode=None,  # plain help: Rich's takes longer to import than everything else together
)

JobName: TypeAlias = Annotated[str, typer.Argument(metavar="JOB", help="The job's name.", show_default=False)]
Now: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Act as if it were this time, such as 2013-01-08T06:00Z.", show_default=False),
]
AcceptLoss: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--accept-loss",
        help="Go on without messages that Kafka dropped before they were read; recorded in the audit.",
    ),
]
Start: TypeAlias = Annotated[
    str,
    typer.Option("--from", metavar="START", help="The first position: a time, a date or a number, as the cursor is."),
]
End: TypeAlias = Annotated[str, typer.Option("--to", metavar="END", help="Where the range ends; not part of it.")]
OfStream: TypeAlias = Annotated[
    Literal["inferences", "ground_truth"], typer.Option("--stream", help="The stream that is meant.")
]
OnlyStream: TypeAlias = Annotated[
    Literal["inferences", "ground_truth"] | None,
    typer.Option(
        "--stream", help="Only this stream. Default: the inferences, then their labels.", show_default=False
    ),
]

_SHARED: Final = {
    "folder": Annotated[
        Path | None,
        typer.Option(
            "--project",
            metavar="DIR",
            help="A folder of the project. Default: the working directory.",
            show_default=False,
        ),
    ],
    "as_json": Annotated[bool, typer.Option("--json", help="Write one JSON document to standard output.")],
    "log_format": Annotated[LogFormat, typer.Option(help="Of the log on standard error.")],
    "verbose": Annotated[
        bool, typer.Option("--verbose", help="Log every file that is sent; show a bug's traceback.")
    ],
}
_DEFAULTS: Final = Session()


def command(name: str, *, example: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Register a function as a command. Its first parameter, a `Session`, comes from the options that every command
    has; the others are the command's own. It returns the exit code.

    example: one command line, shown below the command's help; several are separated by a line break
    """

    def register(function: Callable[..., int]) -> Callable[..., int]:
        signature = inspect.signature(function, eval_str=True)
        own = list(signature.parameters.values())[1:]
        shared = [
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=getattr(_DEFAULTS, key), annotation=annotation
            )
            for key, annotation in _SHARED.items()
        ]

        @functools.wraps(function)
        def called(**values: Any) -> int:
            session = Session(**{key: values.pop(key) for key in _SHARED})
            set_up(session.log_format, verbose=session.verbose)
            return function(session, **values)

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [*(one.replace(kind=keyword) for one in own), *shared]
        called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        lines = "\n".join(f"  {line}" for line in example.splitlines())
        app.command(name, epilog=f"\b\nExample:\n{lines}")(called)
        return function

    return register
