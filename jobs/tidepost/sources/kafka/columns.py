"""Columns of Kafka messages: the SQL that makes them of what arrived, and of each message what is wrong with it.

| arriving | |
|---|---|
| o, t | offset; timestamp in milliseconds since 1970, NULL where the message has none |
| k, v | key and value as text; a value that is not UTF-8 is there in base64 |
| h0, h1, … | the headers that columns name, as text |
| bad | why the message is poison already, or NULL |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tidepost.ports import CURSOR, FAULT, WHERE
from tidepost.rows.recast import ZONED, recast
from tidepost.sql import quote_identifier, quote_literal

TYPES: Final = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "float": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": ZONED,
}
FIXED: Final = {"offset": "BIGINT", "partition": "BIGINT", "timestamp": ZONED, "topic": "VARCHAR"}
MICROSECONDS: Final = {"s": 10**6, "ms": 10**3, "us": 1}
NOT_JSON, NOT_UTF8, NO_VALUE, WRONG = "not_json", "not_utf8", "no_value", "wrong_type"
NOT_AVRO, NO_SCHEMA = "not_avro", "unknown_schema"


@dataclass(frozen=True, slots=True)
class Column:
    """Where a column is in a message.

    place: what `at` names: a path in DuckDB's JSON notation, a header, or a part of the message
    type:  as the definition says it
    unit:  of a timestamp that is a number
    """

    name: str
    place: Literal["path", "header", "message"]
    at: str
    type: str = "string"
    unit: str | None = None

    @property
    def fixed(self) -> bool:
        """Whether it is always there, and of a type of its own."""
        return self.place == "message" and self.at in FIXED

    @property
    def duckdb(self) -> str:
        return FIXED[self.at] if self.fixed else TYPES[self.type]


def headers_of(columns: Sequence[Column]) -> tuple[str, ...]:
    """The headers that columns name, each once."""
    return tuple(dict.fromkeys(one.at for one in columns if one.place == "header"))


def keyed(columns: Iterable[Column]) -> bool:
    """Whether any of them is the key."""
    return any(one.place == "message" and one.at == "key" for one in columns)


def select(columns: Mapping[str, Column], wanted: Sequence[str], *, topic: str, partition: int, rows: str) -> str:
    """SQL over arriving messages with the columns that are wanted, `CURSOR`, `FAULT` and `WHERE`.

    A message is judged by all columns, so that what it is does not depend on who reads it.
    """
    paths = list(dict.fromkeys(one.at for one in columns.values() if one.place == "path"))
    headers = headers_of(tuple(columns.values()))
    texts = {name: _text(one, paths, headers) for name, one in columns.items() if not one.fixed}
    fixed = {"offset": "o", "partition": str(partition), "timestamp": "make_timestamptz(t * 1000)"}
    fixed["topic"] = quote_literal(topic)
    typed = {name: _value(text, columns[name]) for name, text in texts.items() if columns[name].type != "string"}
    once = {name: f"c{number}" for number, name in enumerate(typed)}
    values = {name: fixed[one.at] if one.fixed else once.get(name, texts.get(name)) for name, one in columns.items()}
    faults = ["WHEN bad IS NOT NULL THEN bad"]
    fields = "NULL"
    if paths:
        listed = ", ".join(quote_literal(path) for path in paths)
        fields = f"CASE WHEN bad IS NULL AND json_valid(v) THEN json_extract_string(v, [{listed}]) END"
        faults.append(f"WHEN fields IS NULL THEN {quote_literal(NOT_JSON)}")
    faults += [
        f"WHEN {texts[name]} IS NOT NULL AND {value} IS NULL THEN {quote_literal(f'{WRONG}:{name}')}"
        for name, value in once.items()
    ]
    chosen = [f"{values[name]} AS {quote_identifier(name)}" for name in wanted]
    where = f"{{'topic': {quote_literal(topic)}, 'partition': {partition}, 'offset': o, 'value': v}}"
    chosen += [
        f"CAST(o AS BIGINT) AS {quote_identifier(CURSOR)}",
        f"CASE {' '.join(faults)} END AS {quote_identifier(FAULT)}",
        f"{where} AS {quote_identifier(WHERE)}",
    ]
    # Each value is computed in a layer of its own, once: the next one asks for it twice.
    inner = f"SELECT *, {fields} AS fields FROM {rows}"
    layer = "".join(f", {sql} AS {once[name]}" for name, sql in typed.items())
    return f"SELECT {', '.join(chosen)} FROM (SELECT *{layer} FROM ({inner}) AS a) AS m"


def _text(column: Column, paths: Sequence[str], headers: Sequence[str]) -> str:
    if column.place == "path":
        return f"fields[{paths.index(column.at) + 1}]"
    return f"h{headers.index(column.at)}" if column.place == "header" else "k"


def _value(text: str, column: Column) -> str:
    """A text as the column's type; NULL where it is not exactly of it."""
    if column.type == "string":
        return text
    if column.unit is None:
        return recast(text, "VARCHAR", TYPES[column.type])
    number = f"TRY_CAST({text} AS DECIMAL(28, 9))"
    whole = f"{number} // 1000" if column.unit == "ns" else f"{number} * {MICROSECONDS[column.unit]}"
    return f"make_timestamptz(TRY_CAST(floor({whole}) AS BIGINT))"
