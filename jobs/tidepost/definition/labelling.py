"""The `ground_truth` section of a job definition: where labels are found, and which inference each belongs to."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from tidepost.definition.fields import (
    Duration,
    IdTemplate,
    Schedule,
    SecretReference,
    Section,
    Text,
    fault,
    lengthen,
)
from tidepost.definition.mapping import RESERVED, Attributes, MappingDefinition, TimestampDefinition
from tidepost.definition.sections import (
    AnySource,
    CursorDefinition,
    FileFormat,
    Files,
    LimitsDefinition,
    SourceDefinition,
)
from tidepost.definition.template import Template

NO_SOURCE: Final = SourceDefinition.model_construct()
BY_FILES: Final = CursorDefinition.model_construct(
    column="known_at", type="timestamp", start="2000-01-01T00:00:00Z", settle=timedelta(), lookback=timedelta()
)
"""What the stream of labels that come by files alone has for a source and its cursor: no range of it holds a row."""


class FilesDefinition(Section):
    """Files of labels that somebody drops, beside the source: each is uploaded once. Text or a list means `paths`."""

    paths: Files = Field(
        description="Files by name or glob, local (relative to the project's root) or in S3.",
        examples=["drops/labels-*.csv", "s3://bucket/labels/*.parquet"],
    )
    format: FileFormat | None = Field(
        None, description="What the files are. Default: the suffix of each, as for `source.files`."
    )
    known_at: Annotated[
        TimestampDefinition | None,
        BeforeValidator(lengthen("column"), json_schema_input_type=TimestampDefinition | Text),
    ] = Field(
        None,
        description="The column that says when a label became known. Default, and where it is NULL: when the file "
        "was modified.",
    )
    s3: SecretReference | None = Field(
        None,
        description="Who reads files in S3, as for `source.s3`. Default: who reads the section's source.",
        examples=["${airflow:labels_in_s3}"],
    )
    quiet: Duration = Field(
        timedelta(minutes=5), description="How long a file must not have changed: it may still be written."
    )


def _paths(value: object) -> object:
    return {"paths": value} if isinstance(value, (str, list, tuple)) else value


class GroundTruthDefinition(Section):
    """Labels: a stream of the job's own, which goes to the same model after the inferences."""

    source: AnySource | None = Field(
        None,
        description="Where labels are found, as for inferences, but not in Kafka. Needed, unless all labels come by "
        "`files`.",
        examples=["labels/*.parquet"],
    )
    cursor: CursorDefinition | None = Field(
        None,
        description="The column that new labels are found by: when a label became known. Of two labels of one "
        "inference the one that became known later wins; so it is a time, a date or a growing number. Needed with a "
        "`source`.",
    )
    partner_inference_id: IdTemplate | None = Field(
        None,
        description="The id of the inference that a label belongs to: a column, or a template. Default: the "
        "mapping's, over the columns of this source.",
        examples=["flight_id", "{carrier}{flight}-{origin}-{date}"],
    )
    ground_truth_timestamp: Annotated[
        TimestampDefinition, BeforeValidator(lengthen("column"), json_schema_input_type=TimestampDefinition | Text)
    ] = Field(description="When the outcome was known in the world.", examples=["landed_at"])
    attributes: Attributes = Field(
        description="The model's ground-truth attributes, in the forms of `mapping.inputs`: one label, one-hot "
        "columns, or several. A row has its label once none of them is NULL, but for those that are "
        "`optional: true`; 0, false and empty text are labels.",
        examples=[["was_late"], {"was_late": {"column": "late", "type": "integer"}}],
    )
    files: Annotated[
        FilesDefinition | None,
        BeforeValidator(_paths, json_schema_input_type=FilesDefinition | Text | list[Text]),
    ] = Field(None, description="Files of labels that somebody drops.", examples=["drops/labels-*.csv"])
    schedule: Schedule | None = Field(
        None, description="When labels are uploaded. Default: with the inferences, after them.", examples=["@daily"]
    )
    orphan_after: Duration = Field(
        timedelta(days=30),
        description="How long a label waits for its inference before it is listed as an orphan. It is kept, and sent "
        "if the inference comes after all.",
    )
    horizon: Duration = Field(
        timedelta(days=366),
        description="How much older than its label an inference may be; beyond that it is not looked for.",
    )
    limits: LimitsDefinition | None = Field(
        None, description="How much a run may take of labels, and how many bad rows it bears. Default: the job's."
    )

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> Self:
        if self.source is None and self.files is None:
            raise fault("is missing; name it, or `files` that labels come by", "source")
        if self.source is not None and self.cursor is None:
            raise fault("is missing: it says when a label of the source became known", "cursor")
        if self.source is None and self.cursor is not None:
            raise fault("belongs to a source; of files `files.known_at` says when a label became known", "cursor")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.attributes:
            raise fault("is empty; name at least one ground-truth attribute", "attributes")
        names: set[str] = set()
        for number, attribute in enumerate(self.attributes):
            name = attribute.name.lower()
            if name in RESERVED:
                raise fault(f'"{attribute.name}" is a name of tidepost\'s own; choose another', "attributes", number)
            if name in names:
                raise fault(f'"{attribute.name}" is there twice', "attributes", number)
            names.add(name)
        if self.source is not None and self.source.kafka is not None:
            raise fault("has offsets, which do not say which label is newer; use a table or files", "source", "kafka")
        cursor = self.cursor
        if cursor is not None and cursor.type == "uuid":
            raise fault("a UUID does not say which label is newer; use a time, a date or a number", "cursor", "type")
        numbered = cursor is not None and (cursor.type == "integer" or isinstance(cursor.start, int))
        if self.files is not None and numbered:
            raise fault("need a cursor that is a time or a date, to tell which label is newer", "files")
        return self

    def mapping(self, template: Template) -> MappingDefinition:
        """As the engine maps rows: labels go where `non_inputs` go.

        template: of the job's inferences, for a section without its own
        """
        return MappingDefinition.model_construct(
            partner_inference_id=self.partner_inference_id or template,
            inference_timestamp=self.ground_truth_timestamp,
            inputs=(),
            predictions=(),
            non_inputs=self.attributes,
            batch_id=None,
            ignore=(),
        )
