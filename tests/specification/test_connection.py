"""Airflow's connections in references, read without Airflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.s3 import SECRET, NewPlace, S3Server

from tidepost.definition.connection import Connection
from tidepost.definition.project import load_project
from tidepost.definition.reference import Secret, resolve
from tidepost.errors import Misconfigured
from tidepost.s3.account import Account
from tidepost.wire import staging_of

POSTGRES = "postgres://tide:p%40ss%2Fw@db.example.com:5433/scores?sslmode=require"
AS_JSON = {
    "conn_type": "postgres",
    "login": "tide",
    "password": "p@ss/w",
    "host": "db.example.com",
    "port": 5433,
    "schema": "scores",
    "extra": {"sslmode": "require"},
}
ENV = {
    "AIRFLOW_CONN_SCORES": POSTGRES,
    "AIRFLOW_CONN_ARTHUR": json.dumps(
        {
            "conn_type": "tidepost_arthur",
            "host": "arthur.example.com",
            "password": "hush",
            "extra": {"organization": "o"},
        }
    ),
}


@pytest.mark.parametrize(
    "text", [POSTGRES, json.dumps(AS_JSON), json.dumps(AS_JSON | {"extra": '{"sslmode":"require"}'})]
)
def test_a_connection_is_the_same_as_a_uri_and_as_json(text: str) -> None:
    found = Connection.parse(text)
    assert found == Connection("postgres", "db.example.com", 5433, "tide", "p@ss/w", "scores", {"sslmode": "require"})
    assert found.url == "postgresql://tide:p%40ss%2Fw@db.example.com:5433/scores?sslmode=require"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("tidepost-arthur://:k@https%3A%2F%2Farthur.example.com", "https://arthur.example.com"),
        ("tidepost-arthur://http://:k@127.0.0.1:5001", "http://127.0.0.1:5001"),
        ("https://arthur.example.com", "https://arthur.example.com"),
        ("http://arthur.example.com:81/https", "https://arthur.example.com:81"),
        ("postgresql:///scores?host=%2Frun%2Fpostgresql", "postgresql:///scores?host=%2Frun%2Fpostgresql"),
        ("postgres://u@%2Frun%2Fpostgresql:5433/scores", "postgresql://u@:5433/scores?host=%2Frun%2Fpostgresql"),
        ('{"conn_type": "postgres", "host": "h", "extra": {"iam": true}}', "postgresql://h"),
        ("aws://key:s%2Fecret@/?region_name=eu-north-1", "aws://key:s%2Fecret@/?region_name=eu-north-1"),
    ],
)
def test_each_kind_of_connection_has_the_url_that_its_client_takes(text: str, url: str) -> None:
    assert Connection.parse(text).url == url


def test_a_connection_that_keeps_more_than_texts_survives_its_url() -> None:
    found = Connection("aws", login="key", extra={"service_config": {"s3": {"endpoint_url": "http://s3"}}})
    assert Connection.parse(found.url) == found


@pytest.mark.parametrize(
    "text", ["hush", "{hush", '{"login": "hush"}', '["hush"]', "pg://a:hush://b://c", "pg://h:hush/"]
)
def test_what_is_no_connection_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(Misconfigured, match="AIRFLOW_CONN_SCORES is no connection") as caught:
        resolve("${airflow:scores}", {"AIRFLOW_CONN_SCORES": text}, where="here")
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_references_name_a_connection_or_one_of_its_fields() -> None:
    assert resolve("${airflow:scores}", ENV) == Connection.parse(POSTGRES).url
    assert resolve("${airflow:scores.login}/${airflow:scores.sslmode}", ENV) == "tide/require"
    assert resolve("${airflow:arthur}", ENV) == "https://arthur.example.com"
    assert resolve("${airflow:arthur.password}", ENV) == "hush"
    assert resolve("${airflow:arthur.organization}", ENV) == "o"
    assert resolve("${airflow:arthur.login:-nobody}${airflow:none:-}", ENV) == "nobody"
    assert resolve("${airflow:-x}", {}) == "x"  # a variable of that name
    assert str(Secret("${airflow:arthur.password}")) == "${airflow:arthur.password}"


def test_an_environment_that_knows_airflow_is_asked_first() -> None:
    env = {**ENV, "airflow:scores": "postgres://other"}
    assert resolve("${airflow:scores}", env) == "postgresql://other"


def test_what_is_missing_is_named_with_both_ways_to_mend_it() -> None:
    with pytest.raises(Misconfigured) as caught:
        resolve(
            "${URL}/${airflow:nowhere}/${airflow:scores.token}", ENV, where="jobs/flights.yaml:7:3: source.postgres"
        )
    assert caught.value.message == (
        "jobs/flights.yaml:7:3: source.postgres: URL is not set in the environment; Airflow's connection nowhere is "
        "not there; Airflow's connection scores has no token"
    )
    assert "Add it in Airflow (Admin, Connections)" in caught.value.hint
    assert "export AIRFLOW_CONN_NOWHERE='TYPE://" in caught.value.hint
    assert "p@ss" not in str(caught.value)


@pytest.mark.parametrize("text", ["${airflow:}", "${airflow:a.b.c}", "${airflow:a b}", "${vault:a}"])
def test_what_begins_like_a_reference_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="begins no reference"):
        resolve(text, ENV)


def test_a_connection_shows_no_secret() -> None:
    found = Connection.parse("postgres://tide:p%40ss@h/d?sslpassword=hush&sslmode=require")
    assert "p@ss" not in repr(found)
    assert "hush" not in repr(found)
    assert {"p@ss", "p%40ss", "hush", found.url} <= set(found.secrets)
    assert "require" not in found.secrets


def test_a_staging_in_s3_is_reached_with_a_connection_alone(
    tmp_path: Path, s3: S3Server, new_place: NewPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = new_place()
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "tidepost.yaml").write_text(f"version: 1\nstaging: {place}\ns3: ${{airflow:store}}\n")
    extra = {"endpoint_url": s3.url, "region_name": "us-east-1"}
    env = {
        "AIRFLOW_CONN_STORE": json.dumps(
            {"conn_type": "aws", "login": "somebody", "password": SECRET, "extra": extra}
        )
    }
    staging = staging_of(load_project(tmp_path), env)
    staging.put("flights/inferences/_tidepost/x", b"there")
    assert staging.get("flights/inferences/_tidepost/x") == b"there"
    assert list(staging.list("flights/inferences/_tidepost")) == ["flights/inferences/_tidepost/x"]


def test_an_account_says_what_is_wrong_with_its_connection() -> None:
    with pytest.raises(Misconfigured, match=r"tidepost\.yaml: s3: refers to a connection of the type postgres"):
        Account.of(POSTGRES, "tidepost.yaml: s3")
    with pytest.raises(Misconfigured, match="role_arn"):
        Account.of("aws://?role_arn=arn%3Aaws%3Aiam%3A%3A1%3Arole", "tidepost.yaml: s3")
    with pytest.raises(Misconfigured, match="is no connection") as caught:
        Account.of("hush", "tidepost.yaml: s3")
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(Account.of("aws://key:hush@/?aws_session_token=hush", ""))
