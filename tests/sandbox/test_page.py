"""The page for people, and the numbers behind it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import requests

from tidepost.sandbox import Fault, SandboxProcess

if TYPE_CHECKING:
    from tests.sandbox.conftest import Client


def page_of(sandbox: SandboxProcess) -> str:
    """The page as it is sent."""
    return requests.get(f"{sandbox.url}/", timeout=10).text


def test_the_page_says_what_it_is_and_shows_what_arrived(
    start: Callable[..., SandboxProcess], client: Callable[[SandboxProcess], Client]
) -> None:
    sandbox = start()
    assert "No model is registered yet" in page_of(sandbox)
    api = client(sandbox).registered("flights")
    api.on("POST", "/inferences", json=[api.row(f"{at}", minutes=at * 720) for at in range(1, 1201)])
    api.send("1")
    api.on("PATCH", "/inferences", json=[api.label("1")])
    sandbox.fault(Fault("throttle", kind="file", count=2))
    page = page_of(sandbox)
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page)
    assert "it is neither" in text
    assert re.search(
        r"rows\s+1,200\s+labelled\s+1\s+unlabelled\s+1,199\s+repeats offered\s+1\s+ids stored twice\s+0", text
    )
    assert "throttle on file requests, share 1, 2 more" in text
    assert f"/api/v3/models/{api.model_id}/inferences" in text
    assert page.count("<rect class=bare") == 92
    assert page.count(" 0 labelled") == 92
    assert "2024-12-31" in page or "2025" in page


def test_the_page_needs_nothing_from_elsewhere(sandbox: SandboxProcess, api: Client) -> None:
    api.send("a")
    page = page_of(sandbox)
    assert not re.search(r"<script|<link|<img|url\(|@import|(src|href)=", page)
    assert "prefers-color-scheme: dark" in page


def test_the_page_escapes_what_came_from_outside(sandbox: SandboxProcess, api: Client) -> None:
    api.registered("<script>alert('model')</script>")
    api.call("GET", "/models/%3Cscript%3E<b>")
    page = page_of(sandbox)
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(&#x27;model&#x27;)&lt;/script&gt;" in page


def test_the_record_of_requests_holds_no_secret(sandbox: SandboxProcess, api: Client) -> None:
    api.upload(api.columns(["a", "b"]))
    api.call("POST", "/login?token=in-the-query", json={"login": "ada", "password": "in-the-body"})
    sandbox.wait_until_loaded()
    response = requests.get(f"{sandbox.url}/sandbox/stats", timeout=10)
    login, upload = response.json()["requests"][:2]
    assert (login["path"], login["status"]) == ("/api/v3/login", 200)
    assert (upload["method"], upload["status"], upload["rows"]) == ("POST", 207, 2)
    assert upload["bytes"] > 1000
    assert upload["ms"] > 0
    for secret in ("in-the-query", "in-the-body", "an-access-key"):
        assert secret not in response.text
        assert secret not in page_of(sandbox)


def test_doubled_ids_can_be_found_out(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.configure(on_repeat="keep")
    api.send("a", "b", "b", "c", "c", "c")
    url = f"{sandbox.url}/sandbox/models/{api.model_id}/ids"
    most = {"partner_inference_id": "c", "copies": 3}
    assert requests.get(f"{url}?limit=1", timeout=10).json() == {
        "rows": 6,
        "distinct": 3,
        "doubled": 2,
        "ids": [most],
    }
    assert requests.get(f"{url}?limit=-1", timeout=10).status_code == 400
