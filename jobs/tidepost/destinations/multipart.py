"""A multipart form (RFC 7578) with one file, streamed in constant memory.

The data part carries no `Content-Type` and only the base name of its file, as Arthur API v3 is spoken to by its
Python SDK 3.33.3 (which sends the whole path).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from secrets import token_hex
from typing import IO

from tidepost.destinations.body import Body


def file_form(
    part: str,
    file: IO[bytes],
    *,
    name: str,
    size: int,
    guard: Callable[[], float],
    fields: Sequence[tuple[str, str]] = (),
) -> tuple[str, Body]:
    """The `Content-Type` and the body of a form of text fields, in order, and then one file.

    file: at its first byte; `size` bytes are read from it
    name: the file's path or name
    """
    # 128 random bits do not occur in the file by chance.
    boundary = f"tidepost-{token_hex(16)}"
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(key)}"\r\n\r\n{value}\r\n'
        for key, value in fields
    )
    filename = _quoted(PurePosixPath(name).name)
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(part)}"; filename="{filename}"\r\n\r\n'
    tail = f"\r\n--{boundary}--\r\n"
    body = Body(tail.encode(), head=head.encode(), file=file, size=size, name=name, guard=guard)
    return f"multipart/form-data; boundary={boundary}", body


def _quoted(name: str) -> str:
    """A name within quotes, as browsers write it (WHATWG HTML, multipart/form-data)."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
