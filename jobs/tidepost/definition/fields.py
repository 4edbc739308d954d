"""The types of a definition's fields: what is accepted, what it becomes, how it is shown in JSON Schema.

Each refuses with a whole sentence that follows the key's name. Only here and in the models' own checks is such a
sentence made; it repeats what was given, except for secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictInt,
    WithJsonSchema,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError

from tidepost.definition.reference import SECRET_PATTERN, Secret, check_references
from tidepost.definition.template import Template
from tidepost.definition.units import (
    DURATION_PATTERN,
    PERCENT_PATTERN,
    SIZE_PATTERN,
    RejectLimit,
    duration_text,
    parse_duration,
    parse_reject_limit,
    parse_size,
    parse_zone,
)

_T = TypeVar("_T")

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def fault(text: str, *at: str | int) -> PydanticCustomError:
    """A refusal in our own words; `at` is the key below the field that is checked, where it is not the field."""
    return PydanticCustomError("tidepost", "{text}", {"text": text, "at": at})


class Section(BaseModel):
    """Frozen, and without a place for keys that are not its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def shown(value: object) -> str:
    """A value as a message repeats it: one line, as JSON, and not much longer than 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…{text[-1]}"


class Schema(GenerateJsonSchema):
    """Without the titles that pydantic makes of names, and with defaults as one would write them."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def encode_default(self, dft: object) -> Any:
        if isinstance(dft, timedelta):
            return duration_text(dft)
        if isinstance(dft, Section):
            return {}
        return str(dft) if isinstance(dft, RejectLimit) else super().encode_default(dft)


def lengthen(key: str) -> Callable[[object], object]:
    """What turns the short form of a section, text alone, into its long form, `{key: text}`."""

    def check(value: object) -> object:
        if isinstance(value, (int, float, list)):
            raise fault(f"must be text, or a mapping with `{key}`")
        return {key: value} if isinstance(value, str) else value

    return check


def _parsed(kind: type[_T], parse: Callable[[str], _T], like: str) -> Callable[[object], _T]:
    def check(value: object) -> _T:
        if isinstance(value, kind) and not isinstance(value, bool):
            return value
        if not isinstance(value, str):
            raise fault(f"must be {like}" if value is not None else f"is empty; write {like}")
        try:
            return parse(value)
        except ValueError as error:
            raise fault(f"{shown(value)} {error}") from None

    return check


def _secret(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    try:
        return Secret(value if isinstance(value, str) else "")
    except ValueError as error:
        raise fault(str(error)) from None


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise fault("must be longer than nothing")
    return value


def _limit(value: object) -> RejectLimit:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise fault("must be at least 0")
        return RejectLimit(rows=value)
    return _parsed(RejectLimit, parse_reject_limit, 'a percentage like "1%" or a whole number of rows')(value)


def _version(value: object) -> object:
    return shown(value) if isinstance(value, bool) else value


def _name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value, re.ASCII):
        raise fault(
            f"{shown(value)} is not a name; write 1 to 63 lower-case letters, digits, _ and -, not _ or - first"
        )
    return value


def _zone(value: str) -> str:
    try:
        parse_zone(value)
    except ValueError as error:
        raise fault(f"{shown(value)} {error}") from None
    return value


def _schedule(value: str) -> str:
    if value in ("@hourly", "@daily"):
        return value
    from croniter import croniter  # noqa: PLC0415 - 50 ms to import, and most jobs run @hourly

    if value.startswith("@") or len(value.split()) != 5 or not croniter.is_valid(value):
        raise fault(
            f'{shown(value)} is not a schedule; write @hourly, @daily or five fields of cron, like "15 3 * * *"'
        )
    try:
        croniter(value, datetime(2000, 1, 1, tzinfo=UTC)).get_next()
    except ValueError:
        raise fault(f"{shown(value)} never comes") from None
    return value


def _referring(value: str) -> str:
    try:
        check_references(value)
    except ValueError as error:
        raise fault(str(error)) from None
    return value


def _address(value: str) -> str:
    _referring(value)
    if not value.startswith(("http://", "https://", "${")):
        raise fault("is no address; write one like https://platform.example.com")
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise fault("holds a user or password; only `api_key` may, by reference")
    return value


def _moment(value: object) -> str | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise fault("must be a time like 2013-01-01T05:00:00Z, a date like 2013-01-01, a whole number or a UUID")
    try:
        parse_moment(value)
    except ValueError as error:
        raise fault(f"{shown(value)} {error}") from None
    return value


def parse_moment(text: str) -> date | datetime | UUID:
    """A date, or a time to the microsecond, in ISO 8601 (`2013-01-01`, `2013-01-01T05:00:00Z`); or a UUID.

    ValueError: none of them, or finer than a microsecond; a sentence without subject.
    """
    if _UUID.fullmatch(text):
        return UUID(text)
    _, dot, fraction = text.partition(".")
    if dot and len(fraction) > 6 and fraction[6].isdigit():
        raise ValueError("is finer than a microsecond")
    try:
        return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is neither a date like 2013-01-01 nor a time like 2013-01-01T05:00:00Z") from None


Text = Annotated[str, Field(min_length=1)]
"""Text that is not empty."""

Referring = Annotated[Text, AfterValidator(_referring)]
"""Text that may hold `${NAME}` and `${NAME:-default}`, kept as written."""

Address = Annotated[Text, AfterValidator(_address)]
"""An http or https URL, or a reference to one; never with a user or password."""

Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
"""A job's or a destination's name: safe in paths and URLs."""

Zone = Annotated[str, AfterValidator(_zone)]
"""The name of an IANA time zone."""

Schedule = Annotated[str, AfterValidator(_schedule)]
"""Five fields of cron, `@hourly` or `@daily`."""

Version = Annotated[Literal[1], BeforeValidator(_version)]
"""The version of a file's format."""

Flag = StrictBool

Count = Annotated[StrictInt, Field(ge=0)]

Number = Annotated[StrictInt, Field(ge=1)]

Duration = Annotated[
    timedelta,
    PlainValidator(_parsed(timedelta, parse_duration, "text like 10m")),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
"""`30s`, `10m`, `1h30m`, `3d`, `1w`."""

Span = Annotated[Duration, AfterValidator(_positive)]
"""A duration above zero."""

Size = Annotated[
    int,
    PlainValidator(_parsed(int, parse_size, "text like 128MB")),
    Field(ge=1),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"type": "integer", "minimum": 1}]}),
]
"""Bytes: `128MB`, `64MiB`, or a whole number of them."""

Rejects = Annotated[
    RejectLimit,
    PlainValidator(_limit),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": PERCENT_PATTERN}, {"type": "integer", "minimum": 0}]}),
]
"""`1%`, or a whole number of rows."""

SecretReference = Annotated[
    Secret,
    PlainValidator(_secret),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": SECRET_PATTERN}),
]
"""Exactly one `${NAME}`."""

IdTemplate = Annotated[
    Template,
    PlainValidator(_parsed(Template, Template, 'a column, or a template in quotes like "{column}-{other}"')),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
"""A column, or an id template."""

Moment = Annotated[
    str | int,
    PlainValidator(_moment),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}]}),
]
"""A date, a time, an integer or a UUID, kept as written."""
