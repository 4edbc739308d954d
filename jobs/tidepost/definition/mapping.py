"""The `mapping` section of a job definition: which columns become which parts of an inference."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from tidepost.definition.fields import IdTemplate, Section, Text, Zone, fault, lengthen

AttributeType: TypeAlias = Literal["string", "integer", "float", "boolean", "timestamp"]

RESERVED: Final = frozenset(
    {
        *("partner_inference_id", "inference_id", "inference_timestamp", "ground_truth_timestamp", "batch_id"),
        *("event_day", "event_hour"),
        *("_file", "_json", "_part", "_row", "file_row_number"),
    }
)
"""Names that staged files give a meaning of their own; no attribute may have one, in any case of its letters."""


class TimestampDefinition(Section):
    """The time at which an inference was made. Text alone is short for `column`."""

    column: Text = Field(description="The column: a timestamp, or a date for its midnight.", examples=["scheduled"])
    timezone: Zone | None = Field(
        None,
        description="The zone of a column that has none of its own; such a column is refused without it.",
        examples=["America/New_York"],
    )


class Attribute(Section):
    """One value of an inference: its name at the destination, and the column that it comes from."""

    name: Text
    column: Text
    type: AttributeType | None = None
    optional: bool | None = None


def _attributes(value: object) -> object:
    """`[a, {name: b, …}]`, `{a: column}` and `{a: {column: …, type: …}}` → a list of attributes."""
    if isinstance(value, dict):
        if twice := [name for name, item in value.items() if isinstance(item, dict) and "name" in item]:
            raise fault("has its name already", twice[0], "name")
        value = [
            {"name": name, **(item if isinstance(item, dict) else {"column": item})} for name, item in value.items()
        ]
    elif isinstance(value, (list, tuple)):
        value = [{"name": item} if isinstance(item, str) else item for item in value]
    else:
        raise fault("must be a list of columns, or a mapping of names to columns")
    return [{"column": item.get("name", "?"), **item} if isinstance(item, dict) else item for item in value]


_COLUMN_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "column": {"type": "string", "minLength": 1},
        "type": {"enum": ["string", "integer", "float", "boolean", "timestamp"]},
        "optional": {"type": "boolean"},
    },
}
_NAMED_SCHEMA: Final[dict[str, Any]] = {
    **_COLUMN_SCHEMA,
    "required": ["name"],
    "properties": {"name": {"type": "string", "minLength": 1}, **_COLUMN_SCHEMA["properties"]},
}
ATTRIBUTES_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "array", "items": {"anyOf": [{"type": "string", "minLength": 1}, _NAMED_SCHEMA]}},
        {"type": "object", "additionalProperties": {"anyOf": [{"type": "string", "minLength": 1}, _COLUMN_SCHEMA]}},
    ]
}
Attributes = Annotated[
    tuple[Attribute, ...], BeforeValidator(_attributes), WithJsonSchema(ATTRIBUTES_SCHEMA, mode="validation")
]
"""`[a, b]`, `{name: column}` or `{name: {column: c, type: T, optional: true}}`."""


class MappingDefinition(Section):
    """Which columns become which parts of an inference. Names are the destination's attributes, in any order."""

    partner_inference_id: IdTemplate = Field(
        description="The id that ties a row here, an inference there and a label later: a column, or a template.",
        examples=["flight_id", "{carrier}{flight}-{origin}-{date}"],
    )
    inference_timestamp: Annotated[
        TimestampDefinition, BeforeValidator(lengthen("column"), json_schema_input_type=TimestampDefinition | Text)
    ] = Field(description="When the inference was made.", examples=["scheduled"])
    inputs: Attributes = Field(
        description="What the model saw: a list of columns, or names with their columns and types. A column that the "
        "source, or a file of it, may lack is `optional: true`: it is sent without a value there.",
        examples=[["distance", "dep_hour"], {"distance": {"column": "distance_mi", "type": "integer"}}],
    )
    predictions: Attributes = Field(
        description="What the model said, in the same forms; at least one.", examples=[["probability"]]
    )
    non_inputs: Attributes = Field(
        (), description="What is sent beside them, to slice and filter by.", examples=[["carrier", "origin"]]
    )
    batch_id: IdTemplate | None = Field(
        None, description="The batch that an inference belongs to: a column, or a template.", examples=["{date}"]
    )
    ignore: tuple[Text, ...] = Field(
        (),
        description="Columns that are left out on purpose; only `drift: fail` asks for them.",
        examples=[["debug_info"]],
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if not self.predictions:
            raise fault("is empty; name at least one prediction", "predictions")
        seen: dict[str, str] = {}
        for section in ("inputs", "predictions", "non_inputs"):
            for number, attribute in enumerate(getattr(self, section)):
                name = attribute.name.lower()
                if name in RESERVED:
                    raise fault(f'"{attribute.name}" is a name of tidepost\'s own; choose another', section, number)
                if name in seen:
                    raise fault(f'"{attribute.name}" is already in {seen[name]}', section, number)
                seen[name] = section
                if attribute.optional and section == "predictions":
                    raise fault("a prediction cannot be optional", section, number, "optional")
        used = self.columns
        for number, column in enumerate(self.ignore):
            if column in used:
                raise fault(f'"{column}" is mapped, so it is not ignored', "ignore", number)
        return self

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Inputs, predictions and non-inputs, in this order."""
        return self.inputs + self.predictions + self.non_inputs

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that say which inference a row is, each once: of the id, the batch and the timestamp."""
        templates = [self.partner_inference_id, *([self.batch_id] if self.batch_id is not None else [])]
        named = [name for template in templates for name in template.columns]
        return tuple(dict.fromkeys([*named, self.inference_timestamp.column]))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read, each once."""
        return tuple(dict.fromkeys([*self.keys, *(one.column for one in self.attributes)]))
