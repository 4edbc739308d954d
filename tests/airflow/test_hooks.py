"""The hook, at a real platform."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tests.s3 import free_port
from tests.world import KEY, Platform, World

from tidepost.definition.connection import ARTHUR
from tidepost.errors import Misconfigured
from tidepost.model import StreamName
from tidepost.sandbox.process import SandboxProcess

WRONG = "a-key-that-nobody-has"

pytestmark = pytest.mark.usefixtures("airflow_home")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a connection `arthur` of a host, a key and more, and gives its hook for a model."""

    def made(host: str, key: str = KEY, model: str | None = None, **more: Any) -> Any:
        from tidepost.airflow.hooks import ArthurHook  # noqa: PLC0415

        written = {"conn_type": ARTHUR, "host": host, "password": key} | more
        monkeypatch.setenv("AIRFLOW_CONN_ARTHUR", json.dumps(written))
        return ArthurHook("arthur", model)

    return made


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """A platform that takes one key only."""
    with SandboxProcess(tmp_path_factory.mktemp("locked"), api_key=KEY) as process:
        yield process


def organization(platform: Platform) -> str:
    return str(platform.call("GET", "/users/me", None).json()["organization_id"])


def test_the_right_key_is_taken(connect: Any, platform: Platform) -> None:
    good, said = connect(platform.url).test_connection()
    assert good
    assert organization(platform) in said
    assert KEY not in said
    host, port = platform.url.removeprefix("http://").split(":")
    assert connect(host, schema="http", port=int(port)).test_connection()[0]
    extra = {"organization": organization(platform)}
    assert connect(platform.url, extra=extra).test_connection()[0]


@pytest.mark.parametrize("extra", [{}, {"organization": "11111111-1111-1111-1111-111111111111"}])
def test_a_wrong_key_is_told_and_not_repeated(
    connect: Any, locked: SandboxProcess, extra: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good, said = connect(locked.url, WRONG, extra=extra).test_connection()
    assert not good
    assert "401" in said
    assert WRONG not in said + caplog.text


def test_a_platform_that_does_not_answer_is_told(connect: Any) -> None:
    good, said = connect(f"http://127.0.0.1:{free_port()}", WRONG).test_connection()
    assert not good
    assert "refused" in said.lower()
    assert WRONG not in said


@pytest.mark.parametrize(
    ("connection", "told"),
    [
        ({"host": ""}, "has no address"),
        ({"key": ""}, "has no API key"),
        ({"conn_type": "http"}, "is of the type http, not tidepost_arthur"),
        ({"extra": "[1"}, "is no connection"),
        ({"host": "https://u:p@h"}, "must hold no user, password"),
    ],
)
def test_a_connection_that_is_not_whole_is_told(connect: Any, connection: dict[str, Any], told: str) -> None:
    good, said = connect(**({"host": "h", "key": WRONG} | connection)).test_connection()
    assert not good
    assert told in said
    assert WRONG not in said


def test_airflow_tests_the_connection_by_the_hook_of_its_type(platform: Platform) -> None:
    from airflow.sdk import Connection  # noqa: PLC0415

    good, said = Connection(conn_id="new", conn_type=ARTHUR, host=platform.url, password=KEY).test_connection()
    assert (good, KEY in said) == (True, False)


def test_the_hook_gives_a_client_of_a_model(connect: Any, world: World) -> None:
    with pytest.raises(Misconfigured, match="needs a model"):
        connect(world.platform.url).get_conn()
    destination = connect(world.platform.url, model=world.model).get_conn()
    try:
        destination.check(
            StreamName.INFERENCES,
            {
                "partner_inference_id": "VARCHAR",
                "inference_timestamp": "TIMESTAMP WITH TIME ZONE",
                "distance": "BIGINT",
                "carrier": "VARCHAR",
                "score": "DOUBLE",
                "note": "VARCHAR",
            },
        )
    finally:
        destination.close()
