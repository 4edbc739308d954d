"""Writing a cut's rows to parquet files, by partition, in memory that does not grow with the rows.

The files lie in a scratch folder, out of sight, until the slice is published. Their bytes are hashed as they are
written. Beside them, `keys.arrow` remembers for every row its id's hash, its cursor, and where it was put, so that
repeats can be found and resolved without reading the source again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidepost.cursor import HOUR, format_instant
from tidepost.engine import BATCH_ROWS
from tidepost.model import Part
from tidepost.ports import CURSOR
from tidepost.rows.shape import BATCH, EVENT, HASH
from tidepost.rows.shape import HOUR as HOUR_COLUMN

Partition = Literal["day", "hour"]
MOST_OPEN_FILES = 64
MOST_BUFFERED_ROWS = 8 * BATCH_ROWS
KEYS = "keys.arrow"


@dataclass(frozen=True, slots=True)
class Draft:
    """A finished file in the scratch folder, and the part that it is to become."""

    file: Path
    part: Part


def partition_path(hour: int, partition: Partition) -> str:
    """The hive-style folder of an hour of event time: `event_day=2013-01-03[/event_hour=05]`."""
    text = format_instant(hour * HOUR)
    day = f"event_day={text[:10]}"
    return day if partition == "day" else f"{day}/event_hour={text[11:13]}"


class HashedFile:
    """A file that is only written to, from its beginning to its end, and hashed on the way."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: pa.Buffer | bytes) -> int:
        view = memoryview(data).cast("B")
        self._hash.update(view)
        while view:
            written = self._file.write(view) or 0
            self.size += written
            view = view[written:]
        return len(memoryview(data))

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


