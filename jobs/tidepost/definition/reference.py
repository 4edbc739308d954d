"""References to environment variables and to Airflow's connections, and secrets, which are nothing else.

`${NAME}` is a variable, `${airflow:ID}` a connection's URL, `${airflow:ID.FIELD}` one of its fields; behind each may
stand a default, `${NAME:-default}`. A definition keeps its references as written; they are replaced when a run
starts. No error here holds a value of the environment.

An environment gives a connection, as a URI or as JSON, under the name `airflow:ID`, which Airflow's edge answers, or
as Airflow itself reads it from variables, under `AIRFLOW_CONN_ID`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tidepost.definition.connection import Connection
from tidepost.errors import Misconfigured

CONNECTION: Final = "airflow:"
"""What the name of a connection begins with in a reference, and in an environment."""

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_CONNECTION: Final = rf"{CONNECTION}[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.{_NAME})?"
_REFERENCE: Final = re.compile(rf"\$\{{({_NAME}|{_CONNECTION})(?::-([^{{}}]*))?\}}")

SECRET_PATTERN: Final = rf"^\$\{{(?:{_NAME}|{_CONNECTION})\}}$"


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret by the name of the variable or connection that holds it; every text of it shows only the reference.

    ValueError: anything but exactly one reference; its message never repeats what was given. A default is refused
    too, as it would be the secret itself.
    """

    reference: str

    def __post_init__(self) -> None:
        if not re.fullmatch(SECRET_PATTERN, self.reference):
            raise ValueError("is not a reference; put the secret in a variable and write ${NAME} here")

    def __str__(self) -> str:
        return self.reference


def check_references(text: str) -> None:
    """ValueError: `text` holds a `${` that begins no reference."""
    if "${" in _REFERENCE.sub("", text):
        raise ValueError("holds a ${ that begins no reference; write ${NAME} or ${NAME:-default}")


def resolve(text: str, env: Mapping[str, str] | None = None, *, where: str = "") -> str:
    """`text` with each reference replaced by what it names in `env` (default: the process's environment).

    A variable that is set but empty counts as missing, as in a shell's `${NAME:-default}`, and so does an empty
    field. Values are taken as they are: a reference inside a value is not followed.

    where: the file, line and key that `text` comes from, for the message
    Misconfigured: something without default is missing; all that is missing is named, never a value.
    """
    env = os.environ if env is None else env
    prefix = f"{where}: " if where else ""
    try:
        check_references(text)
    except ValueError as error:
        raise Misconfigured(f"{prefix}{error}") from None
    values: dict[str, str] = {}
    missing: list[str] = []
    for found in _REFERENCE.finditer(text):
        name, default = found[1], found[2]
        try:
            value = _connected(name, env) if name.startswith(CONNECTION) else env.get(name)
        except ValueError as error:
            raise Misconfigured(f"{prefix}{error}") from None
        if not value and default is None:
            missing.append(name)
        values[found[0]] = value or default or ""
    if missing:
        raise _unset(prefix, list(dict.fromkeys(missing)), env)
    return _REFERENCE.sub(lambda found: values[found[0]], text)


def _unset(prefix: str, missing: Sequence[str], env: Mapping[str, str]) -> Misconfigured:
    """What is missing, and how to set the first of each kind."""
    variables = [name for name in missing if not name.startswith(CONNECTION)]
    connections = [name for name in missing if name.startswith(CONNECTION)]
    said: list[str] = []
    hints: list[str] = []
    if variables:
        said.append(f"{', '.join(variables)} {'is' if len(variables) == 1 else 'are'} not set in the environment")
        hints.append(f"Set it:  export {variables[0]}=…")
    for name in connections:
        id_, _, field = name.removeprefix(CONNECTION).partition(".")
        there = connection_of(id_, env) is not None
        lacks = f"has no {field or 'address'}" if there else "is not there"
        said.append(f"Airflow's connection {id_} {lacks}")
        hints.append(
            f"{'Mend' if there else 'Add'} it in Airflow (Admin, Connections); on the command line:  "
            f"export {_variable(id_)}='TYPE://LOGIN:PASSWORD@HOST:PORT/SCHEMA'"
        )
    return Misconfigured(f"{prefix}{'; '.join(said)}", hint="\n  ".join(dict.fromkeys(hints)))


def connection_of(name: str, env: Mapping[str, str]) -> Connection | None:
    """The connection of an id, or None where `env` has none. ValueError: it is not written as one; the message is a
    sentence without its values."""
    variable = _variable(name)
    text = env.get(f"{CONNECTION}{name}") or env.get(variable)
    if not text:
        return None
    try:
        return Connection.parse(text)
    except ValueError as error:
        raise ValueError(f"{variable} {error}") from None


def _connected(reference: str, env: Mapping[str, str]) -> str | None:
    """What `airflow:ID` or `airflow:ID.FIELD` names; None where there is no such connection. ValueError: it has not
    that field."""
    id_ = _id_of(reference)
    found = connection_of(id_, env)
    if found is None:
        return None
    field = reference.removeprefix(f"{CONNECTION}{id_}").removeprefix(".")
    return found.value(field) if field else found.url


def _id_of(reference: str) -> str:
    return reference.removeprefix(CONNECTION).partition(".")[0]


def _variable(name: str) -> str:
    """The variable that Airflow reads a connection from."""
    return f"AIRFLOW_CONN_{name.upper()}"
