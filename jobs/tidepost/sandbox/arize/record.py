"""A streamed record: the JSON rendering of `Record` in the `public.proto` of Arize's SDKs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tidepost.sandbox.arize.rules import LONGEST_ID, YEAR
from tidepost.sandbox.catalog import BadRequest


def row_of(content: object, *, now: float) -> dict[str, Any]:
    """The record as a row of the store. Raises BadRequest where it breaks a rule."""
    if not isinstance(content, dict):
        raise BadRequest("a record is a JSON object")
    model, id_ = content.get("model_id"), content.get("prediction_id")
    if not isinstance(model, str) or not model:
        raise BadRequest("the record has no model_id")
    if not isinstance(id_, str) or not 1 <= len(id_) <= LONGEST_ID:
        raise BadRequest(f"prediction_id has not 1 to {LONGEST_ID} characters")
    prediction, actual = content.get("prediction") or {}, content.get("actual") or {}
    shap = (content.get("feature_importances") or {}).get("feature_importances")
    environment, about = _environment(content.get("environment_params") or {})
    label, score = _label(prediction.get("prediction_label") or prediction.get("label"))
    actual_label, actual_score = _label(actual.get("actual_label") or actual.get("label"))
    tags = _values(prediction.get("tags")) or _values(actual.get("tags"))
    if all(one is None for one in (label, score, actual_label, actual_score, shap)) and not tags:
        raise BadRequest("the record has neither a prediction nor an actual value nor SHAP values nor tags")
    return {
        "model": model,
        "id": id_,
        "environment": environment,
        "version": prediction.get("model_version"),
        "batch_id": about.get("batch_id"),
        "at": _at(prediction.get("timestamp"), now),
        "prediction_label": label,
        "prediction_score": score,
        "actual_label": actual_label,
        "actual_score": actual_score,
        "features": _values(prediction.get("features")),
        "tags": tags,
        "shap": shap,
    }


def _environment(params: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    for name in ("production", "validation", "training"):
        if name in params:
            return name, params[name] or {}
    raise BadRequest("the record names no environment")


def _label(label: Mapping[str, Any] | None) -> tuple[Any, Any]:
    """A label and a score, of whatever kind of model; protobuf's JSON leaves out what is zero or empty."""
    if not label:
        return None, None
    if "numeric" in label:
        return label["numeric"], None
    scored = label.get("score_categorical") or {}
    if "category" in scored:
        return scored["category"].get("category", ""), None
    if "score_value" in scored:
        return None, scored["score_value"].get("value", 0.0)
    both = scored.get("score_category") or {}
    return both.get("category", ""), both.get("score", 0.0)


def _values(values: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """Named values; protobuf's JSON writes whole numbers of 64 bits as text."""
    if not values:
        return None
    return {name: _value(value) for name, value in values.items()}


def _value(value: Mapping[str, Any]) -> Any:
    if "int" in value:
        return int(value["int"])
    if "multi_value" in value:
        return value["multi_value"].get("values", [])
    return next(iter(value.values()), None)


def _at(text: str | None, now: float) -> float | None:
    if text is None:
        return None
    at = datetime.fromisoformat(text).timestamp()
    if not now - 5 * YEAR <= at <= now + YEAR:
        raise BadRequest("the timestamp is more than 5 years ago, or 1 year ahead")
    return at
