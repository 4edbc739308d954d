"""Arize's section of the page: what arrived in each space, for a person to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def arize_section(stats: Mapping[str, Any], chart: str) -> str:
    """A model's numbers, and its rows a day as a drawing."""
    numbers = [
        ("records", stats["rows"], False),
        ("predictions", stats["predictions"], False),
        ("actual values", stats["actuals"], False),
        ("with both", stats["matched"], False),
        ("predictions that came again", stats["repeats"], stats["repeats"] > 0),
    ]
    title = f"Arize: {stats['model']} in the space {stats['space']}"
    return f"<section><h2>{escape(title)}</h2><dl>{cells(numbers)}</dl>{chart}</section>"


def cells(numbers: Sequence[tuple[str, int | str, bool]]) -> str:
    """Names and numbers, and whether each is worth a warning."""
    return "".join(
        f"<div{' class=warn' if warn else ''}><dt>{name}</dt>"
        f"<dd>{value if isinstance(value, str) else format(value, ',')}</dd></div>"
        for name, value, warn in numbers
    )
