"""From the source's columns to the staged ones: one SELECT that maps, types and checks each row, once.

A row that cannot be sent leaves the SELECT with its first fault and its columns, as they were read, as
JSON beside it. A row that can be sent has NULL in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tidepost.definition.job import Attribute, MappingDefinition, Template, TimestampDefinition
from tidepost.errors import Misconfigured
from tidepost.model import MICROSECONDS_AN_HOUR, StreamName
from tidepost.ports import CURSOR, FAULT, FILE, WHERE
from tidepost.rows.recast import FLOATS, INTEGER_TEXT, INTEGERS, ZONED, ZONED_TEXT, recast
from tidepost.sql import quote_identifier, quote_literal

ID = "partner_inference_id"
TIMESTAMP = "inference_timestamp"
BATCH = "batch_id"
EVENT, HOUR, HASH, REASON, ROW = "tidepost:event", "tidepost:hour", "tidepost:hash", "tidepost:reason", "tidepost:row"
"""Columns that steer staging and are not staged: the event's time in microseconds and its hour, a hash of the id
(DuckDB's own, which may be another in its next version), the first fault of a row that cannot be sent, and that row
as JSON."""
MISFIT = "tidepost:misfit"
MESSAGE = "@message"
"""In a row that is set aside: where it lies in a source that judges its rows, and what it is there."""
MISSING, WRONG = "missing_column", "wrong_type"
LONGEST_ID = 512
DECLARED = {"string": "VARCHAR", "integer": "BIGINT", "float": "DOUBLE", "boolean": "BOOLEAN", "timestamp": ZONED}
KINDS = {"BIGINT": INTEGERS, "DOUBLE": FLOATS}
"""Staged types that a declared one stands for where slices were sent as them before it was declared."""
WIDENED = {"UTINYINT": "SMALLINT", "USMALLINT": "INTEGER", "UINTEGER": "BIGINT", "UUID": "VARCHAR"}
PLAIN = frozenset({*INTEGERS, *FLOATS, "VARCHAR", "BOOLEAN", "DATE", ZONED})


@dataclass(frozen=True, slots=True)
class Column:
    """One attribute on its way: where it is read, as what it is staged, and what it must not be.

    of:       its type in the source, None where the source lacks it
    optional: it may be absent
    changed:  it is no longer of a type that fits: each value is taken only if it is exactly one of `type`
    declared: its type is the definition's
    """

    name: str
    source: str
    of: str | None
    type: str
    required: bool
    finite: bool
    optional: bool
    changed: bool
    declared: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """A mapping, resolved against the columns that a source has.

    staged: name → DuckDB type of every staged column, in their order
    reads:  the source's columns that are needed, each once
    keys:   those of them that say which inference a row is
    """

    staged: Mapping[str, str]
    reads: tuple[str, ...]
    keys: tuple[str, ...]
    columns: tuple[Column, ...]
    _before: str
    _between: str
    _after: str

    def sql(self, relation: str, misfits: Mapping[str, Sequence[str]] | None = None, *, judged: bool = False) -> str:
        """The SELECT over a source's relation (see `ports.Relation`), which has the position beside `reads`.

        misfits: reason → files, all of whose rows are set aside with it; the relation then has `FILE`
        judged:  the relation has `FAULT` and `WHERE`
        """
        tests = "".join(
            f" WHEN {_own(FILE)} IN ({', '.join(quote_literal(file) for file in files)}) THEN {quote_literal(reason)}"
            for reason, files in (misfits or {}).items()
        )
        misfit = f"CASE {tests} END" if tests else "CAST(NULL AS VARCHAR)"
        where = ""
        if judged:
            misfit, where = _own(FAULT), f", {quote_literal(MESSAGE)}: {_own(WHERE)}"
        return f"{self._before}{where}{self._between}{misfit} AS {_own(MISFIT)} FROM ({relation}{self._after}"


def shape(
    mapping: MappingDefinition,
    columns: Mapping[str, str],
    *,
    pinned: Mapping[str, str],
    finite_only: bool,
    quarantine: bool = False,
    stream: StreamName = StreamName.INFERENCES,
) -> Shape:
    """Resolve a mapping against a source's columns (name → DuckDB type).

    pinned:      the types that the stream's first slice pinned; they win over what a source infers now
    finite_only: NaN and infinity in inputs reject the row; otherwise they become NULL there
    quarantine:  a pinned attribute whose column is gone, or of a type that does not fit, rejects rows, one by one
    Raises Misconfigured for columns that are missing, or whose type cannot be staged, naming every key.
    """
    problems: list[Misconfigured] = []
    of_labels = stream is StreamName.GROUND_TRUTH
    section, time = "ground_truth" if of_labels else "mapping", stream.time
    rules = _Rules(pinned, finite_only, quarantine, of_labels)
    chosen = tuple(_columns(mapping, columns, rules, problems))
    values: dict[str, str] = {}
    with _noted(problems):
        values[ID] = _id(f"{section}.partner_inference_id", mapping.partner_inference_id, columns)
    with _noted(problems):
        values[time] = instant(f"{section}.{time}", mapping.inference_timestamp, columns)
    with _noted(problems):
        if mapping.batch_id is not None:
            values[BATCH] = _id("mapping.batch_id", mapping.batch_id, columns)
    if problems:
        raise _together(problems)
    reads = tuple(dict.fromkeys([*mapping.keys, *(one.source for one in chosen if one.of is not None)]))
    staged = {ID: "VARCHAR", time: ZONED, **({BATCH: "VARCHAR"} if BATCH in values else {})}
    for column in chosen:
        values[column.name] = _value(column)
        staged[column.name] = column.type
    return Shape(staged, reads, mapping.keys, chosen, *_statement(values, chosen, reads, time))


@contextmanager
def _noted(problems: list[Misconfigured]) -> Iterator[None]:
    """Go on after a problem, so that all of them are told at once."""
    try:
        yield
    except Misconfigured as problem:
        problems.append(problem)


def _together(problems: Sequence[Misconfigured]) -> Misconfigured:
    if len(problems) == 1:
        return problems[0]
    listed = "".join(f"\n  - {one.message}" for one in problems)
    hints = dict.fromkeys(one.hint for one in problems if one.hint)
    safe = next((one.safe for one in problems if one.safe), "")
    return Misconfigured(f"the source does not fit the mapping:{listed}", safe=safe, hint="\n  ".join(hints))


def _id(key: str, template: Template, columns: Mapping[str, str]) -> str:
    for name in template.columns:
        _present(key, name, columns)
    return template.sql(columns, quote_identifier)


def _statement(
    values: Mapping[str, str], chosen: Sequence[Column], reads: Sequence[str], time: str
) -> tuple[str, str, str]:
    """The SELECT before the end of a rejected row, before the misfit, and after the relation that it reads."""
    mapped = ", ".join(f"{sql} AS {_to(name)}" for name, sql in values.items())
    staged = ", ".join(f"{_to(name)} AS {quote_identifier(name)}" for name in values)
    faults = _faults(chosen, time, batch=BATCH in values)
    reason = " ".join(f"WHEN {test} THEN {quote_literal(name)}" for test, name in faults)
    row = ", ".join(f"{quote_literal(name)}: {quote_identifier(name)}" for name in reads)
    event = f"epoch_us({_to(time)})"
    over = f"(({event} % {MICROSECONDS_AN_HOUR}) + {MICROSECONDS_AN_HOUR}) % {MICROSECONDS_AN_HOUR}"
    before = (
        f"SELECT {staged}, {_own(CURSOR)}, {event} AS {_own(EVENT)}, "
        f"({event} - {over}) // {MICROSECONDS_AN_HOUR} AS {_own(HOUR)}, hash({_to(ID)}) AS {_own(HASH)}, "
        f"{_own(REASON)}, CASE WHEN {_own(REASON)} IS NOT NULL THEN CAST(to_json({{{row}"
    )
    between = (
        f"}}) AS VARCHAR) END AS {_own(ROW)} FROM (SELECT *, "
        f"CASE WHEN {_own(MISFIT)} IS NOT NULL THEN {_own(MISFIT)} {reason} END "
        f"AS {_own(REASON)} FROM (SELECT *, {mapped}, "
    )
    return before, between, ")))"


def _faults(chosen: Sequence[Column], time: str, *, batch: bool) -> Iterator[tuple[str, str]]:
    """(condition, reason), the first that holds names the fault."""
    yield f"{_to(ID)} IS NULL", "null_id"
    yield f"{_to(ID)} = ''", "empty_id"
    yield f"length({_to(ID)}) > {LONGEST_ID}", "long_id"
    yield f"{_to(time)} IS NULL", "null_timestamp"
    yield f"NOT isfinite({_to(time)})", "infinite_timestamp"
    if batch:
        yield f"{_to(BATCH)} IS NULL OR {_to(BATCH)} = ''", "null_batch_id"
    for column in chosen:
        source, to, of = quote_identifier(column.source), _to(column.name), column.of
        if of is None:
            if not column.optional:
                yield "true", f"{MISSING}:{column.name}"
            continue
        if column.type in FLOATS and column.finite:
            yield f"NOT isfinite({to})", f"not_finite:{column.name}"
        if of != column.type:
            cast = _cast(column) if column.type in FLOATS else to
            yield f"{source} IS NOT NULL AND {cast} IS NULL", f"{WRONG}:{column.name}"
        if column.type in INTEGERS and not column.changed and of not in INTEGERS and of != "VARCHAR":
            yield f"{source} <> {to}", f"{WRONG}:{column.name}"
        if column.required:
            yield f"{to} IS NULL", f"null_prediction:{column.name}"


def _to(name: str) -> str:
    """The mapped value of a column, inside the statement; no name of a source's column has this form."""
    return _own(f"tidepost:to:{name}")


def _own(name: str) -> str:
    return quote_identifier(name)


@dataclass(frozen=True, slots=True)
class _Rules:
    """As the parameters of `shape`."""

    pinned: Mapping[str, str]
    finite_only: bool
    quarantine: bool
    of_labels: bool = False


def _columns(
    mapping: MappingDefinition, columns: Mapping[str, str], rules: _Rules, problems: list[Misconfigured]
) -> Iterator[Column]:
    for key, attributes, required in (
        ("inputs", mapping.inputs, False),
        ("predictions", mapping.predictions, True),
        ("non_inputs", mapping.non_inputs, False),
    ):
        for attribute in attributes:
            at = "ground_truth.attributes" if rules.of_labels else f"mapping.{key}"
            with _noted(problems):
                yield _column(f"{at}: {attribute.name}", attribute, columns, rules, required=required)


def _column(where: str, attribute: Attribute, columns: Mapping[str, str], rules: _Rules, *, required: bool) -> Column:
    of, pinned, optional = columns.get(attribute.column), rules.pinned.get(attribute.name), bool(attribute.optional)
    declared = None if attribute.type is None else DECLARED[attribute.type]
    changed = False
    if of is not None:
        staged, changed = _type(where, attribute, of, rules)
    elif pinned is not None and (optional or rules.quarantine):
        staged = pinned
    elif declared is not None and optional:
        staged = declared
    else:
        raise _missing(where, attribute.column, columns, pinned)
    finite = required or rules.finite_only
    return Column(
        attribute.name, attribute.column, of, staged, required, finite, optional, changed, declared is not None
    )


def _missing(where: str, name: str, columns: Mapping[str, str], pinned: str | None) -> Misconfigured:
    if pinned is None:
        return Misconfigured(f"{where}: the source has no column {name!r}", hint=f"It has: {', '.join(columns)}")
    return Misconfigured(
        f"{where}: the source has no column {name!r} any more; it was {pinned} in the slices before",
        safe="Nothing was lost: the mark stays until the column is back.",
        hint="Bring it back; or say `drift: quarantine`, which sets its rows aside until then, or "
        f"{{column: {name}, optional: true}}, which sends them without it.",
    )


def _type(where: str, attribute: Attribute, of: str, rules: _Rules) -> tuple[str, bool]:
    """The staged type: as declared, else as pinned, else as the source has it, made plain; and whether the source's
    values must each be shown to be of it."""
    pinned = rules.pinned.get(attribute.name)
    if attribute.type is not None:
        if DECLARED[attribute.type] == ZONED and of not in (ZONED, "VARCHAR"):
            raise Misconfigured(
                f"{where}: column {attribute.column!r} is {of}, without a time zone",
                hint=f"Select {attribute.column} AT TIME ZONE '…' in source.query.",
            )
        declared = DECLARED[attribute.type]
        return (pinned if pinned is not None and pinned in KINDS.get(declared, ()) else declared), False
    plain = of if of in PLAIN else "VARCHAR" if of.startswith("ENUM") else WIDENED.get(of)
    if plain is not None and (pinned is None or plain == pinned or _fits(plain, pinned)):
        return pinned or plain, False
    if pinned is not None and rules.quarantine:
        return pinned, True
    if plain is None and pinned is None:
        raise Misconfigured(
            f"{where}: column {attribute.column!r} is {of}, which cannot be uploaded as it is",
            hint="Declare what it should become: {column: …, type: float}, or cast it in source.query.",
        )
    raise Misconfigured(
        f"{where}: column {attribute.column!r} is {of} now and was {pinned} in the slices before",
        safe="Nothing was lost: the mark stays until the column fits again.",
        hint=f"Cast it in source.query{_declaring(attribute.column, pinned)}; or say `drift: quarantine`, which "
        "sends the values that still fit and sets the others aside.",
    )


def _declaring(column: str, pinned: str | None) -> str:
    """How to declare what the slices before hold; nothing where no declaration gives it."""
    words = (word for word, staged in DECLARED.items() if pinned == staged or pinned in KINDS.get(staged, ()))
    return "".join(f", or declare its type in the mapping: {{column: {column}, type: {word}}}" for word in words)


def _fits(plain: str, pinned: str) -> bool:
    """Whether every value of one type is exactly a value of the other."""
    if plain in INTEGERS and pinned in INTEGERS:
        return True
    return (plain == "FLOAT" and pinned == "DOUBLE") or (plain in INTEGERS[:3] and pinned == "DOUBLE")


def _value(column: Column) -> str:
    value = _cast(column)
    if column.of is not None and column.type in FLOATS and not column.finite:
        value = f"CASE WHEN isfinite({value}) THEN {value} END"
    return value


def _cast(column: Column) -> str:
    """A column's value as the staged type, NULL where it cannot be."""
    source, of, to = quote_identifier(column.source), column.of, column.type
    if of is None:
        return f"CAST(NULL AS {to})"
    if of == to:
        return source
    if column.changed:
        return recast(source, of, to)
    value = f"TRY_CAST({source} AS {to})"
    if of == "VARCHAR" and to in INTEGERS:
        return f"CASE WHEN regexp_full_match({source}, '{INTEGER_TEXT}') THEN {value} END"
    if of == "VARCHAR" and to == ZONED:  # DuckDB would take a time without offset for UTC
        return f"CASE WHEN regexp_matches({source}, '{ZONED_TEXT}') THEN {value} END"
    return value


def instant(key: str, of: TimestampDefinition, columns: Mapping[str, str]) -> str:
    """SQL of a column's time as TIMESTAMP WITH TIME ZONE. Raises Misconfigured, naming the key, where it is none."""
    name, zone = of.column, of.timezone
    _present(key, name, columns)
    kind, column = columns[name], quote_identifier(name)
    if kind == ZONED:
        return column
    if kind not in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE"):
        raise Misconfigured(
            f"{key}: column {name!r} is {kind}, not a timestamp",
            hint="Cast it in source.query.",
        )
    if zone is None:
        raise Misconfigured(
            f"{key}: column {name!r} is {kind}, without a time zone",
            hint=f"Say which zone its values are in: {key.rpartition('.')[2]}: {{column: {name}, timezone: UTC}}",
        )
    return f"(CAST({column} AS TIMESTAMP) AT TIME ZONE {quote_literal(zone)})"


def _present(where: str, name: str, columns: Mapping[str, str]) -> None:
    if name not in columns:
        raise Misconfigured(f"{where}: the source has no column {name!r}", hint=f"It has: {', '.join(columns)}")
