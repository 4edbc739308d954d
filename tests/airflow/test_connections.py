"""Airflow's connections in a task: found wherever Airflow keeps them, and seen nowhere."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from tests.airflow.running import Ran
from tests.world import World, rows, said

from tidepost import run as engine
from tidepost.definition.connection import ARTHUR, Connection
from tidepost.definition.reference import resolve
from tidepost.errors import Misconfigured, Retryable
from tidepost.model import Request, ScanKind
from tidepost.wire import ledger_of, wire

pytestmark = pytest.mark.usefixtures("airflow_home")

PASSWORD = "hunter2/@:x"
URIS = [
    "postgres://tide:p%40ss%2Fw@db.example.com:5433/scores?sslmode=require",
    "tidepost-arthur://https://:key@arthur.example.com:8443",
    "tidepost-arthur://:key@https%3A%2F%2Farthur.example.com/?organization=o",
    "aws://key:s%2Fecret@/?region_name=eu-north-1&endpoint_url=http%3A%2F%2Fs3%3A9000",
    "aws://key:secret@/?__extra__=%7B%22service_config%22%3A+%7B%22s3%22%3A+%7B%22a%22%3A+1%7D%7D%7D",
    "http://host",
    "postgresql://@:5432",
    "sqlite:///data%2Fx.db",
]


@pytest.fixture
def add() -> Iterator[Callable[..., None]]:
    """Adds connections to Airflow's own database, for the test."""
    from airflow.models import Connection as Model  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415

    added: list[str] = []

    def one(conn_id: str, **fields: Any) -> None:
        with create_session() as session:
            session.add(Model(conn_id=conn_id, **fields))
        added.append(conn_id)

    yield one
    with create_session() as session:
        session.query(Model).filter(Model.conn_id.in_(added)).delete()


def masked(text: str) -> str:
    """A line as Airflow writes it into a task's log."""
    from airflow.sdk.log import mask_logs  # noqa: PLC0415

    return str(mask_logs(None, "info", {"event": text})["event"])


@pytest.mark.parametrize("uri", URIS)
def test_a_connection_is_read_as_airflow_reads_it(uri: str) -> None:
    from airflow.sdk import Connection as Theirs  # noqa: PLC0415

    from tidepost.airflow.connections import plain  # noqa: PLC0415

    theirs = Theirs.from_uri(uri, conn_id="x")
    assert Connection.parse(uri) == plain(theirs)
    assert Connection.parse(theirs.get_uri()) == plain(theirs)
    assert Connection.parse(theirs.as_json()) == plain(theirs)


