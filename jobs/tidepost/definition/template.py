"""Id templates: how a row's id is written from its columns, once for DuckDB and once for Python.

A template is text with columns in braces; text without any brace is the name of one column. `{{` and `}}` stand
for a brace.

    flight_id                               the column, as it is
    {carrier}{flight}-{origin}              columns between constant text
    {flight:05d}                            an integer, padded with zeros to 5 characters (a minus sign is one)
    {scheduled:%Y-%m-%d}                    a date, or a timestamp in UTC
    {scheduled:%Y%m%d|America/New_York}     a timestamp in that zone

How each type is written, so that one row always has one id, whatever engine or session reads it:

    text, enum                 as it is: not trimmed, its case kept
    integers                   decimal digits
    DECIMAL                    without trailing zeros: 1.50 is 1.5, 2.00 is 2
    BOOLEAN                    true, false
    UUID                       lower case, with dashes
    DATE                       2013-01-31
    TIMESTAMP WITH TIME ZONE   2013-01-31T05:00:00Z: in UTC, with as many decimals of the second as it has
    TIMESTAMP (no zone)        2013-01-31T05:00:00: its own digits and no Z, as its zone is not known here

A row that lacks one of the columns has no id (NULL), and so has an infinite date or timestamp. Floating point
columns are refused: their digits depend on who prints them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final, Literal
from uuid import UUID

from tidepost.definition.units import parse_zone
from tidepost.errors import Misconfigured
from tidepost.sql import quote_literal

_INTEGERS: Final = frozenset(
    {
        *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
        *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    }
)
_NAIVE: Final = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"})
_ZONED: Final = "TIMESTAMP WITH TIME ZONE"
_FLOATS: Final = frozenset({"FLOAT", "DOUBLE"})

_PAD: Final = re.compile(r"0([1-9][0-9]?)d", re.ASCII)
_DIRECTIVES: Final = "YmdHMSfjy%"

_Kind = Literal["integer", "decimal", "text", "plain", "date", "naive", "zoned"]


@dataclass(frozen=True, slots=True)
class Part:
    """One column of a template: as it is, padded to `width`, or formatted as time by `pattern` in `zone`."""

    column: str
    width: int = 0
    pattern: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. Two templates are equal when their texts are.

    ValueError: not a template, or one without any column, which would give every row the same id; the message is a
    sentence without subject.
    """

    text: str
    parts: tuple[str | Part, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if "\0" in self.text:
            raise ValueError("holds a NUL character")
        braces = "{" in self.text or "}" in self.text
        parts = tuple(_parse(self.text)) if braces else (Part(self.text),)
        if not self.text or not any(isinstance(part, Part) for part in parts):
            raise ValueError("names no column, so every row would have the same id")
        object.__setattr__(self, "parts", parts)

    def __str__(self) -> str:
        return self.text

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the id is made of, each once, in order."""
        return tuple(dict.fromkeys(part.column for part in self.parts if isinstance(part, Part)))

    def sql(self, types: Mapping[str, str], column_sql: Callable[[str], str], *, where: str = "") -> str:
        """The id as a DuckDB expression of type VARCHAR, NULL where any part is.

        types:      the DuckDB type of each column of the source, as DESCRIBE writes it
        column_sql: the expression of a column by its name, such as a quoted identifier
        where:      the file, line and key of the template, for the message
        Misconfigured: a column is not in the source, or its type cannot be part of an id or be formatted so.
        """
        prefix = f"{where}: " if where else ""
        texts = []
        for part in self.parts:
            if isinstance(part, str):
                texts.append(quote_literal(part))
                continue
            try:
                kind = _kind(part, types)
            except ValueError as error:
                raise Misconfigured(f"{prefix}{error}") from None
            texts.append(_sql(part, kind, types[part.column], column_sql(part.column)))
        return texts[0] if len(texts) == 1 else f"({' || '.join(texts)})"

    def python(self, values: Mapping[str, object]) -> str | None:
        """The id of one row by its values: what `sql` is held to, and what labels given in Python go through.

        Misconfigured: as in `sql`; a value's type stands for its column's.
        """
        texts = []
        for part in self.parts:
            value = part if isinstance(part, str) else values.get(part.column)
            if value is None:
                return None
            try:
                texts.append(part if isinstance(part, str) else _python(part, value))
            except ValueError as error:
                raise Misconfigured(str(error)) from None
        return "".join(texts)


def _parse(text: str) -> Iterator[str | Part]:
    constant = ""
    at = 0
    while at < len(text):
        if text.startswith(("{{", "}}"), at):
            constant += text[at]
            at += 2
        elif text[at] == "}":
            raise ValueError(f"has a }} without {{ at character {at + 1}; a brace of its own is written }}}}")
        elif text[at] == "{":
            end = text.find("}", at)
            if end < 0 or "{" in text[at + 1 : end]:
                raise ValueError(f"has a {{ without }} at character {at + 1}; a brace of its own is written {{{{")
            if constant:
                yield constant
            constant = ""
            yield _part(text[at + 1 : end])
            at = end + 1
        else:
            constant += text[at]
            at += 1
    if constant:
        yield constant


def _part(inside: str) -> Part:
    column, colon, form = inside.partition(":")
    if not column or column != column.strip():
        raise ValueError(f"holds {{{inside}}}, which names no column; write {{column}}, without spaces")
    if not colon:
        return Part(column)
    if padded := _PAD.fullmatch(form):
        return Part(column, width=int(padded[1]))
    pattern, bar, zone = form.partition("|")
    if "%" not in pattern:
        raise ValueError(f"holds {{{inside}}}, whose format is neither like 05d nor like %Y-%m-%d")
    for directive in re.findall(r"%(.?)", pattern, re.DOTALL):
        if not directive or directive not in _DIRECTIVES:
            known = " ".join(f"%{letter}" for letter in _DIRECTIVES)
            raise ValueError(f"holds {{{inside}}}, whose %{directive} is none of {known}")
    if bar:
        try:
            parse_zone(zone)
        except ValueError as error:
            raise ValueError(f"holds {{{inside}}}, where {zone!r} {error}") from None
    return Part(column, pattern=pattern, zone=zone)


def _kind(part: Part, types: Mapping[str, str]) -> _Kind:
    """What the column's type means to an id; ValueError when it cannot be part of one in this form."""
    name = part.column
    if name not in types:
        near = difflib.get_close_matches(name, types, n=1)
        raise ValueError(f'the source has no column "{name}"' + (f'; did you mean "{near[0]}"?' if near else ""))
    of = types[name]
    kind: _Kind
    if of in _INTEGERS:
        kind = "integer"
    elif of.startswith("DECIMAL"):
        kind = "decimal"
    elif of == "VARCHAR" or of.startswith("ENUM"):
        kind = "text"
    elif of in ("BOOLEAN", "UUID"):
        kind = "plain"
    elif of == "DATE":
        kind = "date"
    elif of in _NAIVE:
        kind = "naive"
    elif of == _ZONED:
        kind = "zoned"
    elif of in _FLOATS:
        raise ValueError(
            f'column "{name}" is {of}: floating point numbers cannot be part of an id; cast it in a query'
        )
    else:
        raise ValueError(f'column "{name}" is {of}, which cannot be part of an id; cast it in a query')
    _fits(part, kind, of)
    return kind


def _fits(part: Part, kind: _Kind, of: str) -> None:
    if part.width and kind != "integer":
        raise ValueError(f'column "{part.column}" is {of}: only integers can be padded with zeros')
    if part.pattern and kind not in ("date", "naive", "zoned"):
        raise ValueError(f'column "{part.column}" is {of}: only dates and timestamps take a format like %Y-%m-%d')
    if part.zone and kind != "zoned":
        raise ValueError(f'column "{part.column}" is {of}, which has no zone to be converted to {part.zone} from')


def _sql(part: Part, kind: _Kind, of: str, column: str) -> str:
    if kind == "integer" and part.width:
        return f"format('{{:0{part.width}d}}', {column})"
    if kind == "decimal":
        digits = f"CAST({column} AS VARCHAR)"
        if of.endswith(",0)"):
            return digits
        # DuckDB writes a DECIMAL(4,4) as .5000
        return f"rtrim(rtrim(regexp_replace({digits}, '^(-?)[.]', '\\10.'), '0'), '.')"
    if kind in ("date", "naive", "zoned"):
        local = f"timezone({quote_literal(part.zone or 'UTC')}, {column})" if kind == "zoned" else column
        if part.pattern:
            text = f"strftime({local}, {quote_literal(part.pattern)})"
        elif kind == "date":
            text = f"CAST({local} AS VARCHAR)"
        else:
            text = f"replace(CAST({local} AS VARCHAR), ' ', 'T')" + (" || 'Z'" if kind == "zoned" else "")
        return f"CASE WHEN isfinite({column}) THEN {text} END"
    return f"CAST({column} AS VARCHAR)"


def _python(part: Part, value: object) -> str:
    match value:
        case bool() | UUID():
            _fits(part, "plain", type(value).__name__)
            return str(value).lower()
        case int():
            _fits(part, "integer", "INTEGER")
            return f"{value:0{part.width}d}"
        case str():
            _fits(part, "text", "VARCHAR")
            return value
        case Decimal() if value.is_finite():
            _fits(part, "decimal", "DECIMAL")
            digits = f"{value:f}"
            digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
            return digits.lstrip("-") if not value else digits
        case datetime():
            _fits(part, "naive" if value.tzinfo is None else "zoned", "TIMESTAMP")
            if value.tzinfo is not None:
                value = value.astimezone(parse_zone(part.zone) if part.zone else UTC)
            return _strftime(value, part.pattern) if part.pattern else _iso(value)
        case date():
            _fits(part, "date", "DATE")
            return _strftime(datetime(value.year, value.month, value.day), part.pattern or "%Y-%m-%d")  # noqa: DTZ001
        case _:
            raise ValueError(f'column "{part.column}" holds a {type(value).__name__}, which cannot be part of an id')


def _iso(value: datetime) -> str:
    text = value.replace(tzinfo=None).isoformat(timespec="microseconds").rstrip("0").removesuffix(".")
    return text if value.tzinfo is None else text + "Z"


def _strftime(value: datetime, pattern: str) -> str:
    """As DuckDB does it, where the C library's strftime leaves years before 1000 unpadded."""
    written = {
        "Y": f"{value.year:04d}",
        "m": f"{value.month:02d}",
        "d": f"{value.day:02d}",
        "H": f"{value.hour:02d}",
        "M": f"{value.minute:02d}",
        "S": f"{value.second:02d}",
        "f": f"{value.microsecond:06d}",
        "j": f"{value.timetuple().tm_yday:03d}",
        "y": f"{value.year % 100:02d}",
        "%": "%",
    }
    return re.sub(r"%(.)", lambda found: written[found[1]], pattern)
