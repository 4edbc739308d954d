"""What the footers of parquet files say: which columns a file has, and which range of the cursor it can hold.

A file's footer is read once, and again when the file's version differs. A file whose statistics are missing, or not
certainly understood, is never left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from tidepost.cursor import CursorKind, CursorType
from tidepost.errors import Misconfigured, Retryable
from tidepost.ranges import Range
from tidepost.sources.cache import Footer, load, save
from tidepost.sources.listing import File

AT_ONCE: Final = 16
"""Footers that are read at the same time where that is mostly waiting. Threads that do not wait only hinder each
other: a local footer takes three times as long then."""
FEW: Final = 4
TICKS: Final = {"nanoseconds": 1, "microseconds": 1_000, "milliseconds": 1_000_000}


class Footers:
    """The footers of one source's files.

    column: the cursor, if it is a column of the files themselves
    open:   what gives the bytes of a listed file, or its path
    cache:  the local file that they are kept in
    about:  what they are footers of, so that no other source's are taken for them
    far:    reading one is mostly waiting
    """

    def __init__(
        self, column: str, open_: Callable[[File], str | IO[bytes]], cache: Path | None, about: str, *, far: bool
    ) -> None:
        self._column = column.lower()
        self._open = open_
        self._cache = cache
        self._about = about
        self._far = far
        self._known = {} if cache is None else load(cache, about)

    def of(self, files: Sequence[File]) -> list[Footer]:
        """The footer of each file. Raises Retryable for a file that is gone, Misconfigured for one that is no
        parquet."""
        known = self._known
        new = [file for file in files if file.path not in known or known[file.path].version != file.version]
        for file, footer in zip(new, self._read(new), strict=True):
            known.pop(file.path, None)  # so that it is the newest known
            known[file.path] = footer
        if new and self._cache is not None:
            save(self._cache, self._about, known, len(files))
        return [known[file.path] for file in files]

    def within(self, kind: CursorKind, files: Sequence[File], window: Range) -> list[File]:
        """The files whose statistics can meet a window, and at least one that has the cursor if any does."""
        pairs = list(zip(files, self.of(files), strict=True))
        chosen = [(file, footer) for file, footer in pairs if footer.says != kind.type or footer.meets(window)]
        if not any(footer.named for _, footer in chosen):
            named = [pair for pair in pairs if pair[1].named]
            chosen = [*chosen, *named[:1]] if named else pairs
        return [file for file, _ in chosen]

    def _read(self, files: Sequence[File]) -> Iterator[Footer]:
        if len(files) <= FEW or not self._far:
            yield from map(self._look, files)
            return
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="tidepost-footers") as pool:
            yield from pool.map(self._look, files)

    def _look(self, file: File) -> Footer:
        try:
            return self._footer(file, pq.read_metadata(self._open(file)))
        except pa.ArrowException as error:
            raise Misconfigured(
                f"source.files: {file.path} is no parquet file that can be read: {str(error).splitlines()[0]}",
                hint="Remove it, or write it whole: under another name first, then renamed.",
            ) from error
        except OSError as error:
            raise Retryable(
                f"source.files: {file.path} was there and cannot be read: {error.strerror or error}",
                hint="Nothing was lost: run again, and the files are listed anew.",
            ) from error

    def _footer(self, file: File, metadata: Any) -> Footer:
        schema = metadata.schema
        text = str(schema).partition("\n")[2]  # its first line is an address in memory
        sha = hashlib.sha256(text.encode()).hexdigest()
        number = next((n for n in range(len(schema)) if schema.column(n).path.lower() == self._column), None)
        if number is None:
            return Footer(file.version, sha, nulls=metadata.num_rows, rows=metadata.num_rows)
        chunks = [metadata.row_group(n).column(number) for n in range(metadata.num_row_groups)]
        found = [chunk.statistics for chunk in chunks]
        nulls = None
        if all(one is not None and one.has_null_count for one in found):
            nulls = sum(one.null_count for one in found)
        says, position = _positions(schema.column(number))
        ends = [one for one in found if one is not None and one.has_min_max]
        certain = says is not None and all(
            one is not None and (one.has_min_max or (one.has_null_count and one.null_count == chunk.num_values))
            for one, chunk in zip(found, chunks, strict=True)
        )
        if not certain or position is None:
            return Footer(file.version, sha, named=True, nulls=nulls, rows=metadata.num_rows)
        return Footer(
            file.version,
            sha,
            says=says,
            lowest=min((position(one.min_raw) for one in ends), default=None),
            highest=max((position(one.max_raw) for one in ends), default=None),
            named=True,
            nulls=nulls,
            rows=metadata.num_rows,
        )


def _positions(column: Any) -> tuple[CursorType | None, Callable[[int], int] | None]:
    """The type of cursor that a column of a file is, and what makes positions of the integers in its statistics.
    Times without a zone are taken as if they were UTC. None for what is not certain."""
    if column.physical_type not in ("INT32", "INT64") or column.max_repetition_level:
        return None, None
    logical = json.loads(column.logical_type.to_json())
    match logical["Type"]:
        case "Timestamp" if logical["timeUnit"] in TICKS:
            tick = TICKS[logical["timeUnit"]]
            return CursorType.TIMESTAMP, lambda raw: raw * tick
        case "Date":
            return CursorType.DATE, lambda raw: raw
        case "Int" if not logical["isSigned"]:
            return CursorType.INTEGER, lambda raw: raw % (1 << int(logical["bitWidth"]))
        case "Int" | "None":
            return CursorType.INTEGER, lambda raw: raw
    return None, None