class ParquetFile:
    """One parquet file being written: compressed with zstd, dictionaries for text only, a row group a batch."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self._sink = HashedFile(path)
        texts = [column.name for column in schema if pa.types.is_string(column.type)]
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"), schema, compression="zstd", use_dictionary=texts, store_schema=False
        )

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=BATCH_ROWS)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._sink.size

    def close(self) -> str:
        """Finish the file; returns its SHA-256 in hex."""
        try:
            self._writer.close()
        finally:
            self._sink.close()
        return self._sink.sha256


@dataclass(slots=True)
class _Open:
    number: int
    folder: str
    batch_id: str | None
    file: ParquetFile
    rows: int = 0
    waiting: list[pa.RecordBatch] = field(default_factory=list)
    waiting_rows: int = 0
    event_min: int | None = None
    event_max: int | None = None
    hours: dict[int, int] = field(default_factory=dict)


class Writer:
    """Takes batches of sendable rows with their steering columns; gives finished files.

    schema: of the staged columns
    rows, size: where a file ends and the next begins (the size is looked at between row groups)
    """

    def __init__(self, folder: Path, schema: pa.Schema, *, partition: Partition, rows: int, size: int) -> None:
        self._folder = folder
        self._schema = schema
        self._partition: Partition = partition
        self._rows, self._size = rows, size
        self._open: dict[tuple[int, str | None], _Open] = {}
        self._done: list[Draft] = []
        self._parts = 0
        self._buffered = 0
        self._keys: pa.RecordBatchFileWriter | None = None
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Let go of what is still open after an error; its files are of no use, and a full disk fails them too."""
        for one in self._open.values():
            with suppress(OSError, pa.ArrowException):
                one.file.close()
        self._open.clear()
        if self._keys is not None:
            with suppress(OSError, pa.ArrowException):
                self._keys.close()
            self._keys = None

    def add(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows == 0:
            return
        self.rows += batch.num_rows
        for hour, batch_id, rows in self._split(batch):
            at = 0
            while at < rows.num_rows:
                one = self._opened(hour, batch_id)
                taken = rows.slice(at, self._rows - one.rows - one.waiting_rows)
                at += taken.num_rows
                self._remember(one, taken)
                one.waiting.append(taken.select(self._schema.names))
                one.waiting_rows += taken.num_rows
                self._buffered += taken.num_rows
                if one.waiting_rows >= BATCH_ROWS or one.rows + one.waiting_rows >= self._rows:
                    self._flush(one)
        while self._buffered > MOST_BUFFERED_ROWS:
            self._flush(max(self._open.values(), key=lambda one: one.waiting_rows))

    def finish(self) -> tuple[Draft, ...]:
        """Close every file. The drafts are numbered from 0 in the order of their first rows."""
        for key in list(self._open):
            self._close(key)
        if self._keys is not None:
            self._keys.close()
            self._keys = None
        return tuple(sorted(self._done, key=lambda draft: draft.part.number))

    def _split(self, batch: pa.RecordBatch) -> Iterator[tuple[int, str | None, pa.RecordBatch]]:
        """The batch by partition (named by its first hour) and batch id, in the order of the rows."""
        hours = batch.column(HOUR_COLUMN)
        span = 24 if self._partition == "day" else 1
        present = sorted({hour // span * span for hour in pc.unique(hours).to_pylist()})
        for first in present:
            within = batch
            if len(present) > 1:
                mask = pc.and_(pc.greater_equal(hours, first), pc.less(hours, first + span))
                within = batch.filter(mask)
            if BATCH not in self._schema.names:
                yield first, None, within
                continue
            ids = within.column(BATCH)
            named = pc.unique(ids).to_pylist()
            for one in named:
                yield first, one, within if len(named) == 1 else within.filter(pc.equal(ids, one))

    def _opened(self, hour: int, batch_id: str | None) -> _Open:
        key = (hour, batch_id)
        one = self._open.get(key)
        if one is not None and (one.rows + one.waiting_rows >= self._rows or one.file.size >= self._size):
            self._close(key)
            one = None
        if one is None:
            if len(self._open) >= MOST_OPEN_FILES:
                self._close(next(iter(self._open)))
            number, self._parts = self._parts, self._parts + 1
            file = ParquetFile(self._folder / f"{number:05d}.parquet", self._schema)
            one = self._open[key] = _Open(number, partition_path(hour, self._partition), batch_id, file)
        return one

    def _remember(self, one: _Open, rows: pa.RecordBatch) -> None:
        ends = pc.min_max(rows.column(EVENT)).as_py()
        one.event_min = ends["min"] if one.event_min is None else min(one.event_min, ends["min"])
        one.event_max = ends["max"] if one.event_max is None else max(one.event_max, ends["max"])
        for counted in pc.value_counts(rows.column(HOUR_COLUMN)).to_pylist():
            one.hours[counted["values"]] = one.hours.get(counted["values"], 0) + counted["counts"]
        first = one.rows + one.waiting_rows
        keys = pa.record_batch(
            {
                "hash": rows.column(HASH),
                "cursor": rows.column(CURSOR),
                "part": pa.repeat(pa.scalar(one.number, pa.int32()), rows.num_rows),
                "row": pa.arange(first, first + rows.num_rows),
            }
        )
        if self._keys is None:
            self._keys = pa.ipc.new_file(str(self._folder / KEYS), keys.schema)
        self._keys.write_batch(keys)

    def _flush(self, one: _Open) -> None:
        if one.waiting:
            one.file.write(pa.Table.from_batches(one.waiting, self._schema))
            one.rows += one.waiting_rows
            self._buffered -= one.waiting_rows
            one.waiting, one.waiting_rows = [], 0

    def _close(self, key: tuple[int, str | None]) -> None:
        one = self._open.pop(key)
        self._flush(one)
        sha256 = one.file.close()
        self._done.append(
            Draft(
                one.file.path,
                Part(
                    number=one.number,
                    path=f"data/{one.folder}/{{sequence}}-{one.number:05d}.parquet",
                    rows=one.rows,
                    size=one.file.size,
                    sha256=sha256,
                    event_min=one.event_min or 0,
                    event_max=one.event_max or 0,
                    hours=dict(sorted(one.hours.items())),
                    batch_id=one.batch_id,
                ),
            )
        )


def staged_schema(reader: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """The schema of staged files: the named columns of the reader, all nullable, without metadata."""
    return pa.schema([pa.field(name, reader.field(name).type) for name in names])
