"""Who may call, and what a model must be: Arthur API v3, as its Python SDK 3.33.3 speaks it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tidepost.sandbox import SandboxProcess

if TYPE_CHECKING:
    from tests.sandbox.conftest import Client

type_of = {"value_type": "FLOAT", "stage": "PIPELINE_INPUT"}
PREDICTION = {"name": "p", "value_type": "FLOAT", "stage": "PREDICTED_VALUE"}


def test_the_sandbox_says_what_it_is(sandbox: SandboxProcess) -> None:
    identity = requests.get(f"{sandbox.url}/sandbox", timeout=10).json()
    assert identity["name"] == "tidepost sandbox"
    assert identity["data"] == str(sandbox.data.resolve())
    assert identity["version"]


def test_who_am_i_names_an_organisation(api: Client) -> None:
    me = api.call("GET", "/users/me")
    info = api.call("GET", "/users/me/auth_info")
    assert me.status_code == info.status_code == 200
    assert info.json()["organization_ids"] == [me.json()["organization_id"]]
    assert {"issuer", "username", "first_name", "last_name", "email", "roles"} <= set(info.json())


def test_a_call_without_a_key_is_unauthorized(sandbox: SandboxProcess) -> None:
    assert requests.get(f"{sandbox.url}/api/v3/users/me", timeout=10).status_code == 401


def test_a_login_answers_a_token_that_stands_for_the_key(
    start: Callable[..., SandboxProcess], client: Callable[[SandboxProcess], Client]
) -> None:
    own = client(start(api_key="the-one-key"))
    wrong = own.call("POST", "/login", json={"login": "ada", "password": "another"})
    assert wrong.status_code == 401
    right = own.call("POST", "/login", json={"login": "ada", "password": "the-one-key"})
    token = right.cookies["Authorization"]
    payload = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert payload["exp"] > time.time() + 3000

    def status(key: str) -> int:
        return own.call("GET", "/users/me", headers={"Authorization": key}).status_code

    assert [status(key) for key in ("the-one-key", token, "another", f"{token}x", "Bearer the-one-key")] == [
        200,
        200,
        401,
        401,
        401,
    ]


def test_a_model_is_pending_until_it_is_ready(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.configure(provisioning_delay=2)
    response = api.call("POST", "/models?async_model_provisioning=True", json=api.definition("slow"))
    assert response.status_code == 201
    assert response.json()["status"] == "Pending"
    assert [a["name"] for a in response.json()["attributes"]][-1] == "delayed"
    slow = api.registered("slower")
    assert slow.on("GET", "").json()["status"] == "Creating"
    early = slow.on("POST", "/inferences", json=[slow.row("a")])
    assert (early.status_code, early.json()["message"]) == (409, "the model is not Ready yet")
    until = time.monotonic() + 30
    while slow.on("GET", "").json()["status"] != "Ready":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert slow.send("a")["counts"]["success"] == 1


def test_a_model_is_got_by_either_id_and_shows_attributes_when_asked(api: Client) -> None:
    other = api.registered("by either/id")
    by_id = other.on("GET", "?id_type=id&expand=attributes").json()
    by_name = api.call("GET", "/models/by%20either%2Fid?id_type=partner_model_id&expand=attributes").json()
    assert by_id == by_name
    assert {a["name"]: a["stage"] for a in by_id["attributes"]}["probability"] == "PREDICTED_VALUE"
    assert "attributes" not in other.on("GET", "").json()
    assert api.call("GET", "/models/unknown").status_code == 404


def test_an_archived_model_is_gone_and_its_name_free(api: Client) -> None:
    other = api.registered("to be archived")
    assert api.call("POST", "/models", json=api.definition("to be archived")).status_code == 409
    assert other.on("DELETE", "").status_code == 204
    assert other.on("GET", "").status_code == 404
    assert api.registered("to be archived").count() == 0


def test_enrichments_are_listed_and_off(api: Client) -> None:
    enrichments = api.on("GET", "/enrichments").json()
    assert enrichments["explainability"] == {"enabled": False, "status": "Disabled"}


def test_captured_sagemaker_data_is_refused_clearly(api: Client) -> None:
    response = api.on("POST", "/inferences/integrations/sagemaker_data_capture", data=b"{}")
    assert response.status_code == 501
    assert "SageMaker" in response.json()["message"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"partner_model_id": ""}, "partner_model_id"),
        ({"input_type": "IMAGE"}, "TABULAR models only"),
        ({"output_type": "GUESS"}, "output_type 'GUESS'"),
        ({"attributes": []}, "attributes must be a list"),
        ({"attributes": [{"name": "x", **type_of}]}, "PREDICTED_VALUE"),
        ({"attributes": [PREDICTION, {"name": "1x", **type_of}]}, "'1x' must begin with"),
        ({"attributes": [PREDICTION, {"name": "x" * 256, **type_of}]}, "255"),
        ({"attributes": [PREDICTION, {"name": "batch_id", **type_of}]}, "'batch_id' is reserved"),
        ({"attributes": [PREDICTION, {"name": "P", **type_of}]}, "'p' and 'P' have one name"),
        ({"attributes": [PREDICTION, {"name": "x", "value_type": "DECIMAL", "stage": "GROUND_TRUTH"}]}, "'DECIMAL'"),
        ({"attributes": [PREDICTION, {"name": "x", "value_type": "FLOAT", "stage": "INPUT"}]}, "stage 'INPUT'"),
        ({"attributes": [PREDICTION, {"name": "x", **type_of, "position": -1}]}, "position"),
        ({"attributes": [PREDICTION | {"attribute_link": "y"}]}, "attribute_link 'y'"),
    ],
)
def test_a_model_that_cannot_be_is_refused_with_the_name_of_what_is_wrong(
    api: Client, changes: dict[str, Any], message: str
) -> None:
    response = api.call("POST", "/models", json=api.definition("wrong", **changes))
    assert response.status_code == 400
    assert message in response.json()["message"]