def test_a_job_uploads_with_connections_that_airflow_keeps(
    world: World,
    add: Callable[..., None],
    run_dag: Callable[..., Ran],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk import DAG, task  # noqa: PLC0415

    # What was set up before, by Airflow or a test, must not keep the log away from here.
    caplog.set_level(logging.INFO, logger="tidepost")
    for name in ("tidepost", "tidepost.destinations"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)

    add("platform", conn_type=ARTHUR, host=world.platform.url, password=PASSWORD)
    world.log("monday", rows(50))
    world.define(destination={"url": "${airflow:platform}", "api_key": "${airflow:platform.password}"})

    @task
    def upload() -> int:
        from tidepost.airflow.connections import environment  # noqa: PLC0415

        project = world.project
        job = project.job("flights")
        env = environment(project, job)
        with ledger_of(project) as ledger:
            wired = wire(project, job, ledger, env=env, clock=world.now.timestamp)
            request = Request("run", ScanKind.INCREMENTAL)
            outcome = engine.run(wired, request, notice=lambda _: None, stop=threading.Event())
        assert not said(outcome)
        return outcome.arrived

    with DAG("uploads_with_connections", schedule=None) as dag:
        upload()
    ran = run_dag(dag)
    assert ran.states == {"upload": "success"}
    assert ran.xcom("upload") == 50
    assert world.everything_arrived_once(50)
    assert "arthur took" in caplog.text  # what is logged comes here before Airflow masks it
    assert "hunter2" not in caplog.text
    assert masked(f"the key is {PASSWORD}, quoted {quote(PASSWORD, safe='')}") == "the key is ***, quoted ***"
    kept = [path for path in world.root.rglob("*") if path.is_file()]
    assert not [path for path in kept if b"hunter2" in path.read_bytes()]


def test_secrets_from_variables_are_masked_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidepost.airflow.connections import environment  # noqa: PLC0415

    secrets = {"KEY_OF_ARTHUR": "a-key-from-a-variable", "LEDGER_PASSWORD": "a-password-in-a-url"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    world.define(destination={"api_key": "${KEY_OF_ARTHUR}"})
    (world.root / "tidepost.yaml").write_text(
        "version: 1\nledger: postgresql://tide:${LEDGER_PASSWORD}@nowhere/ledger\n"
    )

    project = world.project
    environment(project, project.job("flights"))
    assert masked(" and ".join(secrets.values())) == "*** and ***"
    assert masked("postgresql://nowhere/ledger") == "postgresql://nowhere/ledger"

    of_kafka = {
        "SASL": "a-password-of-kafka",
        "USER": "reader:one-of-the-registry",
        "REGISTRY": "https://me:in-it@host",
    }
    for name, value in of_kafka.items():
        monkeypatch.setenv(name, value)
    registry = {"url": "${REGISTRY}", "options": {"basic.auth.user.info": "${USER}"}}
    topic = {"bootstrap": "b", "topic": "t", "columns": {"id": "id"}, "format": "avro", "registry": registry}
    source = {"kafka": {**topic, "options": {"sasl.username": "me", "sasl.password": "${SASL}"}}}
    world.define(source=source, cursor={"column": "offset", "start": 0, "settle": None})
    environment(project, project.job("flights"))
    assert (
        masked("a-password-of-kafka, one-of-the-registry, in-it; https://host, me")
        == "***, ***, ***; https://host, me"
    )


def test_a_connection_that_airflow_lacks_fails_the_task_with_both_ways_to_mend_it(
    run_dag: Callable[..., Ran],
) -> None:
    from airflow.sdk import DAG, task  # noqa: PLC0415

    @task
    def look() -> str:
        from tidepost.airflow.connections import environment  # noqa: PLC0415

        with pytest.raises(Misconfigured) as caught:
            resolve("${airflow:nowhere}", environment(), where="jobs/flights.yaml:7:3: source.postgres")
        return str(caught.value)

    with DAG("lacks_a_connection", schedule=None) as dag:
        look()
    said = run_dag(dag).xcom("look")
    assert said.startswith("jobs/flights.yaml:7:3: source.postgres: Airflow's connection nowhere is not there")
    assert "Admin, Connections" in said
    assert "AIRFLOW_CONN_NOWHERE" in said


def test_variables_reach_a_task_as_airflow_defines_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidepost.airflow.connections import environment  # noqa: PLC0415

    written = {
        "conn_type": "postgres",
        "host": "h",
        "login": "u",
        "password": PASSWORD,
        "extra": {"sslmode": "require"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SCORES", json.dumps(written))
    monkeypatch.setenv("PLAIN", "as it is")
    env = environment()
    url = f"postgresql://u:{quote(PASSWORD, safe='')}@h/?sslmode=require"
    assert resolve("${airflow:scores} ${PLAIN} ${airflow:scores.sslmode}", env) == f"{url} as it is require"
    assert PASSWORD not in repr(env)
    assert "airflow:scores" not in dict(env)


def test_what_airflow_refuses_fails_at_once_and_what_it_cannot_answer_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk import Connection as Theirs  # noqa: PLC0415
    from airflow.sdk.exceptions import AirflowRuntimeError, AirflowSecretsBackendAccessDenied  # noqa: PLC0415
    from airflow.sdk.execution_time.comms import ErrorResponse  # noqa: PLC0415

    from tidepost.airflow.connections import environment  # noqa: PLC0415

    def get(raised: Exception) -> None:
        def refuse(_: str) -> None:
            raise raised

        monkeypatch.setattr(Theirs, "get", refuse)

    get(AirflowSecretsBackendAccessDenied("hush"))
    with pytest.raises(Misconfigured, match="does not let this task have its connection scores") as caught:
        resolve("${airflow:scores}", environment())
    assert "hush" not in str(caught.value)
    get(AirflowRuntimeError(ErrorResponse(detail={"message": "hush"})))
    with pytest.raises(Retryable, match="does not give its connection scores") as again:
        resolve("${airflow:scores}", environment())
    assert "hush" not in str(again.value)
