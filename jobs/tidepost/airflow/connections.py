"""Airflow's connections for the references of definitions, and what of both must not be seen in logs.

A task passes `environment()` wherever the engine takes an environment: `wire(project, job, ledger, env=…)`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.sdk import Connection as AirflowConnection
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException, AirflowRuntimeError
from airflow.sdk.log import mask_secret

from tidepost.definition.connection import Connection
from tidepost.definition.reference import CONNECTION, Secret, resolve
from tidepost.errors import Misconfigured, Retryable

if TYPE_CHECKING:
    from tidepost.definition.job import Job
    from tidepost.definition.project import Project


class Environment(Mapping[str, str]):
    """The process's environment, and each of Airflow's connections, as JSON, under `airflow:ID`.

    A connection is asked for when it is first needed, once, and its secrets are masked in Airflow's logs before
    anybody has them. Raises Retryable where Airflow cannot be asked, Misconfigured where it refuses.
    """

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}

    def __getitem__(self, name: str) -> str:
        if not name.startswith(CONNECTION):
            return os.environ[name]
        if name not in self._known:
            self._known[name] = _ask(name.removeprefix(CONNECTION))
        text = self._known[name]
        if text is None:
            raise KeyError(name)
        return text

    def __iter__(self) -> Iterator[str]:
        return iter(os.environ)

    def __len__(self) -> int:
        return len(os.environ)


def environment(project: Project | None = None, job: Job | None = None) -> Environment:
    """The environment of a task. The secrets that a project and a job refer to are masked in Airflow's logs from
    here on; what is missing is told by whoever needs it."""
    env = Environment()
    for text in _secrets(project, job, env):
        mask_secret(text)
    return env


def plain(connection: Any) -> Connection:
    """A connection of Airflow's as the engine has it. ValueError: its extra is no JSON."""
    return Connection.parse(_written(connection))


def mask(connection: Connection) -> None:
    """Mask what of a connection must not be seen."""
    for text in connection.secrets:
        mask_secret(text)


def _ask(id_: str) -> str | None:
    try:
        found = AirflowConnection.get(id_)
    except AirflowNotFoundException:
        return None
    except PermissionError:
        raise Misconfigured(
            f"Airflow does not let this task have its connection {id_}", hint="Give its team the connection."
        ) from None
    except (AirflowException, AirflowRuntimeError) as error:
        raise Retryable(f"Airflow does not give its connection {id_} ({type(error).__name__})") from None
    text = _written(found)
    with suppress(ValueError):  # whoever reads it says what is wrong
        mask(Connection.parse(text))
    return text


def _written(connection: Any) -> str:
    names = ("conn_type", "host", "login", "password", "schema", "port", "extra")
    return json.dumps({name: getattr(connection, name) for name in names})


def _secrets(project: Project | None, job: Job | None, env: Mapping[str, str]) -> Iterator[str]:
    if job is not None:
        for to in job.destinations:
            with suppress(Misconfigured):
                yield resolve(str(to.api_key), env)
    labels = None if job is None else job.ground_truth
    of_job = () if job is None else (job.source.postgres, job.source.s3, labels and labels.files and labels.files.s3)
    for reference in (*of_job, None if project is None else project.s3):
        if isinstance(reference, Secret):
            with suppress(Misconfigured):
                yield from _of_url(resolve(str(reference), env))
    for one in job.source.kafka.secrets if job is not None and job.source.kafka is not None else ():
        with suppress(Misconfigured):
            yield from _of_kafka(resolve(one, env))
    if project is not None:
        with suppress(Misconfigured):
            yield from _of_url(project.ledger_url(env))


def _of_kafka(text: str) -> tuple[str, ...]:
    """What of a text is secret: of an address its password, of `user:password` that too, of anything else all."""
    if text.startswith(("http://", "https://")):
        return _of_url(text)
    user, colon, password = text.partition(":")
    return (text, password) if colon and user and password else (text,)


def _of_url(url: str) -> tuple[str, ...]:
    """What of a URL is secret: its password, and all of it where it has one. All of what is no URL."""
    try:
        found = Connection.parse(url)
    except ValueError:
        return (url,)
    return (*found.secrets, url) if found.secrets else ()
