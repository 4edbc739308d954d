"""Values of one type as another, in DuckDB's SQL: exactly the same value, or NULL."""

from __future__ import annotations

from typing import Final

ZONED: Final = "TIMESTAMP WITH TIME ZONE"
INTEGERS: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
FLOATS: Final = frozenset({"FLOAT", "DOUBLE"})
NUMBERS: Final = frozenset({*INTEGERS, *FLOATS, "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"})
EXACT_BELOW: Final = {"FLOAT": 2**24, "DOUBLE": 2**53}
"""From here on a float may stand for several integers, and may have been made of any of them."""

INTEGER_TEXT: Final = r"\s*[+-]?[0-9]+\s*"
ZONED_TEXT: Final = r"([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)\s*$"
_TEXTS: Final = {
    **dict.fromkeys(INTEGERS, INTEGER_TEXT),
    **dict.fromkeys(FLOATS, ".*"),
    "BOOLEAN": r"(?i)\s*(true|false)\s*",
    "DATE": r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}\s*",
    ZONED: rf".*{ZONED_TEXT}",
}


def recast(value: str, of: str, to: str) -> str:
    """SQL of a value (SQL, of type `of`) as `to`, NULL where it is not exactly one, whatever DuckDB makes of it."""
    cast = f"TRY_CAST({value} AS {to})"
    if of == "VARCHAR":
        return f"CASE WHEN regexp_full_match({value}, '{_TEXTS[to]}') THEN {cast} END"
    if _number(of) and _number(to):
        same = f"TRY_CAST({cast} AS {of}) = {value}"
        if of in FLOATS and to in INTEGERS:
            same = f"abs({value}) < {EXACT_BELOW[of]} AND {same}"
        return f"CASE WHEN {same} THEN {cast} END"
    if to == "VARCHAR" and has_one_text(of):
        return f"CAST({value} AS VARCHAR)"
    return f"CAST(NULL AS {to})"


def has_one_text(of: str) -> bool:
    """Whether a value of a type can be written in one way only, so that its text is the value."""
    return of in ("VARCHAR", "UUID") or of in (NUMBERS - FLOATS) or of.startswith("ENUM")


def _number(of: str) -> bool:
    return of in NUMBERS or of.startswith("DECIMAL")
