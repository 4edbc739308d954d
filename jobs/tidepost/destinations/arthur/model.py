"""A model as Arthur API v3 describes it, and whether staged columns fit it.

Value types, stages and reserved names are those of Arthur's Python SDK 3.33.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from tidepost.errors import Misconfigured
from tidepost.model import StreamName

ID: Final = "partner_inference_id"
TIME: Final = "inference_timestamp"
LABEL_TIME: Final = "ground_truth_timestamp"
BATCH: Final = "batch_id"
RESERVED: Final = frozenset({ID, TIME, LABEL_TIME, BATCH, "inference_data", "ground_truth_data"})

_REQUIRED_STAGES: Final = frozenset({"PIPELINE_INPUT", "PREDICTED_VALUE"})
_LABEL_STAGES: Final = frozenset({"GROUND_TRUTH", "GROUND_TRUTH_CLASS"})

_INTEGERS: Final = frozenset("TINYINT SMALLINT INTEGER BIGINT UTINYINT USMALLINT UINTEGER".split())
_ZONED: Final = "TIMESTAMP WITH TIME ZONE"
_FITTING: Final[Mapping[str, frozenset[str]]] = {
    "INTEGER": _INTEGERS,
    "FLOAT": _INTEGERS | {"FLOAT", "DOUBLE"},
    "STRING": frozenset({"VARCHAR"}),
    "UNSTRUCTURED_TEXT": frozenset({"VARCHAR"}),
    "BOOLEAN": frozenset({"BOOLEAN"}),
    "TIMESTAMP": frozenset({_ZONED}),
}
_CASTS: Final[Mapping[str, str]] = {
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "STRING": "VARCHAR",
    "UNSTRUCTURED_TEXT": "VARCHAR",
    "BOOLEAN": "BOOLEAN",
    "TIMESTAMP": "TIMESTAMPTZ",
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column of the model.

    value_type: INTEGER, FLOAT, STRING, BOOLEAN, TIMESTAMP, or another one that is passed on unchecked
    """

    name: str
    value_type: str
    stage: str

    @property
    def is_label(self) -> bool:
        return self.stage in _LABEL_STAGES

    @property
    def required(self) -> bool:
        """Whether a row of inferences must have it; all others may be absent."""
        return self.stage in _REQUIRED_STAGES


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model.

    status: `Ready` once it takes rows; empty where the platform does not say
    """

    id: str
    status: str
    is_batch: bool
    attributes: Mapping[str, Attribute]

    @classmethod
    def parse(cls, answer: object) -> Model:
        """The model in the answer to `GET /models/{id}?expand=attributes`.

        Raises ValueError where it holds no id or no attributes.
        """
        match answer:
            case {"id": str(id_), "attributes": list(listed), **rest} if id_:
                attributes = [_attribute(one) for one in listed]
            case _:
                raise ValueError("the answer holds no model")
        status = str(rest.get("status") or "")
        return cls(id_, status, rest.get("is_batch") is True, {one.name: one for one in attributes})

    def check(self, stream: StreamName, columns: Mapping[str, str], *, batches: bool) -> None:
        """Compare staged columns (name → DuckDB type) with what a stream of this model takes.

        batches: whether every file is sent with a batch id
        Raises Misconfigured, which lists everything that is wrong at once.
        """
        if stream is StreamName.GROUND_TRUTH:
            problems = [*self._own(columns, (ID, LABEL_TIME), ()), *self._fit(columns, labels_only=True)]
        else:
            problems = [
                *self._own(columns, (ID, TIME), (BATCH, LABEL_TIME)),
                *self._batches(columns, batches),
                *self._labels_beside(columns),
                *self._fit(columns, labels_only=False),
            ]
        if problems:
            listed = "".join(f"\n  - {one}" for one in problems)
            raise Misconfigured(
                f"the columns of {stream} do not fit the model:{listed}",
                safe="Nothing was sent.",
                hint="Correct the job's columns, or register a model that fits; attributes cannot be added later.",
            )

    def _own(self, columns: Mapping[str, str], needed: tuple[str, ...], possible: tuple[str, ...]) -> Iterator[str]:
        for name in (*needed, *possible):
            wanted = "VARCHAR" if name in (ID, BATCH) else _ZONED
            if name in columns:
                if columns[name].upper() != wanted:
                    yield _cast(name, columns[name], "STRING" if wanted == "VARCHAR" else "TIMESTAMP")
            elif name in needed:
                yield f"{name} is missing{_nearest(name, set(columns) - set(self.attributes))}"
        for name in sorted(RESERVED - set(needed) - set(possible)):
            if name in columns:
                yield f"{name} is a reserved name, and not one of this stream's"

    def _batches(self, columns: Mapping[str, str], batches: bool) -> Iterator[str]:
        given = batches or BATCH in columns
        if self.is_batch and not given:
            yield f"{BATCH} is missing: the model is a batch model"
        if given and not self.is_batch:
            yield f"{BATCH} is given, but the model is not a batch model"

    def _labels_beside(self, columns: Mapping[str, str]) -> Iterator[str]:
        labels = [one.name for one in self.attributes.values() if one.is_label]
        given = [name for name in labels if name in columns]
        if given and LABEL_TIME not in columns:
            yield f"{LABEL_TIME} is missing, although {given[0]} is there"
        if given or LABEL_TIME in columns:
            yield from (
                f"{name} (ground truth) is missing beside the other" for name in labels if name not in columns
            )

    def _fit(self, columns: Mapping[str, str], *, labels_only: bool) -> Iterator[str]:
        absent = {name for name in self.attributes if name not in columns}
        for name, type_ in columns.items():
            if name in RESERVED:
                continue
            attribute = self.attributes.get(name)
            if attribute is None:
                yield f"{name} is not an attribute of the model{_nearest(name, absent)}"
            elif labels_only and not attribute.is_label:
                yield f"{name} is not ground truth, but {attribute.stage}"
            elif type_.upper() not in _FITTING.get(attribute.value_type, frozenset({type_.upper()})):
                yield _cast(name, type_, attribute.value_type)
        for name in sorted(absent):
            attribute = self.attributes[name]
            if attribute.is_label if labels_only else attribute.required:
                yield f"{name} ({attribute.stage}) is missing{_nearest(name, set(columns) - set(self.attributes))}"


def _attribute(entry: object) -> Attribute:
    match entry:
        case {"name": str(name), "value_type": str(value_type), "stage": str(stage)}:
            return Attribute(name, value_type, stage)
    raise ValueError("an attribute of the model has no name, value type or stage")


def _nearest(name: str, among: set[str]) -> str:
    near = get_close_matches(name, sorted(among - RESERVED), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _cast(name: str, type_: str, value_type: str) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    target = _CASTS[value_type]
    if value_type == "TIMESTAMP" and type_.upper().startswith(("TIMESTAMP", "DATE")):
        # A naive time needs its zone said; guessing one would shift every row.
        zoned = f"CAST({quoted} AS TIMESTAMP) AT TIME ZONE 'UTC'"
        return f"{name} is {type_}, which has no time zone; write {zoned} (or its own zone)"
    return f"{name} is {type_}, which is no {value_type}; write CAST({quoted} AS {target})"
