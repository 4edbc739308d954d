"""What was learnt of a source's files, kept in a local file from run to run.

It is a cache alone: where it is missing, damaged or of another version, the files are looked at again. It is written
whole and then renamed, so readers never see half of one; of two that write at once the later one's stays.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from tidepost.cursor import CursorType
from tidepost.ranges import Range

FORM: Final = b"1"
MOST: Final = 250_000
"""As many files are remembered, the newest known ones; more only if as many are listed at once."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What a parquet file's footer says.

    version:         of the file, as it was listed
    schema:          names and types of all its columns, as a hash
    says:            the type of cursor of what follows; None where the footer does not certainly say what it holds
    lowest, highest: the cursor's positions; None where the file holds none
    named:           the file has the cursor as a column
    nulls:           rows without a cursor; None where the footer does not say
    rows:            all rows
    """

    version: str
    schema: str
    says: CursorType | None = None
    lowest: int | None = None
    highest: int | None = None
    named: bool = False
    nulls: int | None = None
    rows: int = 0

    def meets(self, window: Range) -> bool:
        """Whether the file can hold a position of a window."""
        return (
            self.lowest is not None
            and self.highest is not None
            and self.lowest < window.end
            and self.highest >= window.start
        )


_POSITION: Final = pa.decimal128(38)
_SCHEMA: Final = pa.schema(
    [
        ("path", pa.string()),
        ("version", pa.string()),
        ("schema", pa.string()),
        ("says", pa.string()),
        ("lowest", _POSITION),
        ("highest", _POSITION),
        ("named", pa.bool_()),
        ("nulls", pa.int64()),
        ("rows", pa.int64()),
    ]
)


def load(file: Path, about: str) -> dict[str, Footer]:
    """path → footer; empty where there is no whole file that was saved `about` the same."""
    try:
        table = pq.read_table(file, page_checksum_verification=True, memory_map=False)
    except (OSError, pa.ArrowException):
        return {}
    if table.schema.remove_metadata() != _SCHEMA or table.schema.metadata != _metadata(about):
        return {}
    columns = [
        table[name].cast(pa.string()).to_pylist() if of == _POSITION else table[name].to_pylist()
        for name, of in zip(_SCHEMA.names, _SCHEMA.types, strict=True)
    ]
    return {
        path: Footer(version, schema, says and CursorType(says), _int(lowest), _int(highest), named, nulls, rows)
        for path, version, schema, says, lowest, highest, named, nulls, rows in zip(*columns, strict=True)
    }


def save(file: Path, about: str, footers: Mapping[str, Footer], listed: int) -> None:
    """Keep what is known, if the folder of caches is there and can be written; `listed` is how many files are."""
    kept = list(footers.items())[-max(MOST, listed) :]
    names = ["path", *(one.name for one in fields(Footer))]
    values: list[Iterable[object]] = [[] for _ in names] if not kept else [*zip(*_rows(kept), strict=True)]
    with suppress(OSError):
        handle, draft = tempfile.mkstemp(prefix=".", suffix=".draft", dir=file.parent)
        os.close(handle)
        try:
            table = pa.table(
                {name: pa.array(of, _SCHEMA.field(name).type) for name, of in zip(names, values, strict=True)},
                _SCHEMA.with_metadata(_metadata(about)),
            )
            pq.write_table(table, draft, compression="zstd", write_page_checksum=True)
            Path(draft).replace(file)
        finally:
            Path(draft).unlink(missing_ok=True)


def _rows(kept: Iterable[tuple[str, Footer]]) -> Iterable[tuple[object, ...]]:
    return ((path, *astuple(footer)) for path, footer in kept)


def _metadata(about: str) -> dict[bytes, bytes]:
    return {b"form": FORM, b"about": about.encode()}


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)
