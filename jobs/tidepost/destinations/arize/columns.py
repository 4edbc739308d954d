"""Which staged column is what at Arize, and whether the columns of a stream fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from tidepost.destinations.arize.options import ArizeOptions
from tidepost.destinations.arize.schema import NUMERIC, Columns
from tidepost.destinations.arize.types import Role, arrow_type, mended, wire_type
from tidepost.errors import Misconfigured
from tidepost.model import StreamName

ID: Final = "partner_inference_id"
TIME: Final = "inference_timestamp"
LABEL_TIME: Final = "ground_truth_timestamp"
BATCH: Final = "batch_id"
OWN: Final = frozenset({ID, TIME, LABEL_TIME, BATCH})
SHAP_SUFFIX: Final = "_shap"
"""Arize names its own columns so: no feature or tag may end with it."""


def columns_of(options: ArizeOptions, stream: StreamName, staged: Collection[str]) -> Columns:
    """What the columns of a stream are. Raises Misconfigured where no prediction or label can be told."""
    if stream is StreamName.GROUND_TRUTH:
        return _actuals(options, staged)
    label, score = _pair(options, options.prediction_label, options.prediction_score, options.predictions)
    if not label and not score:
        raise Misconfigured(
            "the job does not say which of its predictions Arize is to take for label and score",
            hint="Name them: destination.prediction_label, destination.prediction_score",
        )
    actual, actual_score = _pair(options, options.actual_label, options.actual_score, ())
    named = {label, score, options.actual_label, options.actual_score, options.group, options.rank}
    taken = {*named, *options.shap.values()}
    return Columns(
        prediction_id=ID,
        timestamp=TIME,
        prediction_label=label,
        prediction_score=score,
        actual_label=actual if actual in staged else "",
        actual_score=actual_score if actual_score in staged else "",
        features=tuple(name for name in options.inputs if name not in taken),
        shap=options.shap,
        tags=tuple(name for name in options.non_inputs if name not in taken),
        group=options.group,
        rank=options.rank,
    )


def _actuals(options: ArizeOptions, staged: Collection[str]) -> Columns:
    tags = tuple(name for name in options.non_inputs if name in staged and name not in (options.actual_label,))
    others = tuple(name for name in staged if name not in OWN and name not in tags)
    label, score = _pair(options, options.actual_label, options.actual_score, others)
    if not label and not score:
        raise Misconfigured(
            f"the job does not say which of its labels' columns is the actual value: {', '.join(others) or 'none'}",
            hint="Name it: destination.actual_label, destination.actual_score",
        )
    return Columns(prediction_id=ID, actual_label=label, actual_score=score, tags=tags)


def _pair(options: ArizeOptions, label: str, score: str, among: Collection[str]) -> tuple[str, str]:
    """The columns of label and score. A numeric model has no score: what is named so is its label. One column that
    nobody named is the label."""
    if not label and not score and len(among) == 1:
        return next(iter(among)), ""
    if options.model_type in NUMERIC and not label:
        return score, ""
    return label, score


def roles(options: ArizeOptions, columns: Columns) -> dict[str, Role]:
    """Column → what it is."""
    label = Role.NUMBER if options.model_type in NUMERIC else Role.CATEGORY
    found = {columns.prediction_id: Role.ID, columns.timestamp: Role.TIME}
    found |= dict.fromkeys((columns.prediction_label, columns.actual_label), label)
    found |= dict.fromkeys((columns.prediction_score, columns.actual_score), Role.SCORE)
    found |= dict.fromkeys(columns.features, Role.FEATURE) | dict.fromkeys(columns.tags, Role.TAG)
    found |= dict.fromkeys(columns.shap.values(), Role.SHAP)
    found |= {columns.group: Role.ID, columns.rank: Role.RANK}
    return {name: role for name, role in found.items() if name}


def check_columns(options: ArizeOptions, stream: StreamName, staged: Mapping[str, str]) -> None:
    """Compare staged columns (name → DuckDB type) with what goes to Arize.

    Raises Misconfigured, which lists everything that is wrong at once.
    """
    columns = columns_of(options, stream, staged)
    problems = [*_problems(options, columns, staged), *_rules(options, stream, columns)]
    if problems:
        listed = "".join(f"\n  - {one}" for one in problems)
        raise Misconfigured(
            f"the columns of {stream} do not fit Arize:{listed}",
            safe="Nothing was sent.",
            hint="Correct the job's mapping, or its destination.",
        )


def _problems(options: ArizeOptions, columns: Columns, staged: Mapping[str, str]) -> Iterator[str]:
    known = roles(options, columns)
    for name, type_ in staged.items():
        role = known.get(name)
        if role is None:
            if name not in OWN:
                yield f"{name} has no place at Arize{_nearest(name, set(known) - set(staged))}"
            continue
        found = arrow_type(type_)
        if found is None or wire_type(role, found) is None:
            yield mended(name, role, type_)
    for name in sorted(set(known) - set(staged)):
        yield f"{name} is missing{_nearest(name, set(staged) - set(known))}"


def _rules(options: ArizeOptions, stream: StreamName, columns: Columns) -> Iterator[str]:
    for name in (*columns.features, *columns.tags, *columns.shap):
        if name.endswith(SHAP_SUFFIX):
            yield f"{name} ends with {SHAP_SUFFIX}, which Arize keeps for itself; give it another name"
    for feature in columns.shap:
        if feature not in columns.features:
            yield f"{feature} has SHAP values and is no feature{_nearest(feature, set(columns.features))}"
    if options.model_type == "ranking" and stream is StreamName.INFERENCES and not (columns.group and columns.rank):
        yield "a ranking model needs destination.group and destination.rank"
    if options.environment != "production" and stream is StreamName.GROUND_TRUTH:
        yield f"a {options.environment} set takes no later ground truth: it has its actual values from the beginning"
    elif options.environment != "production" and not (columns.actual_label or columns.actual_score):
        yield f"a {options.environment} set needs its actual values beside its predictions: destination.actual_label"


def _nearest(name: str, among: set[str]) -> str:
    near = get_close_matches(name, sorted(among - OWN), n=1)
    return f"; did you mean {near[0]}?" if near else ""
