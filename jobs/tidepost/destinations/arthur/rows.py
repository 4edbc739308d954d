"""Rows as JSON, in the form of Arthur API v3 whose answer names each row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from tidepost.destinations.arthur.model import BATCH, ID, LABEL_TIME, TIME, Attribute, Model
from tidepost.errors import Misconfigured
from tidepost.model import StreamName

ROWS: Final = 1_000
BYTES: Final = 4_000_000
"""Of one request; a request of one row may be longer."""


class NotSendable(Exception):
    """A value that JSON, or the model's attribute, cannot hold. Its text names the column, never the value."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, and where it stood among those that were given."""

    position: int
    id: str
    text: bytes


def encode(model: Model, stream: StreamName, position: int, row: Mapping[str, object]) -> Row:
    """A row as JSON. Columns of None are sent as null, except `batch_id`, and the ground truth of a row of
    inferences without a `ground_truth_timestamp`.

    Raises NotSendable; Misconfigured for a column that the model does not have.
    """
    values: dict[str, object] = {}
    labels: dict[str, object] = {}
    for name, value in row.items():
        if name in (ID, TIME, LABEL_TIME, BATCH):
            continue
        attribute = model.attributes.get(name)
        if attribute is None:
            raise Misconfigured(f"{name} is not an attribute of the model")
        (labels if attribute.is_label else values)[name] = _value(attribute, value)
    found = row.get(ID)
    if not isinstance(found, str) or not found:
        raise NotSendable(f"{ID} is not a text")
    record: dict[str, object] = {ID: found}
    if stream is StreamName.INFERENCES:
        record |= {TIME: _time(TIME, row.get(TIME)), "inference_data": values}
        if row.get(BATCH) is not None:
            record[BATCH] = row[BATCH]
    if stream is StreamName.GROUND_TRUTH or row.get(LABEL_TIME) is not None:
        record |= {LABEL_TIME: _time(LABEL_TIME, row.get(LABEL_TIME)), "ground_truth_data": labels}
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return Row(position, found, text.encode())
    except UnicodeEncodeError:
        raise NotSendable("a text is not valid Unicode") from None


def groups(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows in order, in groups of at most 1000 and about 4 MB."""
    start, size = 0, 0
    for at, row in enumerate(rows):
        if at > start and (at - start == ROWS or size + len(row.text) + 1 > BYTES):
            yield rows[start:at]
            start, size = at, 0
        size += len(row.text) + 1
    if start < len(rows):
        yield rows[start:]


def payload(rows: Sequence[Row]) -> bytes:
    """The body of one request."""
    return b"[" + b",".join(row.text for row in rows) + b"]"


def _time(name: str, value: object) -> str:
    if not isinstance(value, datetime):
        raise NotSendable(f"{name} is not a time")
    if value.utcoffset() is None:
        raise NotSendable(f"{name} has no time zone")
    return value.isoformat()


def _value(attribute: Attribute, value: object) -> object:
    """A value as its attribute wants it: JSON's own types as they are, times with their zone, whatever else (dates,
    decimals, UUIDs) as a number where the attribute is one, and as text otherwise."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise NotSendable(f"{attribute.name} is not a finite number")
            return value
        case datetime():
            return _time(attribute.name, value)
        case Decimal() if attribute.value_type in ("FLOAT", "INTEGER"):
            if not value.is_finite():
                raise NotSendable(f"{attribute.name} is not a finite number")
            if attribute.value_type == "FLOAT":
                return float(value)
            if value != value.to_integral_value():
                raise NotSendable(f"{attribute.name} is not a whole number")
            return int(value)
        case bytes() | bytearray() | memoryview() | list() | tuple() | dict() | set():
            raise NotSendable(f"{attribute.name} is of a type that no attribute holds")
    return str(value)
