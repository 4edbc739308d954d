"""What Airflow itself makes of the package's provider."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tidepost.airflow.provider import get_provider_info
from tidepost.definition.connection import ARTHUR


@pytest.fixture(scope="module")
def manager(airflow_home: Path) -> Any:
    from airflow.providers_manager import ProvidersManager  # noqa: PLC0415

    return ProvidersManager()


def schema(name: str) -> dict[str, Any]:
    """One of the schemas that Airflow ships."""
    import airflow  # noqa: PLC0415

    found: dict[str, Any] = json.loads((Path(airflow.__path__[0]) / name).read_text())
    return found


def test_the_package_is_installed_as_a_provider() -> None:
    (found,) = [one for one in entry_points(group="apache_airflow_provider") if one.module.startswith("tidepost")]
    assert found.load() is get_provider_info


def test_the_provider_is_what_airflows_schemas_ask_for(airflow_home: Path) -> None:
    info = get_provider_info()
    jsonschema.validate(info, schema("provider_info.schema.json"))
    whole = schema("provider.yaml.schema.json")["properties"]
    for key in ("connection-types", "hooks"):
        jsonschema.validate(info[key], whole[key])


def test_airflow_finds_the_connection_type_its_hook_and_its_form(manager: Any) -> None:
    assert manager.providers["tidepost"].data["name"] == "tidepost"
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime  # noqa: PLC0415

    hook = ProvidersManagerTaskRuntime().hooks[ARTHUR]
    assert (hook.hook_name, hook.connection_id_attribute_name) == ("Arthur (tidepost)", "arthur_conn_id")
    assert hook.connection_testable
    form = manager.field_behaviours[ARTHUR]
    assert form["relabeling"] == {"host": "Address", "password": "API key"}
    assert set(form["hidden_fields"]) == {"login", "schema", "extra"}
    assert form["placeholders"]["host"].startswith("https://")
    fields = {name for name in manager.connection_form_widgets if name.startswith(f"extra__{ARTHUR}__")}
    assert fields == {f"extra__{ARTHUR}__organization", f"extra__{ARTHUR}__ca_file"}


def test_every_field_that_the_form_names_is_one_of_it(manager: Any) -> None:
    (kind,) = get_provider_info()["connection-types"]
    behaviour = kind["ui-field-behaviour"]
    named = {*behaviour["hidden-fields"], *behaviour["relabeling"], *behaviour["placeholders"]}
    assert named <= {"host", "port", "login", "password", "schema", "extra", *kind["conn-fields"]}


def test_the_form_reaches_the_page_that_shows_it(airflow_home: Path) -> None:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService  # noqa: PLC0415

    (form,) = [one for one in HookMetaService.hook_meta_data() if one.connection_type == ARTHUR]
    standard, extra = form.standard_fields, form.extra_fields
    assert form.hook_name == "Arthur (tidepost)"
    assert standard is not None
    assert standard.host is not None
    assert (standard.host.title, standard.host.placeholder) == ("Address", "https://arthur.example.com")
    assert standard.password is not None
    assert standard.password.title == "API key"
    assert standard.login is not None
    assert standard.login.hidden
    assert extra is not None
    assert set(extra) == {"organization", "ca_file"}
