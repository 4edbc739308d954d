"""Few combinations that hold every pair: most faults that need two things at once need no third."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

Combination = dict[str, str]


def covering(dimensions: Mapping[str, Sequence[str]]) -> list[Combination]:
    """Combinations of which, for any two dimensions, every pair of their values is in at least one. Greedy, and the
    same for the same dimensions."""
    left = pairs(dimensions)
    found: list[Combination] = []
    while left:
        (one, value), (other, second) = min(left)
        row = {one: value, other: second}
        for name in dimensions:
            if name not in row:
                row[name] = max(dimensions[name], key=lambda each: len(left & pairs_of({**row, name: each})))
        left -= pairs_of(row)
        found.append(row)
    return found


def pairs(dimensions: Mapping[str, Sequence[str]]) -> set[tuple[tuple[str, str], tuple[str, str]]]:
    """Every pair of values of two dimensions."""
    return {
        tuple(sorted(((one, a), (other, b))))  # type: ignore[misc]
        for one, other in itertools.combinations(dimensions, 2)
        for a in dimensions[one]
        for b in dimensions[other]
    }


def pairs_of(row: Mapping[str, str]) -> set[tuple[tuple[str, str], tuple[str, str]]]:
    """The pairs that a combination, or a part of one, holds."""
    return pairs({name: [value] for name, value in row.items()})
