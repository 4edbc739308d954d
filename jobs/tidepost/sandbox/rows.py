"""Rows as JSON: checked one by one, and turned into a parquet file that loads like any other."""

from __future__ import annotations

import codecs
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from tidepost.sandbox.catalog import BadRequest, Column, Model, Stream

_ARROW: Final = {
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "STRING": pa.string(),
    "UNSTRUCTURED_TEXT": pa.string(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
}
_BESIDE: Final = frozenset({"partner_inference_id", "inference_timestamp", "batch_id", "ground_truth_timestamp"})
_ROWS_A_GROUP: Final = 20_000
_CHUNK: Final = 4 << 20
_LONGEST_ROW: Final = 64 << 20


class BadRow(Exception):
    """A row that breaks a rule; the message names the key."""


class RowCheck:
    """The rules of a model's rows in one stream.

    A row nests its values: inferences under `inference_data` and `ground_truth_data`, ground truth under
    `ground_truth_data`, reference data under `reference_data`.
    """

    def __init__(self, model: Model, stream: Stream, *, batch_id: str | None = None) -> None:
        self._model = model
        self._stream = stream
        self._columns = {c.name: c for c in model.columns(stream, batch_named=batch_id is not None)}
        self._labels = [a.name for a in model.labels]
        self.schema = pa.schema([(c.name, _ARROW[c.value_type]) for c in self._columns.values()])

    def check(self, row: object) -> dict[str, Any]:
        """The row's values by column, as Python values; BadRow says what is wrong with it."""
        flat = self._flattened(row)
        if unknown := next((name for name in flat if name not in self._columns), None):
            raise BadRow(f"{unknown!r} is not an attribute of the model")
        values = {}
        for name, column in self._columns.items():
            value = flat.get(name)
            if value is not None:
                values[name] = checked(column, value)
            elif not column.nullable:
                raise BadRow(f"{name} is missing or null")
            elif column.required and name not in flat:
                raise BadRow(f"{name} is missing")
        if values.get("partner_inference_id") == "":
            raise BadRow("partner_inference_id is empty")
        if self._stream == "inferences":
            self._check_labels(values)
        return values

    def _flattened(self, row: object) -> dict[str, Any]:
        if not isinstance(row, dict):
            raise BadRow("a row is a JSON object")
        nests = {
            "inferences": ("inference_data", "ground_truth_data"),
            "ground_truth": ("ground_truth_data",),
            "reference": ("reference_data",),
        }[self._stream]
        flat: dict[str, Any] = {}
        for key, value in row.items():
            if key in nests:
                if not isinstance(value, dict):
                    raise BadRow(f"{key} must be an object")
                if misplaced := next((name for name in value if self._misplaced(key, name)), None):
                    raise BadRow(f"{misplaced!r} does not belong in {key}")
                flat.update(value)
            elif key in _BESIDE and key in self._columns:
                flat[key] = value
            else:
                raise BadRow(f"unknown key {key!r}")
        if nests[0] not in row:
            raise BadRow(f"{nests[0]} is missing")
        return flat

    def _misplaced(self, nest: str, name: str) -> bool:
        return name in _BESIDE or (
            nest != "reference_data" and (name in self._labels) != (nest == "ground_truth_data")
        )

    def _check_labels(self, values: Mapping[str, Any]) -> None:
        given = [name for name in self._labels if name in values]
        if not given:
            return
        if missing := [name for name in (*self._labels, "ground_truth_timestamp") if name not in values]:
            raise BadRow(f"{missing[0]} is missing or null, although {given[0]} is there")


def checked(column: Column, value: object) -> object:
    """The value as it is stored; BadRow when it is not of the column's type."""
    kind = column.value_type
    if kind == "INTEGER" and isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return value
    if kind == "FLOAT" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind in ("STRING", "UNSTRUCTURED_TEXT") and isinstance(value, str):
        return value
    if kind == "BOOLEAN" and isinstance(value, bool):
        return value
    if kind == "TIMESTAMP":
        return instant(column.name, value)
    raise BadRow(f"{column.name} must be of type {kind}")


def instant(name: str, value: object) -> datetime:
    """A moment from an ISO 8601 text that names its zone; BadRow otherwise."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise BadRow(f"{name} must be an ISO 8601 timestamp")
    if moment.tzinfo is None:
        raise BadRow(f"{name} must have a time zone")
    return moment


def parse_rows(body: bytes) -> list[Any]:
    """The rows of a JSON body; BadRequest when it is not an array."""
    try:
        rows = json.loads(body)
    except ValueError as error:
        raise BadRequest("the body is not JSON") from error
    if not isinstance(rows, list):
        raise BadRequest("the body must be a JSON array of rows")
    return rows


def write_rows(check: RowCheck, rows: list[Any], target: Path) -> list[str | None]:
    """Writes the good rows to a parquet file, in order, and returns each row's fault, None for a good one."""
    good: list[dict[str, Any]] = []
    faults: list[str | None] = []
    for row in rows:
        try:
            good.append(check.check(row))
            faults.append(None)
        except BadRow as error:
            faults.append(str(error))
    pq.write_table(pa.Table.from_pylist(good, schema=check.schema), target)
    return faults


def convert_file(check: RowCheck, source: Path, target: Path) -> Counter[str]:
    """Writes the good rows of a file that holds a JSON array to a parquet file, in pieces that fit in memory, and
    counts the others by fault; BadRequest when the file is no JSON array."""
    faults: Counter[str] = Counter()
    group: list[dict[str, Any]] = []
    with source.open("rb") as stream, pq.ParquetWriter(target, check.schema) as writer:
        for row in _array(stream):
            try:
                group.append(check.check(row))
            except BadRow as error:
                faults[str(error)] += 1
            if len(group) == _ROWS_A_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema=check.schema))
                group = []
        writer.write_table(pa.Table.from_pylist(group, schema=check.schema))
    return faults


def _array(stream: BinaryIO) -> Iterator[object]:
    """The elements of a JSON array, read in chunks."""
    bad = BadRequest("the file is neither parquet nor a JSON array of rows")
    try:
        chunks = _text(stream)
        buffer = next(chunks, "").lstrip()
        if not buffer.startswith("["):
            raise bad
        decoder = json.JSONDecoder()
        at, first = 1, True
        while True:
            at = _skip(buffer, at)
            closing = buffer[at : at + 1]
            if closing == "]" and not buffer[at + 1 :].strip() and not "".join(chunks).strip():
                return
            start = at
            if not first and closing == ",":
                start = _skip(buffer, at + 1)
            elif not first and closing:
                raise bad
            try:
                row, at = decoder.raw_decode(buffer, start)
            except ValueError:  # the buffer ends within a row, or between two
                more = next(chunks, None)
                if more is None or len(buffer) - at > _LONGEST_ROW:
                    raise bad from None
                buffer, at = buffer[at:] + more, 0
                continue
            first = False
            yield row
    except UnicodeDecodeError as error:
        raise bad from error


def _text(stream: BinaryIO) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    while chunk := stream.read(_CHUNK):
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _skip(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at
