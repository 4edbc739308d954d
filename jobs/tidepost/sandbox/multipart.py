"""Multipart bodies, streamed: a file part goes to disk as it arrives and is never held in memory.

Parts as in Arthur API v3, as its Python SDK 3.33.3 speaks it: `batch_id` first, then the one
file; RFC 7578 otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from tidepost.sandbox.catalog import BadRequest

_LONGEST_FIELD: Final = 64 << 10


@dataclass(slots=True)
class Form:
    """What a body held: the small parts by name, and the name of the one file part."""

    fields: dict[str, str] = field(default_factory=dict)
    file_part: str = ""
    size: int = 0


class _Parts:
    """Collects the parts as the parser finds them."""

    def __init__(self, file_parts: frozenset[str], target: BinaryIO) -> None:
        self.form = Form()
        self.ended = False
        self._file_parts = file_parts
        self._target = target
        self._header = bytearray()
        self._value = bytearray()
        self._name = ""
        self._field = bytearray()

    def on_part_begin(self) -> None:
        self._name = ""
        self._field.clear()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode(errors="replace")
        self._header.clear()
        self._value.clear()

    def on_headers_finished(self) -> None:
        if self._name in self._file_parts:
            if self.form.file_part:
                raise BadRequest("one file a request: the body holds two")
            self.form.file_part = self._name
        elif self._name != "batch_id":
            raise BadRequest(f"unknown part {self._name!r}: expected {', '.join(sorted(self._file_parts))}")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name in self._file_parts:
            self.form.size += end - start
            self._target.write(memoryview(data)[start:end])
        elif len(self._field) + end - start > _LONGEST_FIELD:
            raise BadRequest(f"part {self._name!r} is too long")
        else:
            self._field += data[start:end]

    def on_part_end(self) -> None:
        if self._name not in self._file_parts:
            self.form.fields[self._name] = self._field.decode(errors="replace")

    def on_end(self) -> None:
        self.ended = True

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}


async def receive(
    chunks: AsyncIterator[bytes], content_type: str, *, file_parts: frozenset[str], target: Path
) -> Form:
    """Writes the file part (one of `file_parts`) to `target`; BadRequest when the body is not such a form, is cut
    short, or holds no file or an empty one."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest("the body must be multipart/form-data")
    with target.open("wb") as out:
        parts = _Parts(file_parts, out)
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        try:
            async for chunk in chunks:
                parser.write(chunk)
            parser.finalize()
        except MultipartParseError as error:
            raise BadRequest("the body is not well-formed multipart/form-data") from error
    if not parts.ended:
        raise BadRequest("the body ends before its last boundary")
    if not parts.form.file_part:
        raise BadRequest(f"the part {' or '.join(sorted(file_parts))} is missing")
    if parts.form.size == 0:
        raise BadRequest(f"the part {parts.form.file_part!r} is empty")
    return parts.form
