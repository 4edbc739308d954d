"""The `destination` section of a job whose inferences go to Arize."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from tidepost.definition.fields import (
    Address,
    Count,
    Name,
    Number,
    Referring,
    SecretReference,
    Section,
    Size,
    Span,
    Text,
    fault,
)
from tidepost.definition.mapping import MappingDefinition

ModelType: TypeAlias = Literal["regression", "numeric", "binary_classification", "score_categorical", "ranking"]
NUMERIC: Final = ("regression", "numeric")


def _pairs(value: object) -> object:
    if isinstance(value, dict):
        return list(value.items())
    raise fault("must be a mapping of features to the columns of their SHAP values")


Shap = Annotated[
    tuple[tuple[Text, Text], ...],
    BeforeValidator(_pairs),
    PlainSerializer(dict, return_type=dict[str, str]),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string", "minLength": 1}}),
]
"""`{feature: attribute}`."""


class ArizeDefinition(Section):
    """A model at Arize that receives the inferences: inputs as features, non-inputs as tags, by their names."""

    type: Literal["arize"] = Field(description="The kind of destination.")
    name: Name = Field(
        "arize", description="The destination's name in the ledger, where its deliveries are found by it."
    )
    url: Address = Field(
        "https://api.arize.com/v1",
        description="The platform's address.",
        examples=["https://api.eu-west-1a.arize.com"],
    )
    api_key: SecretReference = Field(
        description="The key, always by reference: `${NAME}` of an environment variable.",
        examples=["${ARIZE_API_KEY}"],
    )
    space_id: Referring = Field(description="The space that the model belongs to.", examples=["${ARIZE_SPACE_ID}"])
    model: Referring = Field(
        description="The model's name. Arize makes the model when the first rows arrive.", examples=["flights-delay"]
    )
    version: Referring = Field(description="The model's version, of every prediction.", examples=["3", "2024-05"])
    environment: Literal["production", "training", "validation"] = Field(
        "production",
        description="What the inferences are. A training or validation set has its actual values beside its "
        "predictions, and a validation set has a batch id.",
    )
    model_type: ModelType = Field(description="What the model does.", examples=["binary_classification"])
    prediction_label: Text | None = Field(
        None, description="The prediction that is the label. A single prediction is it unless it is the score."
    )
    prediction_score: Text | None = Field(
        None,
        description="The prediction that is the score. A regression or numeric model has no other: it is the label.",
        examples=["delay_probability"],
    )
    actual_label: Text | None = Field(
        None,
        description="The attribute that is the actual value: of a training or validation set, or of ground truth "
        "that has several.",
    )
    actual_score: Text | None = Field(None, description="The attribute that is the actual score.")
    shap: Shap = Field(
        (),
        description="SHAP values: each feature with the non-input that holds its value.",
        examples=[{"distance": "distance_contribution"}],
    )
    group: Text | None = Field(None, description="Of a ranking: the attribute that names a row's group.")
    rank: Text | None = Field(None, description="Of a ranking: the attribute that is a row's rank, from 1 to 100.")
    batch_id: Referring | None = Field(
        None, description="The batch of all rows; `mapping.batch_id` gives each its own.", examples=["2024-q1"]
    )
    request_rows: Number = Field(500_000, description="Rows in one request, and so in one staged file, at most.")
    request_bytes: Size = Field(
        512_000_000,
        description="Bytes in one request, at most, uncompressed; a file that needs more goes in several.",
    )
    connections: Annotated[Number, Field(le=64)] = Field(4, description="Files sent at the same time.")
    timeout: Span = Field(timedelta(minutes=5), description="How long one request may take.")
    retries: Count = Field(5, description="How often a request is repeated that certainly did not arrive.")
    poll: Span = Field(timedelta(seconds=2), description="The time between two looks at what is still on its way.")
    on_unknown: Literal["stop", "resend"] = Field(
        "stop",
        description="What becomes of a file whose answer was lost, as Arize cannot be asked: `stop` for a person, or "
        "`resend`, which does no harm where Arize merges repeats by their prediction id.",
    )
    ca_file: Referring | None = Field(
        None, description="Certificates of your own authority (PEM); relative to the project's root."
    )

    shared: ClassVar[bool] = False
    """Nothing is counted at Arize, so it does not matter who else writes there."""
    merges: ClassVar[bool] = True
    """A row that comes again takes the place of the one that is there, by its prediction id."""

    @model_validator(mode="after")
    def _one_label(self) -> Self:
        if self.model_type in NUMERIC and self.prediction_label and self.prediction_score:
            raise fault(f"a {self.model_type} model has one of prediction_label and prediction_score", "model_type")
        if self.model_type == "ranking" and not (self.group and self.rank):
            raise fault("a ranking needs `group` and `rank`", "model_type")
        return self

    @property
    def model_name(self) -> str:
        """The model as the definition names it."""
        return self.model

    @property
    def identity(self) -> dict[str, Any]:
        """What may not change under a job that has sent rows. A version may: actuals join whatever it is."""
        return {"type": self.type, "space": self.space_id, "model": self.model}

    def resolved(self, text: Callable[..., str | None], file: Callable[..., str | None]) -> Self:
        """With each reference replaced: `text` and `file` take a value as written, and its keys from here."""
        update = {key: text(getattr(self, key), key) for key in ("url", "space_id", "model", "version", "batch_id")}
        return self.model_copy(update={**update, "ca_file": file(self.ca_file, "ca_file")})

    def misfits(self, mapping: MappingDefinition, *at: str | int) -> Iterator[PydanticCustomError]:
        """What is wrong with it beside that mapping; `at` is where in the file it stands."""
        predictions = [one.name for one in mapping.predictions]
        inputs = {one.name for one in mapping.inputs}
        others = {one.name for one in mapping.non_inputs}
        for key in ("prediction_label", "prediction_score"):
            name = getattr(self, key)
            if name is not None and name not in predictions:
                yield fault(f'"{name}" is none of mapping.predictions', *at, key)
        named = {self.prediction_label, self.prediction_score} - {None}
        if not named and len(predictions) > 1:
            yield fault("is needed, or prediction_score: there are several predictions", *at, "prediction_label")
        unnamed = [name for name in predictions if name not in named]
        if named and unnamed:
            yield fault(f'"{unnamed[0]}" has no place at Arize; make it a non-input', "mapping", "predictions")
        for feature, column in self.shap:
            if feature not in inputs:
                yield fault(f'"{feature}" is none of mapping.inputs', *at, "shap")
            if column not in others:
                yield fault(f'"{column}" is none of mapping.non_inputs', *at, "shap")
        for key in ("group", "rank"):
            name = getattr(self, key)
            if name is not None and name not in inputs | others:
                yield fault(f'"{name}" is none of the mapping\'s inputs and non-inputs', *at, key)
        if self.environment != "production":
            actual = {self.actual_label, self.actual_score} - {None}
            if not actual or not actual <= inputs | others:
                yield fault(
                    f"is needed: a {self.environment} set has its actual values among its non-inputs",
                    *at,
                    "actual_label",
                )
