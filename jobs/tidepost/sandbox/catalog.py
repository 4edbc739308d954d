"""Models as they are registered, and which columns rows must then have.

Names, types and stages are those of Arthur API v3, as its Python SDK 3.33.3 speaks it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Stream = Literal["inferences", "ground_truth", "reference"]

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LONGEST_NAME: Final = 255
RESERVED: Final = frozenset(
    {
        "inference_timestamp",
        "partner_inference_id",
        "batch_id",
        "ground_truth_timestamp",
        "inference_data",
        "ground_truth_data",
    }
)
# Not reserved by the protocol, but properties of every query: an attribute of that name could not be asked for.
ASKED_FOR: Final = frozenset({"received_timestamp", "inference_id"})

STORED_AS: Final = {
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "STRING": "VARCHAR",
    "UNSTRUCTURED_TEXT": "VARCHAR",
    "BOOLEAN": "BOOLEAN",
    "TIMESTAMP": "TIMESTAMPTZ",
}
STAGES: Final = frozenset(
    "PIPELINE_INPUT NON_INPUT_DATA PREDICTED_VALUE GROUND_TRUTH GROUND_TRUTH_CLASS PREDICT_FUNCTION_INPUT".split()
)
LABEL_STAGES: Final = frozenset({"GROUND_TRUTH", "GROUND_TRUTH_CLASS"})
OUTPUT_TYPES: Final = frozenset(
    "REGRESSION MULTICLASS MULTILABEL OBJECT_DETECTION TOKEN_SEQUENCE RANKED_LIST".split()
)


class BadRequest(Exception):
    """A request that the platform refuses as a whole; the message names the column, key or row."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Column:
    """A column that rows of a stream may have."""

    name: str
    value_type: str
    required: bool
    nullable: bool


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a registered model."""

    name: str
    value_type: str
    stage: str

    @property
    def is_label(self) -> bool:
        """Whether its values are ground truth."""
        return self.stage in LABEL_STAGES


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model. `number` names its tables; `definition` is what was registered, completed by the server."""

    number: int
    id: str
    partner_model_id: str
    is_batch: bool
    attributes: tuple[Attribute, ...]
    definition: Mapping[str, Any]
    ready_at: float

    @property
    def of_inferences(self) -> tuple[Attribute, ...]:
        """The attributes that come with an inference and never change."""
        return tuple(attribute for attribute in self.attributes if not attribute.is_label)

    @property
    def labels(self) -> tuple[Attribute, ...]:
        """The attributes that are ground truth."""
        return tuple(attribute for attribute in self.attributes if attribute.is_label)

    def columns(self, stream: Stream, *, batch_named: bool = False) -> tuple[Column, ...]:
        """The columns that rows of `stream` have or may have; `batch_named`: the request itself names the batch."""
        identity = Column("partner_inference_id", "STRING", required=True, nullable=False)
        if stream == "ground_truth":
            known_at = Column("ground_truth_timestamp", "TIMESTAMP", required=True, nullable=False)
            return (identity, known_at, *(Column(a.name, a.value_type, True, False) for a in self.labels))
        values = tuple(_value_column(attribute) for attribute in self.attributes)
        if stream == "reference":
            return values
        needs_batch = self.is_batch and not batch_named
        return (
            identity,
            Column("inference_timestamp", "TIMESTAMP", required=True, nullable=False),
            Column("batch_id", "STRING", required=needs_batch, nullable=not needs_batch),
            Column("ground_truth_timestamp", "TIMESTAMP", required=False, nullable=True),
            *values,
        )


def _value_column(attribute: Attribute) -> Column:
    predicted = attribute.stage == "PREDICTED_VALUE"
    return Column(
        attribute.name,
        attribute.value_type,
        required=predicted or attribute.stage == "PIPELINE_INPUT",
        nullable=not predicted,
    )


def check_definition(definition: object) -> tuple[Attribute, ...]:
    """The attributes of a model that may be registered; BadRequest names what may not."""
    if not isinstance(definition, dict):
        raise BadRequest("a model is a JSON object")
    for key in ("partner_model_id", "input_type", "output_type"):
        if not isinstance(definition.get(key), str) or not definition[key]:
            raise BadRequest(f"{key} must be a string that is not empty")
    if definition["input_type"] != "TABULAR":
        raise BadRequest(f"input_type {definition['input_type']!r}: this sandbox takes TABULAR models only")
    if definition["output_type"] not in OUTPUT_TYPES:
        raise BadRequest(f"output_type {definition['output_type']!r} is none of {', '.join(sorted(OUTPUT_TYPES))}")
    if not isinstance(definition.get("is_batch", False), bool):
        raise BadRequest("is_batch must be true or false")
    raw = definition.get("attributes")
    if not isinstance(raw, list) or not raw:
        raise BadRequest("attributes must be a list that is not empty")
    attributes = tuple(_attribute(entry) for entry in raw)
    seen: dict[str, str] = {}
    for attribute in attributes:
        other = seen.setdefault(attribute.name.lower(), attribute.name)
        if other is not attribute.name:
            raise BadRequest(f"attributes {other!r} and {attribute.name!r} have one name, whatever its case")
    if not any(attribute.stage == "PREDICTED_VALUE" for attribute in attributes):
        raise BadRequest("a model needs an attribute of the stage PREDICTED_VALUE")
    _check_links(raw, attributes)
    return attributes


def _attribute(entry: object) -> Attribute:
    if not isinstance(entry, dict):
        raise BadRequest("an attribute is a JSON object")
    name = entry.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise BadRequest(
            f"attribute name {name!r} must begin with a letter or underscore, go on with letters, digits and "
            f"underscores, and have at most {LONGEST_NAME} characters"
        )
    if name in RESERVED | ASKED_FOR:
        raise BadRequest(f"attribute name {name!r} is reserved")
    if entry.get("value_type") not in STORED_AS:
        raise BadRequest(
            f"attribute {name!r}: value_type {entry.get('value_type')!r} is none of {', '.join(STORED_AS)}"
        )
    if entry.get("stage") not in STAGES:
        raise BadRequest(f"attribute {name!r}: stage {entry.get('stage')!r} is none of {', '.join(sorted(STAGES))}")
    position = entry.get("position")
    if position is not None and (not isinstance(position, int) or isinstance(position, bool) or position < 0):
        raise BadRequest(f"attribute {name!r}: position must be a whole number from 0")
    return Attribute(name, entry["value_type"], entry["stage"])


def _check_links(raw: list[dict[str, Any]], attributes: tuple[Attribute, ...]) -> None:
    by_name = {attribute.name: attribute for attribute in attributes}
    for entry in raw:
        link = entry.get("attribute_link")
        if link is None:
            continue
        here, there = by_name[entry["name"]], by_name.get(link)
        if there is None:
            raise BadRequest(f"attribute {here.name!r}: attribute_link {link!r} is no attribute of the model")
        if {here.stage, there.stage} != {"PREDICTED_VALUE", "GROUND_TRUTH"}:
            raise BadRequest(f"attribute {here.name!r}: attribute_link joins a prediction and its ground truth only")
