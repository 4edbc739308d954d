"""Values in Avro, by schemas of a registry, as texts of JSON, of which columns are made as of any JSON.

A value begins with a zero byte and its schema's number in four bytes; Avro's binary encoding of one record follows
(https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format). It is
read by the schema that it was written with, whichever is the newest.

What JSON has no type for is text: instants and dates in ISO 8601, decimals with all their digits, UUIDs, floats that
are no numbers; bytes in base64.
"""

from __future__ import annotations

import base64
import io
import json
import math
import ssl
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import UUID

import pyarrow as pa
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError
from fastavro import schemaless_reader
from fastavro.schema import SchemaParseException, parse_schema

from tidepost.errors import Misconfigured, Retryable, TidepostError
from tidepost.sources.kafka.columns import NO_SCHEMA, NOT_AVRO

SECONDS: Final = 30
_HEADER: Final = struct.Struct(">bI")
_CLIENT: Final = {"timeout": SECONDS, "max.retries": 3, "retries.wait.ms": 200, "retries.max.wait.ms": 2_000}
_UNKNOWN: Final = 40403
"""What a registry answers that has no schema of a number."""


class Registry:
    """Schemas by their numbers, each asked for once. Between two questions nothing is open."""

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        """url: of one registry, or of several that hold the same, with commas between them; it may hold a user and a
        password, which the client is given apart, as it logs what it calls"""
        several = [urlsplit(one.strip()) for one in url.split(",")]
        hosts = [one.netloc.rpartition("@")[2] for one in several]
        plain = [urlunsplit(one._replace(netloc=host)) for one, host in zip(several, hosts, strict=True)]
        user = several[0].netloc.rpartition("@")[0]
        own = {"basic.auth.user.info": unquote(user)} if user else {}
        self.where = ", ".join(hosts)
        self._options = {"url": ",".join(plain), **own, **options, **_CLIENT}
        self._parsed: dict[int, Any] = {}

    def schema(self, number: int) -> Any:
        """A schema as fastavro takes it. Raises LookupError where the registry has none of the number, ValueError
        where it is none of Avro's; Retryable, Misconfigured."""
        if number not in self._parsed:
            found = self._asked(lambda client: client.get_schema(number))
            if found.schema_type not in (None, "AVRO"):
                raise ValueError(found.schema_type)
            named: dict[str, Any] = {}
            self._name(found, named)
            self._parsed[number] = _parsed(found, named)
        return self._parsed[number]

    def _name(self, of: Any, named: dict[str, Any]) -> None:
        """Parse the schemas that another one refers to."""
        for one in of.references or ():
            found = self._asked(partial(_version, one.subject, one.version))
            self._name(found, named)
            _parsed(found, named)

    def _asked(self, question: Callable[[SchemaRegistryClient], Any]) -> Any:
        try:
            client = SchemaRegistryClient(self._options)
        except (ValueError, TypeError, OSError) as error:  # an SSLError is an OSError
            raise Misconfigured(
                f"kafka: the schema registry at {self.where} cannot be asked: {error}",
                safe="Nothing was lost.",
                hint="Check source.kafka.registry.",
            ) from None
        try:
            with client:
                return question(client)
        except SchemaRegistryError as error:
            if error.error_code == _UNKNOWN:
                raise LookupError from None
            raise self._told(error.http_status_code) from None
        except json.JSONDecodeError:
            raise self._told(200) from None
        except Exception as error:  # its HTTP library's, of which it takes one of two
            raise self._unreached(error) from None

    def _told(self, status: int) -> TidepostError:
        if status in (401, 403):
            return Misconfigured(
                f"kafka: the schema registry at {self.where} refuses the key (HTTP {status})",
                safe="Nothing was lost.",
                hint="Check source.kafka.registry.options, and the rights to read schemas.",
            )
        if status in (408, 429) or status >= 500:
            return Retryable(
                f"kafka: the schema registry at {self.where} answers HTTP {status}",
                safe="Nothing was lost.",
                hint="Run again when it answers.",
            )
        return Misconfigured(
            f"kafka: what answers at {self.where} is no schema registry (HTTP {status})",
            safe="Nothing was lost.",
            hint="Check source.kafka.registry.url.",
        )

    def _unreached(self, error: BaseException) -> TidepostError:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            return Misconfigured(
                f"kafka: the schema registry at {self.where}: {cause}",
                safe="Nothing was lost.",
                hint="Check `ssl.ca.location` and the certificate in source.kafka.registry.options.",
            )
        return Retryable(
            f"kafka: the schema registry at {self.where} does not answer: {type(error).__name__}",
            safe="Nothing was lost.",
            hint="Run again when it answers.",
        )


def _version(subject: str, version: int, client: SchemaRegistryClient) -> Any:
    return client.get_version(subject, version).schema


def _parsed(of: Any, named: dict[str, Any]) -> Any:
    """A schema as fastavro takes it, which is also put into `named`. Raises ValueError."""
    try:
        return parse_schema(json.loads(of.schema_str), named_schemas=named)
    except SchemaParseException as error:
        raise ValueError from error


@dataclass(frozen=True, slots=True)
class Avro:
    """Satisfies `messages.Texts`."""

    registry: Registry = field(repr=False)

    def __call__(self, values: Sequence[bytes | None], bad: list[str | None]) -> pa.Array:
        """Values as texts of JSON; one that is none is in base64, and its reason goes to `bad`. Raises Retryable,
        Misconfigured where a schema cannot be asked for."""
        texts: list[str | None] = []
        unknown: set[int] = set()
        for at, value in enumerate(values):
            try:
                texts.append(None if value is None else self._text(value, unknown))
            except (LookupError, ValueError, struct.error) as error:
                bad[at] = NO_SCHEMA if isinstance(error, LookupError) else NOT_AVRO
                texts.append(base64.b64encode(value or b"").decode())
        return pa.array(texts, pa.string())

    def _text(self, value: bytes, unknown: set[int]) -> str:
        """Raises LookupError for a schema that is not there, ValueError or struct.error for what is no record of it.
        unknown: schemas that are not there, which are not asked for again"""
        magic, number = _HEADER.unpack_from(value)
        if magic or number in unknown:
            raise LookupError if not magic else ValueError
        try:
            schema = self.registry.schema(number)
        except LookupError:
            unknown.add(number)
            raise
        rest = io.BytesIO(value)
        rest.seek(_HEADER.size)
        try:
            record = schemaless_reader(rest, schema, None)
        except Exception as error:  # whatever it makes of bytes that are something else
            raise ValueError from error
        if rest.tell() != len(value):
            raise ValueError
        try:
            return json.dumps(record, default=_plain, allow_nan=False)
        except ValueError:
            return json.dumps(_numbers(record), default=_plain)


def _plain(value: object) -> str:
    """What JSON has no type for."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(type(value))


def _numbers(value: Any) -> Any:
    """The same with floats that are no numbers as texts, as DuckDB reads them."""
    if isinstance(value, dict):
        return {name: _numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
