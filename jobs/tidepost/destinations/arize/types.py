"""What Arize takes in a column, and what a staged type becomes there without changing a value.

The types are those that Arize's Python SDKs 7.54 and 8.61 let pass, which mirror the server's. Everything else is
cast where every value stays what it is, and refused where that cannot be told from the type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import pyarrow as pa


class Role(StrEnum):
    """What a column is at Arize, as messages call it."""

    ID = "prediction id"
    TIME = "timestamp"
    NUMBER = "numeric label"
    CATEGORY = "label"
    SCORE = "score"
    FEATURE = "feature"
    TAG = "tag"
    SHAP = "SHAP value"
    RANK = "rank"


_SMALL: Final = (pa.int8(), pa.int16())
_INTEGERS: Final = (*_SMALL, pa.int32(), pa.int64())
_FLOATS: Final = (pa.float32(), pa.float64())
_NUMBERS: Final = (*_INTEGERS, *_FLOATS)
_PLAIN: Final = (*_NUMBERS, pa.bool_(), pa.string(), pa.null())
_TEXTS: Final = pa.list_(pa.string())
_TAKEN: Final[Mapping[Role, tuple[pa.DataType, ...]]] = {
    Role.ID: (pa.string(), *_INTEGERS),
    Role.NUMBER: (*_NUMBERS, pa.null()),
    Role.CATEGORY: _PLAIN,
    Role.SCORE: (*_NUMBERS, pa.null()),
    Role.FEATURE: (*_PLAIN, _TEXTS),
    Role.TAG: _PLAIN,
    Role.SHAP: (pa.int32(), pa.int64(), *_FLOATS),
    Role.RANK: _INTEGERS,
}
_MENDED: Final[Mapping[Role, str]] = {
    Role.ID: "VARCHAR",
    Role.NUMBER: "DOUBLE",
    Role.CATEGORY: "VARCHAR",
    Role.SCORE: "DOUBLE",
    Role.FEATURE: "DOUBLE",
    Role.TAG: "VARCHAR",
    Role.SHAP: "DOUBLE",
    Role.RANK: "BIGINT",
}
EXACT_DIGITS: Final = 15
"""A decimal of so many digits is told from every other one as a double."""

_WIDENED: Final = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_list(pa.string()): _TEXTS,
}
_DUCKDB: Final = {
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "HUGEINT": pa.decimal128(38, 0),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "VARCHAR": pa.string(),
    "UUID": pa.string(),
    "DATE": pa.date32(),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", "UTC"),
    "VARCHAR[]": _TEXTS,
}
_DECIMAL: Final = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")


def arrow_type(duckdb: str) -> pa.DataType | None:
    """The Arrow type of a staged DuckDB type; None for one that never goes to Arize."""
    text = duckdb.upper()
    found = _DECIMAL.fullmatch(text)
    if found:
        return pa.decimal128(int(found[1]), int(found[2]))
    return pa.string() if text.startswith("ENUM") else _DUCKDB.get(text)


def wire_type(role: Role, type_: pa.DataType) -> pa.DataType | None:
    """The type in which a column goes; None where Arize takes none that holds the same values.

    Integers beyond 64 bits have a type: whether they fit is each value's matter.
    """
    if role is Role.TIME:
        zoned = pa.types.is_timestamp(type_) and type_.tz is not None
        return type_ if zoned else None
    plain = _plain(type_)
    if role is Role.SHAP and plain in _SMALL:
        return pa.int32()
    return plain if plain in _TAKEN[role] else None


def _plain(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_decimal(type_):
        if type_.scale == 0:
            return pa.int64()
        return pa.float64() if type_.precision <= EXACT_DIGITS else type_
    if pa.types.is_dictionary(type_):
        return _plain(type_.value_type)
    return _WIDENED.get(type_, type_)


def mended(name: str, role: Role, type_: str) -> str:
    """What is wrong with a column's type, and what to write instead."""
    quoted = '"' + name.replace('"', '""') + '"'
    if role is Role.TIME:
        return f"{name} is {type_}, which is no {role}: it has no time zone"
    target = "VARCHAR" if type_.upper().startswith(("DATE", "TIME")) and role is Role.FEATURE else _MENDED[role]
    return f"{name} is {type_}, which is no {role} of Arize's; write CAST({quoted} AS {target})"
