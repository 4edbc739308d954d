"""The labels that Arthur API v3's query endpoint shows, as tables in the types of the model's attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from tidepost.destinations.arthur.model import ID, LABEL_TIME, Attribute, Model
from tidepost.destinations.arthur.query import Ask, id_of, instant, selected
from tidepost.errors import Retryable
from tidepost.model import StreamName
from tidepost.ranges import Range

_TIME: Final = pa.timestamp("ms", "UTC")
_TYPES: Final[Mapping[str, pa.DataType]] = {
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": _TIME,
}
"""By value type; every other one is text."""


def labels(model: Model, window: Range, ask: Ask) -> Iterator[pa.Table]:
    """The labels with ground-truth timestamps in a window of milliseconds, in tables of at most 50,000 rows.
    Raises Retryable, also where a value is not of its attribute's type."""
    attributes = [one for one in model.attributes.values() if one.is_label]
    schema = pa.schema(
        [(ID, pa.string()), (LABEL_TIME, _TIME)]
        + [(one.name, _TYPES.get(one.value_type, pa.string())) for one in attributes]
    )
    names = (ID, LABEL_TIME, *(one.name for one in attributes))
    for rows in selected(StreamName.GROUND_TRUTH, window, names, ask):
        columns: list[Sequence[object]] = [
            [id_of(row) for row in rows],
            [instant(row.get(LABEL_TIME)) for row in rows],
            *([_value(one, row) for row in rows] for one in attributes),
        ]
        yield pa.table([pa.array(column, type_) for column, type_ in zip(columns, schema.types, strict=True)], schema)


def _value(attribute: Attribute, row: Mapping[str, Any]) -> object:
    """A label as its column holds it. JSON has numbers of one kind: 1 may stand for 1.0, and 1.0 for 1."""
    value = row.get(attribute.name)
    match attribute.value_type, value:
        case (_, None) | ("BOOLEAN", bool()):
            return value
        case ("INTEGER", int() | float()) if _is_whole(value):
            return int(value)
        case ("FLOAT", int() | float()) if not isinstance(value, bool):
            return float(value)
        case ("TIMESTAMP", str()):
            return instant(value)
        case (type_, str()) if type_ not in _TYPES:
            return value
    raise Retryable(f"a value of {attribute.name} in the platform's answer is no {attribute.value_type}")


def _is_whole(value: float) -> bool:
    return not isinstance(value, bool) and value % 1 == 0 and -(2**63) <= value < 2**63
