"""From the source's columns to the staged ones: one SELECT that maps, types and checks each row, once.

A row that cannot be sent leaves the SELECT with its first fault and its columns, as they were read, as
JSON beside it. A row that can be sent has NULL in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tidepost.errors import Misconfigured
from tidepost.job import Attribute, MappingDefinition
from tidepost.model import MICROSECONDS_AN_HOUR
from tidepost.ports import CURSOR
from tidepost.sql import quote_identifier, quote_literal

ID = "partner_inference_id"
TIMESTAMP = "inference_timestamp"
BATCH = "batch_id"
EVENT, HOUR, HASH, REASON, ROW = "tidepost:event", "tidepost:hour", "tidepost:hash", "tidepost:reason", "tidepost:row"
"""Columns that steer staging and are not staged: the event's time in microseconds and its hour, a hash of the id
(DuckDB's own, which may be another in its next version), the first fault of a row that cannot be sent, and that row
as JSON."""
LONGEST_ID = 512
ZONED = "TIMESTAMP WITH TIME ZONE"
DECLARED = {"string": "VARCHAR", "integer": "BIGINT", "float": "DOUBLE", "boolean": "BOOLEAN", "timestamp": ZONED}
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
WIDENED = {"UTINYINT": "SMALLINT", "USMALLINT": "INTEGER", "UINTEGER": "BIGINT", "UUID": "VARCHAR"}
FLOATS = frozenset({"FLOAT", "DOUBLE"})
PLAIN = frozenset({*INTEGERS, *FLOATS, "VARCHAR", "BOOLEAN", "DATE", ZONED})


@dataclass(frozen=True, slots=True)
class Column:
    """One attribute on its way: where it is read, as what it is staged, and what it must not be."""

    name: str
    source: str
    type: str
    required: bool
    finite: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """A mapping, resolved against the columns that a source has.

    staged: name → DuckDB type of every staged column, in their order
    reads:  the source's columns that are needed, each once
    """

    staged: Mapping[str, str]
    reads: tuple[str, ...]
    _before: str
    _after: str

    def sql(self, relation: str) -> str:
        """The SELECT over a source's relation (see `ports.Relation`), which has the position beside `reads`."""
        return f"{self._before}{relation}{self._after}"


def shape(
    mapping: MappingDefinition, columns: Mapping[str, str], *, pinned: Mapping[str, str], finite_only: bool
) -> Shape:
    """Resolve a mapping against a source's columns (name → DuckDB type).

    pinned:      the types that the stream's first slice pinned; they win over what a source infers now
    finite_only: NaN and infinity in inputs reject the row; otherwise they become NULL there
    Raises Misconfigured for a column that is missing, or whose type cannot be staged, naming the key.
    """
    chosen = tuple(_columns(mapping, columns, pinned, finite_only))
    templates = [mapping.partner_inference_id, *([mapping.batch_id] if mapping.batch_id is not None else [])]
    for key, template in zip(("partner_inference_id", "batch_id"), templates, strict=False):
        for name in template.columns:
            _present(f"mapping.{key}", name, columns)
    event = _event(mapping, columns)
    reads = tuple(
        dict.fromkeys(
            [
                *(name for template in templates for name in template.columns),
                mapping.inference_timestamp.column,
                *(column.source for column in chosen),
            ]
        )
    )
    values = {
        ID: mapping.partner_inference_id.sql(columns, quote_identifier),
        TIMESTAMP: event,
        **({BATCH: mapping.batch_id.sql(columns, quote_identifier)} if mapping.batch_id is not None else {}),
    }
    staged = {ID: "VARCHAR", TIMESTAMP: ZONED, **({BATCH: "VARCHAR"} if BATCH in values else {})}
    for column in chosen:
        values[column.name] = _value(column, columns[column.source])
        staged[column.name] = column.type
    return Shape(staged, reads, *_statement(values, chosen, reads, columns))


def _statement(
    values: Mapping[str, str], chosen: Sequence[Column], reads: Sequence[str], columns: Mapping[str, str]
) -> tuple[str, str]:
    """The SELECT before and after the relation that it reads."""
    mapped = ", ".join(f"{sql} AS {_to(name)}" for name, sql in values.items())
    staged = ", ".join(f"{_to(name)} AS {quote_identifier(name)}" for name in values)
    reason = " ".join(
        f"WHEN {test} THEN {quote_literal(name)}" for test, name in _faults(chosen, columns, batch=BATCH in values)
    )
    row = ", ".join(f"{quote_literal(name)}: {quote_identifier(name)}" for name in reads)
    event = f"epoch_us({_to(TIMESTAMP)})"
    over = f"(({event} % {MICROSECONDS_AN_HOUR}) + {MICROSECONDS_AN_HOUR}) % {MICROSECONDS_AN_HOUR}"
    before = (
        f"SELECT {staged}, {_own(CURSOR)}, {event} AS {_own(EVENT)}, "
        f"({event} - {over}) // {MICROSECONDS_AN_HOUR} AS {_own(HOUR)}, hash({_to(ID)}) AS {_own(HASH)}, "
        f"{_own(REASON)}, CASE WHEN {_own(REASON)} IS NOT NULL THEN CAST(to_json({{{row}}}) AS VARCHAR) END "
        f"AS {_own(ROW)} FROM (SELECT *, CASE {reason} END AS {_own(REASON)} FROM (SELECT *, {mapped} FROM ("
    )
    return before, ")))"


def _faults(chosen: Sequence[Column], columns: Mapping[str, str], *, batch: bool) -> Iterator[tuple[str, str]]:
    """(condition, reason), the first that holds names the fault."""
    yield f"{_to(ID)} IS NULL", "null_id"
    yield f"{_to(ID)} = ''", "empty_id"
    yield f"length({_to(ID)}) > {LONGEST_ID}", "long_id"
    yield f"{_to(TIMESTAMP)} IS NULL", "null_timestamp"
    yield f"NOT isfinite({_to(TIMESTAMP)})", "infinite_timestamp"
    if batch:
        yield f"{_to(BATCH)} IS NULL OR {_to(BATCH)} = ''", "null_batch_id"
    for column in chosen:
        source, to, of = quote_identifier(column.source), _to(column.name), columns[column.source]
        if column.type in FLOATS and column.finite:
            yield f"NOT isfinite({to})", f"not_finite:{column.name}"
        if of != column.type:
            cast = f"TRY_CAST({source} AS {column.type})" if column.type in FLOATS else to
            yield f"{source} IS NOT NULL AND {cast} IS NULL", f"wrong_type:{column.name}"
        if column.type in INTEGERS and of not in INTEGERS and of != "VARCHAR":
            yield f"{source} <> {to}", f"wrong_type:{column.name}"
        if column.required:
            yield f"{to} IS NULL", f"null_prediction:{column.name}"


def _to(name: str) -> str:
    """The mapped value of a column, inside the statement; no name of a source's column has this form."""
    return _own(f"tidepost:to:{name}")


def _own(name: str) -> str:
    return quote_identifier(name)


def _columns(
    mapping: MappingDefinition, columns: Mapping[str, str], pinned: Mapping[str, str], finite_only: bool
) -> list[Column]:
    found: list[Column] = []
    for key, attributes, required in (
        ("inputs", mapping.inputs, False),
        ("predictions", mapping.predictions, True),
        ("non_inputs", mapping.non_inputs, False),
    ):
        for attribute in attributes:
            where = f"mapping.{key}: {attribute.name}"
            _present(where, attribute.column, columns)
            staged = _type(where, attribute, columns[attribute.column], pinned.get(attribute.name))
            found.append(Column(attribute.name, attribute.column, staged, required, required or finite_only))
    return found


def _type(where: str, attribute: Attribute, of: str, pinned: str | None) -> str:
    """The staged type: as declared, else as pinned, else as the source has it, made plain."""
    if attribute.type is not None:
        if DECLARED[attribute.type] == ZONED and of not in (ZONED, "VARCHAR"):
            raise Misconfigured(
                f"{where}: column {attribute.column!r} is {of}, without a time zone",
                hint=f"Select {attribute.column} AT TIME ZONE '…' in source.query.",
            )
        return DECLARED[attribute.type]
    plain = of if of in PLAIN else "VARCHAR" if of.startswith("ENUM") else WIDENED.get(of)
    if plain is None:
        raise Misconfigured(
            f"{where}: column {attribute.column!r} is {of}, which cannot be uploaded as it is",
            hint="Declare what it should become: {column: …, type: float}, or cast it in source.query.",
        )
    if pinned is None or plain == pinned or _fits(plain, pinned):
        return pinned or plain
    raise Misconfigured(
        f"{where}: column {attribute.column!r} is {plain} now and was {pinned} in the slices before",
        safe="Nothing was lost: the mark stays until the column fits again.",
        hint=f"Cast it in source.query, or declare its type in the mapping ({pinned}).",
    )


def _fits(plain: str, pinned: str) -> bool:
    """Whether every value of one type is exactly a value of the other."""
    if plain in INTEGERS and pinned in INTEGERS:
        return True
    return (plain == "FLOAT" and pinned == "DOUBLE") or (plain in INTEGERS[:3] and pinned == "DOUBLE")


def _value(column: Column, of: str) -> str:
    source = quote_identifier(column.source)
    value = source if of == column.type else f"TRY_CAST({source} AS {column.type})"
    if of == "VARCHAR" and column.type in INTEGERS:
        value = f"CASE WHEN regexp_full_match({source}, '\\s*[+-]?[0-9]+\\s*') THEN {value} END"
    if of == "VARCHAR" and column.type == ZONED:  # DuckDB would take a time without offset for UTC
        value = f"CASE WHEN regexp_matches({source}, '([Zz]|[+-][0-9]{{2}}(:?[0-9]{{2}})?)\\s*$') THEN {value} END"
    if column.type in FLOATS and not column.finite:
        value = f"CASE WHEN isfinite({value}) THEN {value} END"
    return value


def _event(mapping: MappingDefinition, columns: Mapping[str, str]) -> str:
    """The inference timestamp as TIMESTAMP WITH TIME ZONE."""
    name, zone = mapping.inference_timestamp.column, mapping.inference_timestamp.timezone
    _present("mapping.inference_timestamp", name, columns)
    of, column = columns[name], quote_identifier(name)
    if of == ZONED:
        return column
    if of not in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE"):
        raise Misconfigured(
            f"mapping.inference_timestamp: column {name!r} is {of}, not a timestamp",
            hint="Cast it in source.query.",
        )
    if zone is None:
        raise Misconfigured(
            f"mapping.inference_timestamp: column {name!r} is {of}, without a time zone",
            hint=f"Say which zone its values are in: inference_timestamp: {{column: {name}, timezone: UTC}}",
        )
    return f"(CAST({column} AS TIMESTAMP) AT TIME ZONE {quote_literal(zone)})"


def _present(where: str, name: str, columns: Mapping[str, str]) -> None:
    if name not in columns:
        raise Misconfigured(f"{where}: the source has no column {name!r}", hint=f"It has: {', '.join(columns)}")
