"""What goes to standard output: one JSON document, or text for people. Everything else goes to standard error.

No colour codes unless it is a terminal, and none with NO_COLOR.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final

from tidepost.texts import count, instant, short, size, span

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = [
    "LANES",
    "UNLIMITED",
    "count",
    "instant",
    "rendered",
    "short",
    "size",
    "span",
    "table",
    "write",
    "write_json",
]

UNLIMITED: Final = 100_000
"""The width without a terminal: there nothing is wrapped or cut off, as a program may read it."""


LANES: Final[Mapping[str, str]] = {"held": "held labels", "files": "a file"}
"""What cuts of labels take up whose range is the number of a file."""


def write(text: str, stream: IO[str] | None = None) -> None:
    """Write text, ending with a line break, to standard output. A reader who has gone away is no error."""
    stream = sys.stdout if stream is None else stream
    try:
        stream.write(text if text.endswith("\n") else f"{text}\n")
        stream.flush()
    except OSError:  # also a disk that is full: what was uploaded stays uploaded
        # What is still buffered would raise again when the interpreter ends.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def write_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document to standard output."""
    write(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def rendered(*parts: RenderableType) -> str:
    """Rich's text of tables and lines, as standard output can show it."""
    if all(isinstance(part, str) for part in parts):
        return "\n".join(map(str, parts))
    from rich.console import Console  # noqa: PLC0415 - not needed for lines and JSON

    text = io.StringIO()
    terminal = sys.stdout.isatty()
    console = Console(
        file=text,
        force_terminal=terminal,
        color_system="auto" if terminal and not os.environ.get("NO_COLOR") else None,
        width=None if terminal else UNLIMITED,
        highlight=False,
        emoji=False,
        markup=False,
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, headless: bool = False, total: Sequence[str] = ()
) -> Table:
    """A table; a column whose name begins with `#` is of numbers and aligned to the right.

    headless: without the names of its columns
    total:    a last row, set apart
    """
    from rich import box  # noqa: PLC0415 - not needed for lines and JSON
    from rich.table import Table as RichTable  # noqa: PLC0415

    plain = RichTable(
        box=None if headless else box.SIMPLE_HEAD, show_header=not headless, show_edge=False, pad_edge=False
    )
    plain.show_footer = bool(total)
    for at, name in enumerate(columns):
        right = name.startswith("#")
        footer = total[at] if total else ""
        plain.add_column(name.removeprefix("#"), justify="right" if right else "left", footer=footer)
    for row in rows:
        plain.add_row(*row)
    return plain
