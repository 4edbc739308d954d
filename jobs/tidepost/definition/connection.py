"""Connections as Airflow writes them down, as a URI or as JSON, read without Airflow.

https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html says how both look.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

ARTHUR: Final = "tidepost_arthur"
"""The type of connection that this package adds to Airflow."""

_EXTRA: Final = "__extra__"
_ADDRESSES: Final = (ARTHUR, "http", "https")
_NOT_LIBPQ: Final = frozenset(
    {"iam", "cursor", "aws_conn_id", "azure_conn_id", "sqlalchemy_scheme", "sqlalchemy_query"}
    | {"enable_log_db_messages", "redshift", "redshift-serverless", "cluster-identifier", "workgroup-name"}
)
"""What the extra of a PostgreSQL connection holds for Airflow's own hook, and libpq does not know."""
_FIELDS: Final = frozenset({"host", "port", "login", "password", "schema"})
_HIDDEN: Final = ("password", "passwd", "passphrase", "secret", "token", "api_key", "private_key")
"""What the name of an extra's secret holds."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where something is and who asks there. Its texts show only its type.

    type:  as Airflow has it: `postgres`, `aws`, `http`, `tidepost_arthur`
    extra: whatever else its type takes
    """

    type: str
    host: str = field(default="", repr=False)
    port: int | None = field(default=None, repr=False)
    login: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    schema: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> Connection:
        """A connection from its URI or its JSON. ValueError: it is neither; nothing of the text is repeated."""
        try:
            return _from_json(text) if text.lstrip().startswith("{") else _from_uri(text)
        except (ValueError, TypeError, AttributeError, KeyError):
            raise ValueError("is no connection as Airflow defines it, neither a URI nor JSON") from None

    def value(self, name: str) -> str | None:
        """A field by its name: `host`, `port`, `login`, `password`, `schema`, else a key of the extra. None where
        it is empty, or no single value."""
        found = getattr(self, name) if name in _FIELDS else self.extra.get(name)
        return _text(found) if _plain(found) else None

    @property
    def url(self) -> str:
        """The whole connection in one text, as its kind of client takes it: of a platform its address, without login
        and password; of PostgreSQL a libpq URL; of anything else Airflow's URI."""
        if self.type in _ADDRESSES:
            return self._address()
        extra = dict(self.extra)
        if self.type == "postgres":
            options = {key: _text(value) for key, value in extra.items() if key not in _NOT_LIBPQ and _plain(value)}
            if self.host.startswith("/"):  # a socket's folder, which SQLAlchemy reads from there only
                options["host"] = self.host
            return self._uri("postgresql", urlencode(options))
        plain = all(isinstance(value, str) for value in extra.values())
        query = urlencode(extra if plain else {_EXTRA: json.dumps(extra)}) if extra else ""
        return self._uri(self.type.replace("_", "-"), query)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must not be seen, also as a URL spells it."""
        texts = [self.password, *_hidden(self.extra)]
        if self.type not in _ADDRESSES and self.password:
            texts.append(self.url)
        return tuple(dict.fromkeys(one for text in texts if text for one in (text, quote(text, safe=""))))

    def _address(self) -> str:
        scheme, found, host = self.host.rpartition("://")
        if not host:
            return ""
        if not found:
            named = self.schema if self.schema in ("http", "https") else ""
            scheme = named or ("http" if self.type == "http" else "https")
        return f"{scheme}://{host}{'' if self.port is None else f':{self.port}'}"

    def _uri(self, scheme: str, query: str) -> str:
        user = quote(self.login, safe="") + (f":{quote(self.password, safe='')}" if self.password else "")
        host = "" if scheme == "postgresql" and self.host.startswith("/") else self.host
        place = quote(host, safe="[]:,") + ("" if self.port is None else f":{self.port}")
        path = f"/{quote(self.schema, safe='')}" if self.schema or query else ""
        return f"{scheme}://{user}{'@' if user else ''}{place}{path}{'?' if query else ''}{query}"


def _from_json(text: str) -> Connection:
    found = json.loads(text)
    extra = found.get("extra") or {}
    return Connection(
        type=_type(found["conn_type"]),
        host=found.get("host") or "",
        port=int(found["port"]) if found.get("port") else None,
        login=found.get("login") or "",
        password=found.get("password") or "",
        schema=found.get("schema") or "",
        extra=dict(json.loads(extra) if isinstance(extra, str) else extra),
    )


def _from_uri(text: str) -> Connection:
    """`type://[scheme://][login[:password]@][host][:port][/schema][?extra]`, each part quoted."""
    kind, found, rest = text.strip().partition("://")
    if not found or not kind:
        raise ValueError
    before, mark, query = rest.partition("?")
    scheme, again, place = before.rpartition("://")
    if "@" in scheme or ":" in scheme:
        raise ValueError
    parts = urlsplit(f"//{place}{mark}{query}")
    host = unquote(parts.netloc.rpartition("@")[2])
    if parts.port is not None:
        host = host.rpartition(":")[0]
    options = dict(parse_qsl(query, keep_blank_values=True))
    return Connection(
        type=_type(kind),
        host=f"{scheme}://{host}" if again and host else host.removesuffix(":"),
        port=parts.port,
        login=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        schema=unquote(parts.path[1:]),
        extra=dict(json.loads(options[_EXTRA]) if _EXTRA in options else options),
    )


def _type(written: str) -> str:
    return "postgres" if written == "postgresql" else written.lower().replace("-", "_")


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _hidden(extra: Mapping[str, Any]) -> list[str]:
    """The texts below keys, at any depth, that are named as secrets are."""
    found = []
    for key, value in extra.items():
        if isinstance(value, Mapping):
            found += _hidden(value)
        elif isinstance(value, str) and any(word in key.lower() for word in _HIDDEN):
            found.append(value)
    return found
