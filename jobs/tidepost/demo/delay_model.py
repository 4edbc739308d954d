"""The demo's model: how probable it is that a flight arrives 15 minutes late or more, seen before it departs.

A logistic regression with one effect per carrier, origin, destination, local hour, weekday and month, and one for
distance. `fit.py` fitted it; `delay_model.json` beside this file holds what it found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final, Self

from tidepost.sql import quote_identifier, quote_literal

LATE_MINUTES: Final = 15
"""A flight is late if it arrives that many minutes after its time, or more."""


@dataclass(frozen=True, slots=True)
class DelayModel:
    """The fitted model; it refuses effects or a threshold that are no numbers it can score with.

    version:        what the log records as `model_version`
    threshold:      the probability from which a flight is called delayed, above 0 and below 1
    intercept:      log odds
    per_1000_miles: log odds per 1000 miles
    effects:        factor → level (as text) → log odds; a level that is not there has no effect
    """

    version: str
    threshold: float
    intercept: float
    per_1000_miles: float
    effects: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        numbers = [effect for levels in self.effects.values() for effect in levels.values()]
        if not all(math.isfinite(number) for number in (self.intercept, self.per_1000_miles, *numbers)):
            raise ValueError("an effect is not a finite number")
        if not 0 < self.threshold < 1:
            raise ValueError(f"the threshold is a probability between 0 and 1, not {self.threshold}")

    @classmethod
    def load(cls) -> Self:
        """The model that ships with the package."""
        found = json.loads(resources.files(__package__).joinpath("delay_model.json").read_text("utf-8"))
        return cls(
            version=found["model_version"],
            threshold=found["threshold"],
            intercept=found["intercept"],
            per_1000_miles=found["per_1000_miles"],
            effects=found["effects"],
        )

    def probability(self, factors: Mapping[str, str | int], *, distance: float) -> float:
        """The probability of one flight; `sql` gives the same for many.

        factors:  a level for each factor of `effects`
        distance: miles
        """
        effects = (levels.get(str(factors[factor]), 0.0) for factor, levels in self.effects.items())
        log_odds = self.intercept + sum(effects) + self.per_1000_miles * distance / 1000
        return 1 / (1 + math.exp(-log_odds))

    def sql(self) -> str:
        """The probability as a DuckDB expression over columns named as the factors, and `distance` in miles."""
        effects = (_effect(factor, levels) for factor, levels in self.effects.items())
        distance = f"{_double(self.per_1000_miles)} * {quote_identifier('distance')} / 1000"
        log_odds = " + ".join([_double(self.intercept), *effects, distance])
        return f"(1 / (1 + exp(-({log_odds}))))"


def _effect(factor: str, levels: Mapping[str, float]) -> str:
    branches = (f"WHEN {quote_literal(level)} THEN {_double(effect)}" for level, effect in levels.items())
    return f"CASE CAST({quote_identifier(factor)} AS VARCHAR) {' '.join(branches)} ELSE 0 END"


def _double(number: float) -> str:
    # A bare 0.25 would be a DECIMAL, and sums of those lose or gain digits as their scales meet.
    return f"CAST('{number!r}' AS DOUBLE)"
