"""The section of a job definition that reads a Kafka topic."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from tidepost.definition.fields import Address, Referring, Section, Text, fault, lengthen, shown
from tidepost.definition.reference import SECRET_PATTERN

OFFSET: Final = "offset"
"""The cursor's column: the number of a message in its partition."""

_STEP: Final = re.compile(r'\.?"([^"]+)"|\.?([^\s."\[\]$*#]+)|\[(\d+)\]')
_OPTIONS: Final = ("broker.", "client.", "fetch.", "metadata.", "reconnect.", "sasl.", "security.", "socket.", "ssl.")
_SINGLE: Final = frozenset({"heartbeat.interval.ms", "max.poll.interval.ms", "session.timeout.ms"})
_REGISTRY_OPTIONS: Final = ("basic.auth.", "bearer.auth.", "ssl.")
_SECRET: Final = re.compile(
    r"password|secret|\.key\.pem$|keystore\.|sasl\.jaas|oauthbearer\.config|user\.info$|auth\.token$"
)


def json_path(text: str) -> str:
    """A path as DuckDB reads it: `scores[0].label`, with or without `$.` before it, as `$."scores"[0]."label"`.

    ValueError: it is no path; a sentence without subject.
    """
    rest, found = text.removeprefix("$"), ["$"]
    while rest:
        step = _STEP.match(rest)
        if step is None:
            raise ValueError('is no path; write one like request.id, scores[0] or "odd name".value')
        quoted, plain, index = step.groups()
        found.append(f"[{index}]" if index is not None else f'."{quoted or plain}"')
        rest = rest[step.end() :]
    if len(found) == 1:
        raise ValueError("names no field; write a path like request.id")
    return "".join(found)


class KafkaColumn(Section):
    """Where a column is in a message: exactly one of `path`, `header` and `message`. Text alone is a path."""

    path: Text | None = Field(
        None,
        description='A field of the message\'s JSON or Avro: names and `[number]`s, `"…"` around a name with dots.',
        examples=["request.id", "scores[0]"],
    )
    header: Text | None = Field(
        None, description="A header of the message, as text; of several of a name the last.", examples=["tenant"]
    )
    message: Literal["key", "offset", "partition", "timestamp", "topic"] | None = Field(
        None,
        description="What Kafka says of the message; `timestamp` is the producer's or the log's, as the topic says.",
    )
    type: Literal["string", "integer", "float", "boolean", "timestamp"] = Field(
        "string",
        description="What the field, the header or the key holds. A value that is not exactly of it sets the message "
        "aside; a timestamp is text with a zone, or a number with `unit`.",
    )
    unit: Literal["s", "ms", "us", "ns"] | None = Field(
        None, description="Of a timestamp that is a number: what it counts since 1970."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        given = [key for key in ("path", "header", "message") if getattr(self, key) is not None]
        if len(given) != 1:
            said = f"has {' and '.join(given)}" if given else "has none of path, header and message"
            raise fault(f"{said}; give exactly one of path, header and message")
        if self.path is not None:
            try:
                json_path(self.path)
            except ValueError as error:
                raise fault(f"{shown(self.path)} {error}", "path") from None
        if self.message not in (None, "key") and "type" in self.model_fields_set:
            raise fault("is Kafka's to say here; leave it out", "type")
        if self.unit and self.type != "timestamp":
            raise fault("belongs to a timestamp", "unit")
        return self


_COLUMN_SCHEMA: Final[dict[str, Any]] = {"type": "string", "minLength": 1}
Columns = Annotated[
    dict[Text, Annotated[KafkaColumn, BeforeValidator(lengthen("path"), json_schema_input_type=KafkaColumn | Text)]],
    Field(min_length=1),
]
Options = Annotated[dict[Text, Referring], WithJsonSchema({"type": "object", "additionalProperties": _COLUMN_SCHEMA})]


class RegistryDefinition(Section):
    """A registry of schemas, by the REST of Confluent's."""

    url: Address = Field(
        description="Its address; a user and a password only behind a reference.", examples=["${SCHEMA_REGISTRY}"]
    )
    options: Options = Field(
        {},
        description="Options of confluent-kafka's client of it, by their own names: `basic.auth.user.info`, "
        "`ssl.ca.location`, `ssl.certificate.location` and others. Passwords, keys and tokens are always references.",
        examples=[
            {"basic.auth.user.info": "${REGISTRY_USER_AND_PASSWORD}", "ssl.ca.location": "/etc/ssl/registry.pem"}
        ],
    )

    @model_validator(mode="after")
    def _options_are_ours_to_pass(self) -> Self:
        for name, value in self.options.items():
            if not name.startswith(_REGISTRY_OPTIONS):
                raise fault("is not passed on; basic.auth, bearer.auth and ssl options are", "options", name)
            _check_secret(name, value)
        return self


class KafkaDefinition(Section):
    """A topic. The cursor is the vector of its partitions' offsets. Only what is committed is read."""

    bootstrap: Referring = Field(
        description="Brokers to begin with, by host and port.", examples=["${KAFKA}", "kafka-1:9092,kafka-2:9092"]
    )
    topic: Referring = Field(description="The topic's name.", examples=["inferences"])
    columns: Columns = Field(
        description="The source's columns by name: where each is in a message, and of which type.",
        examples=[{"id": "request.id", "score": {"path": "scores[0]", "type": "float"}}],
    )
    format: Literal["json", "avro"] = Field(
        "json", description="What a message's value is: one JSON value, or Avro by the schemas of `registry`."
    )
    registry: RegistryDefinition | None = Field(None, description="Where the schemas of Avro are.")
    group: Referring | None = Field(
        None,
        description="The consumer group whose offsets follow the mark, for tools that show lag. Default: `tidepost-` "
        "and the job's name.",
    )
    on_poison: Literal["reject", "stop"] = Field(
        "reject",
        description="What becomes of a message that is not of its format, or whose values are not of their columns' "
        "types: it is set aside with topic, partition, offset and reason, or ends the run before it.",
    )
    options: Options = Field(
        {},
        description="Options of librdkafka, by their own names: `security.protocol`, `sasl.mechanism`, "
        "`sasl.username`, `ssl.ca.location` and others. Passwords and keys are always references.",
        examples=[{"security.protocol": "SASL_SSL", "sasl.password": "${KAFKA_PASSWORD}"}],
    )

    @model_validator(mode="after")
    def _options_are_ours_to_pass(self) -> Self:
        for name, value in self.options.items():
            if not name.startswith(_OPTIONS) and name not in _SINGLE:
                raise fault("is not passed on; security, sasl, ssl, socket and client options are", "options", name)
            _check_secret(name, value)
        return self

    @property
    def secrets(self) -> tuple[str, ...]:
        """The references to what nobody may see, in options or, with more around it, in the registry's address."""
        named = (*self.options.items(), *(self.registry.options.items() if self.registry else ()))
        return (
            *(value for name, value in named if _SECRET.search(name)),
            *([self.registry.url] if self.registry else []),
        )

    @model_validator(mode="after")
    def _avro_has_a_registry(self) -> Self:
        if self.format == "avro" and self.registry is None:
            raise fault("is missing: Avro is read by the schemas of a registry", "registry")
        if self.format != "avro" and self.registry is not None:
            raise fault("belongs to `format: avro`", "registry")
        return self


def _check_secret(name: str, value: str) -> None:
    """Raises what pydantic takes where a secret stands in the definition itself."""
    if _SECRET.search(name) and not re.fullmatch(SECRET_PATTERN, value):
        raise fault("holds a secret; put it in a variable and write ${NAME} here", "options", name)
