"""Names and constants as SQL text: the only two functions that put foreign text into a statement.

Values that a driver can bind are bound, not quoted; these are for what cannot be bound: names, and the constant
parts of an expression.
"""

from __future__ import annotations


def quote_identifier(name: str) -> str:
    """`name` as one SQL identifier, whatever characters it holds: `a"b` → `"a""b"`.

    ValueError: an empty name, or one with a NUL character, which no engine can hold.
    """
    if not name or "\0" in name:
        raise ValueError(f"not a name for SQL: {name!r}")
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """`text` as one SQL string constant of standard SQL (no backslash escapes): `it's` → `'it''s'`.

    ValueError: text with a NUL character.
    """
    if "\0" in text:
        raise ValueError(f"not a text for SQL: {text!r}")
    return "'" + text.replace("'", "''") + "'"
