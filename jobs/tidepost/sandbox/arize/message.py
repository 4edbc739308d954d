"""The protobuf message that says what the columns of a batch are: `Schema` in the `public.proto` of Arize's SDKs."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tidepost.sandbox.catalog import BadRequest

ENVIRONMENTS: Final = {1: "training", 2: "validation", 3: "production"}
MODEL_TYPES: Final = {2: "numeric", 4: "score_categorical", 5: "ranking"}
SINGLE: Final = {
    1: "prediction_id",
    3: "timestamp",
    4: "prediction_label",
    5: "prediction_score",
    6: "actual_label",
    7: "actual_score",
    15: "prediction_group",
    16: "rank",
}
_FEATURES, _SHAP, _TAGS = 2, 8, 9

Field = tuple[int, int | bytes]


@dataclass(frozen=True, slots=True)
class Message:
    """What a batch says of itself.

    single: what it is → column, for the keys of `SINGLE`'s values that are given
    shap:   feature → column
    """

    model: str
    version: str | None
    batch_id: str | None
    environment: str
    model_type: str
    single: dict[str, str]
    features: tuple[str, ...]
    tags: tuple[str, ...]
    shap: dict[str, str]

    @property
    def columns(self) -> list[str]:
        """Every column that it names."""
        return [*self.single.values(), *self.features, *self.tags, *self.shap.values()]


def decoded(text: bytes) -> Message:
    """The message in a schema's metadata or header. Raises BadRequest where it is none that this sandbox knows."""
    try:
        return _message(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, IndexError, KeyError) as error:
        raise BadRequest(f"arize-schema holds no message that is understood here: {error}") from error


def _message(raw: bytes) -> Message:
    top = dict(_fields(raw))
    constants = dict(_fields(_raw(top.get(1, b""))))
    if not constants.get(1):
        raise BadRequest("the message names no model")
    single: dict[str, str] = {}
    features: list[str] = []
    tags: list[str] = []
    shap: dict[str, str] = {}
    for number, value in _fields(_raw(top.get(4, b""))):
        if number in SINGLE:
            single[SINGLE[number]] = _text(value)
        elif number == _FEATURES:
            features.append(_text(value))
        elif number == _TAGS:
            tags.append(_text(value))
        elif number == _SHAP:
            entry = dict(_fields(_raw(value)))
            shap[_text(entry[1])] = _text(entry[2])
        else:
            raise BadRequest(f"the message has a field {number}, which this sandbox does not know")
    return Message(
        model=_text(constants[1]),
        version=_text(constants[2]) if 2 in constants else None,
        batch_id=_text(constants[3]) if 3 in constants else None,
        environment=ENVIRONMENTS[_number(constants.get(4, 0))],
        model_type=MODEL_TYPES[_number(constants.get(5, 0))],
        single=single,
        features=tuple(features),
        tags=tuple(tags),
        shap=shap,
    )


def _fields(raw: bytes) -> Iterator[Field]:
    """A message's fields, in order: number and value, of which it has only varints and bytes."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        if key & 7 == 0:
            value, at = _varint(raw, at)
            yield key >> 3, value
        elif key & 7 == 2:
            length, at = _varint(raw, at)
            if at + length > len(raw):
                raise ValueError("it ends too early")
            yield key >> 3, raw[at : at + length]
            at += length
        else:
            raise ValueError(f"it has a field of wire type {key & 7}")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _raw(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ValueError("a number where a message was expected")


def _text(value: int | bytes) -> str:
    return _raw(value).decode()


def _number(value: int | bytes) -> int:
    return value if isinstance(value, int) else 0
