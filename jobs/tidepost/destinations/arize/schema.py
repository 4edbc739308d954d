"""The message that tells Arize what each column of a batch is: protobuf, encoded by hand.

The fields and their numbers are those of `Schema` in the `public.proto` of Arize's Python SDKs 7.54 and 8.61, which
write them in the order of the numbers; what is empty is left out.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

METADATA_KEY: Final = b"arize-schema"
"""Of the Arrow schema's metadata: its value is the message in base64."""

ENVIRONMENTS: Final = {"training": 1, "validation": 2, "production": 3}
MODEL_TYPES: Final = {
    "numeric": 2,
    "regression": 2,
    "score_categorical": 4,
    "binary_classification": 4,
    "ranking": 5,
}
"""As a job writes them, and the number of what Arize takes them for."""

NUMERIC: Final = frozenset({"numeric", "regression"})


@dataclass(frozen=True, slots=True)
class Constants:
    """What is the same for every row.

    environment, model_type: keys of `ENVIRONMENTS` and `MODEL_TYPES`
    """

    model: str
    environment: str
    model_type: str
    version: str = ""
    batch_id: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns by what they are, each by its name; empty where there is none.

    shap: feature → column
    """

    prediction_id: str
    timestamp: str = ""
    prediction_label: str = ""
    prediction_score: str = ""
    actual_label: str = ""
    actual_score: str = ""
    features: tuple[str, ...] = ()
    shap: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    group: str = ""
    rank: str = ""

    @property
    def named(self) -> tuple[str, ...]:
        """Every column, each once."""
        single = (
            self.prediction_id,
            self.timestamp,
            self.prediction_label,
            self.prediction_score,
            self.actual_label,
            self.actual_score,
            self.group,
            self.rank,
        )
        every = (*single, *self.features, *self.tags, *self.shap.values())
        return tuple(dict.fromkeys(name for name in every if name))


def encoded(constants: Constants, columns: Columns) -> bytes:
    """The message, as it stands in the metadata: base64 of its bytes."""
    return base64.b64encode(message(constants, columns))


def message(constants: Constants, columns: Columns) -> bytes:
    """The message's bytes."""
    about = (
        _text(1, constants.model)
        + _text(2, constants.version)
        + _text(3, constants.batch_id)
        + _number(4, ENVIRONMENTS[constants.environment])
        + _number(5, MODEL_TYPES[constants.model_type])
    )
    named = (
        _text(1, columns.prediction_id)
        + b"".join(_text(2, name) for name in columns.features)
        + _text(3, columns.timestamp)
        + _text(4, columns.prediction_label)
        + _text(5, columns.prediction_score)
        + _text(6, columns.actual_label)
        + _text(7, columns.actual_score)
        + b"".join(_bytes(8, _text(1, feature) + _text(2, name)) for feature, name in columns.shap.items())
        + b"".join(_text(9, name) for name in columns.tags)
        + _text(15, columns.group)
        + _text(16, columns.rank)
    )
    return _bytes(1, about) + _bytes(4, named)


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode()) if value else b""


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
