"""What goes to standard output: one JSON document, or text for people. Everything else goes to standard error.

No colour codes unless it is a terminal, and none with NO_COLOR.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

UNLIMITED: Final = 100_000
"""The width without a terminal: there nothing is wrapped or cut off, as a program may read it."""
_FRACTION: Final = re.compile(r"\.\d+Z$")
_SECONDS: Final = re.compile(r"(?<=T\d\d:\d\d):00Z$")
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_SPANS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


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


def count(number: int, noun: str, many: str = "") -> str:
    """`1 row`, `2,699 rows`."""
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"


def size(amount: float) -> str:
    """Bytes in powers of ten: `13.2 MB`."""
    for unit in _UNITS:
        if amount < 1000 or unit == _UNITS[-1]:
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def span(seconds: float) -> str:
    """A length of time in its one or two largest units: `3 h 5 min`, `12 d`, `0.4 s`."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    at = next(index for index, (_, length) in enumerate(_SPANS) if seconds >= length)
    unit, length = _SPANS[at]
    whole, rest = divmod(int(seconds), length)
    if at + 1 == len(_SPANS) or whole >= 10 or rest < _SPANS[at + 1][1]:
        return f"{whole:,} {unit}"
    next_unit, next_length = _SPANS[at + 1]
    return f"{whole} {unit} {rest // next_length} {next_unit}"


def instant(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC; None stays None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def short(position: str) -> str:
    """A position's text for people: without parts of a second, and without seconds that are zero."""
    return _SECONDS.sub("Z", _FRACTION.sub("Z", position))
