"""The Uploads page on Airflow's own users: who may see it, and what it says."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from tests.world import World, after, rows

from tidepost import status
from tidepost.airflow.page import reading
from tidepost.airflow.page.reading import Broken, Fault, Found, Reading, Recent, read
from tidepost.airflow.page.shown import Care, shown
from tidepost.model import DeliveryState
from tidepost.recovery import acts
from tidepost.status import Waiting

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
EVIL = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


class Site:
    """Airflow's users with the page mounted beside them, as Airflow mounts it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.tokens: dict[str, str] = {}

    def get(self, path: str, *, user: str | None = "vera", method: str = "GET") -> Any:
        """What a user gets; None is a stranger."""
        headers = {} if user is None else {"Authorization": f"Bearer {self.token(user)}"}
        return self.client.request(method, f"/tidepost/{path}", headers=headers)

    def token(self, user: str) -> str:
        if user not in self.tokens:
            answer = self.client.post("/auth/token", json={"username": user, "password": f"{user}s"})
            assert answer.status_code == 201, answer.text
            self.tokens[user] = answer.json()["access_token"]
        return self.tokens[user]

    def page(self) -> str:
        answer = self.get("")
        assert answer.status_code == 200, answer.text
        return str(answer.text)

    def rows(self) -> dict[str, list[str]]:
        """The page's rows, by the text of their headers: the texts of their cells."""
        found = {}
        for row in re.findall(r"<tr data-row=.*?</tr>", self.page(), re.DOTALL):
            head, *cells = (text_of(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL))
            found[head] = cells
        return found

    def status(self) -> dict[str, Any]:
        answer = self.get("api/status")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


@pytest.fixture
def site(airflow_home: Path, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The page of the world's project, for an admin, the viewer vera, and nora, who has no role."""
    users = {"ada": "admin", "vera": "viewer", "nora": ""}
    passwords = tmp_path / "passwords.json"
    passwords.write_text(json.dumps({user: f"{user}s" for user in users}))
    named = ",".join(f"{user}:{role}" for user, role in users.items())
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", named)
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(passwords))
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a secret of the tests " * 4)
    monkeypatch.setenv("AIRFLOW__API__HOST", "127.0.0.1")
    monkeypatch.setenv("TIDEPOST_PROJECT", str(world.root))
    from airflow.api_fastapi.app import init_auth_manager, purge_cached_app  # noqa: PLC0415
    from airflow.models.dag import DagModel  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415
    from fastapi import FastAPI  # noqa: PLC0415 - Airflow's settings come first
    from fastapi.testclient import TestClient  # noqa: PLC0415

    from tidepost.airflow.page.app import uploads_app  # noqa: PLC0415

    with create_session() as session:  # what other tests left in the database that all share
        session.query(DagModel).update({DagModel.is_stale: True})
    airflow = FastAPI()
    init_auth_manager(airflow)
    airflow.mount("/tidepost", uploads_app(fresh=0))
    with TestClient(airflow) as client:
        yield Site(client)
    purge_cached_app()


def test_a_stranger_gets_nothing(site: Site) -> None:
    for path in ("", "api/status", "page.css", "page.js"):
        assert site.get(path, user=None).status_code == 401, path
    for path in ("docs", "redoc", "openapi.json"):
        assert site.get(path, user=None).status_code == 404, path
    forged = site.client.get("/tidepost/", headers={"Authorization": "Bearer a.b.c"})
    assert forged.status_code == 403


def test_viewers_may_see_the_page_and_users_without_a_role_may_not(site: Site) -> None:
    for path in ("", "api/status", "page.css", "page.js"):
        assert site.get(path, user="ada").status_code == 200, path
        assert site.get(path, user="vera").status_code == 200, path
        assert site.get(path, user="nora").status_code == 403, path


def test_the_page_only_reads(site: Site, world: World) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert site.get("", method=method).status_code == 405
        assert site.get("api/status", method=method).status_code == 405
    before = sorted(world.root.rglob("*"))
    assert site.rows()["flights"][0] == "never ran"
    assert sorted(world.root.rglob("*")) == before


def test_a_ledger_that_has_to_be_migrated_is_left_as_it_is(site: Site, world: World) -> None:
    file = world.project.ledger_file()
    assert file is not None
    file.parent.mkdir()
    file.touch()
    assert "may not be migrated" in site.rows()["flights"][1]
    with closing(sqlite3.connect(file)) as ledger:
        assert ledger.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_the_table_says_what_the_ledger_says(site: Site, world: World) -> None:
    world.log("good", rows(300))
    world.run()
    state, mark, arrived, is_open, held, rejects, late, ran, closed = site.rows()["flights inferences → arthur"]
    assert (state, arrived, is_open, held, rejects, late) == ("all arrived", "300", "0", "0", "0", "0")
    assert mark.startswith(world.mark()[:16])
    assert mark.endswith(" behind")
    assert ran.endswith(" ago")
    assert closed.endswith(" ago")
    (job,) = site.status()["jobs"]
    assert (job["job"], job["error"], job["dag"], job["ran"]) == ("flights", None, None, True)
    assert job["streams"][0]["rows"] == 300
    assert job["streams"][0]["destinations"][0]["mark"] == world.mark()


def test_what_is_held_comes_first_with_its_reason_and_what_to_type(site: Site, world: World) -> None:
    bad = rows(100)
    for row in bad[:50]:
        row["score"] = float("nan")
    world.log("bad", bad)
    world.run()
    assert site.rows()["flights inferences → arthur"][0] == "1 held"
    text = text_of(site.page())
    assert "50 of 100 rows rejected, over the limit of 1%: 50 not_finite:score" in text
    assert "tidepost release flights 1 --why" in text
    assert "tidepost rejects flights" in text


def test_a_mark_is_shown_with_how_far_it_is_behind(
    airflow_home: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEPOST_PROJECT", str(world.root))
    world.log("good", rows(60))
    world.run()
    page = shown(read(clock=lambda: after(hours=4, minutes=4, seconds=1).timestamp()), {})
    assert page.lines[0].mark == "2024-05-01T12:59Z"
    assert page.lines[0].lag == "3 h 5 min behind"
    assert {tile.name: tile.value for tile in page.tiles}["furthest behind"] == "3 h 5 min"


def test_a_paused_and_a_removed_destination_are_shown_as_such_and_are_behind_nobody(site: Site, world: World) -> None:
    own = world.job["destination"]
    nowhere = {**own, "url": "http://127.0.0.1:9", "retries": 0}
    named = {name: {**nowhere, "name": name} for name in ("paused", "removed")}
    world.define(destination=None, destinations=[own, *named.values()])
    world.log("good", rows(300))
    world.run()
    with world.ledger() as ledger:
        acts.pause(ledger, world.staging, world.stream(), "paused", acts.Word("ada", 1.0, "its key is renewed"))
    world.define(destinations=[own, named["paused"]])
    assert not world.run().errors
    found = {key.rpartition(" ")[2]: cells for key, cells in site.rows().items()}
    assert list(found) == ["paused", "arthur", "removed"]
    assert {name: (cells[0], *cells[2:5]) for name, cells in found.items()} == {
        "arthur": ("all arrived", "300", "0", "0"),
        "paused": ("paused", "0", "1", "0"),
        "removed": ("removed", "0", "1", "0"),
    }
    assert ["behind" in found[name][1] for name in ("arthur", "paused", "removed")] == [True, True, False]
    text = text_of(site.page())
    assert "open 0 furthest behind" in text
    assert "Paused by ada, 1970-01-01T00:00:01Z: its key is renewed. tidepost resume flights --destination" in text
    assert "The job does not name removed any more: nothing is sent there, and nothing waits for it." in text
    (job,) = site.status()["jobs"]
    remedies = {one["name"]: [each["remedy"] for each in one["waiting"]] for one in job["streams"][0]["destinations"]}
    assert remedies == {"arthur": [], "paused": ["tidepost resume flights --destination paused"], "removed": [""]}


def test_the_ledger_may_be_a_connection_that_only_airflow_knows(
    site: Site, world: World, new_ledger: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models.connection import Connection  # noqa: PLC0415 - Airflow's settings come first
    from airflow.utils.session import create_session  # noqa: PLC0415

    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # as the api-server sets it
    url = new_ledger()
    (world.root / "tidepost.yaml").write_text("version: 1\nledger: ${airflow:ledger}\n")
    with monkeypatch.context() as known:
        known.setenv("AIRFLOW_CONN_LEDGER", url)
        world.log("good", rows(10))
        world.run()
    assert site.rows()["flights"][0] == "not readable"
    with create_session() as session:
        session.add(Connection(conn_id="ledger", uri=url))
    try:
        assert site.rows()["flights inferences → arthur"][0] == "all arrived"
    finally:
        with create_session() as session:
            session.query(Connection).filter_by(conn_id="ledger").delete()


def test_a_broken_job_is_a_row_that_says_so_and_the_others_go_on(site: Site, world: World) -> None:
    (world.root / "jobs" / "churn.yaml").write_text("version: 1\nname: churn\nsauce: log/*.parquet\n")
    (world.root / "jobs" / "torn.yaml").write_text("name: [torn\n")
    for name in ("two", "three"):
        (world.root / "jobs" / f"{name}.yaml").write_text(json.dumps({**world.job, "name": "same"}))
    world.log("good", rows(10))
    world.run()
    found = site.rows()
    assert list(found) == [
        "jobs/churn.yaml",
        "jobs/three.yaml",
        "jobs/torn.yaml",
        "flights inferences → arthur",
    ]
    assert found["jobs/churn.yaml"][0] == "file is wrong"
    assert "sauce: no such key; did you mean &#34;source&#34;?" in found["jobs/churn.yaml"][1]
    assert found["flights inferences → arthur"][0] == "all arrived"
    assert {one["file"] for one in site.status()["broken"]} == {*found} - {"flights inferences → arthur"}


def test_a_job_whose_status_cannot_be_read_does_not_hide_the_others(
    airflow_home: Path, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.log("good", rows(10))
    world.run()
    (world.root / "jobs" / "odd.yaml").write_text(json.dumps({**world.job, "name": "odd"}))
    monkeypatch.setenv("TIDEPOST_PROJECT", str(world.root))
    status_of = status.read_status

    def read_status(job: Any, *rest: Any) -> Any:
        if job.name == "odd":
            raise ValueError("a text that may hold anything")
        return status_of(job, *rest)

    monkeypatch.setattr(reading, "read_status", read_status)
    odd, flights = shown(read(), {}).lines
    assert (odd.job, odd.care, flights.care) == ("odd", Care.BROKEN, Care.FINE)
    assert odd.fault == Fault("an error that tidepost did not expect: ValueError", hint="See the api-server's log.")
    assert "a text that may hold anything" in caplog.text


@pytest.mark.parametrize("url", ["sqlite:///no-ledger.db", "postgresql://127.0.0.1:1/tidepost"])
def test_where_the_ledger_does_not_answer_every_job_says_so(
    site: Site, world: World, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    (world.root / "jobs" / "other.yaml").write_text(json.dumps({**world.job, "name": "other"}))
    (world.root / "no-ledger.db").write_text("something else than a ledger " * 100)
    monkeypatch.setenv("TIDEPOST_LEDGER", url)
    found = site.rows()
    assert [cells[0] for cells in found.values()] == ["not readable", "not readable"]
    status = site.status()
    assert status["error"]["message"]
    assert all(job["error"] == status["error"] and job["ran"] is None for job in status["jobs"])


def test_without_jobs_the_page_says_what_to_do(site: Site, world: World) -> None:
    (world.root / "jobs" / "flights.yaml").unlink()
    text = text_of(site.page())
    assert "No jobs yet" in text
    assert str(world.root / "jobs") in text
    assert "tidepost init" in text


def test_without_a_project_the_page_says_what_to_do(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEPOST_PROJECT", str(tmp_path))
    text = text_of(site.page())
    assert "No project was found" in text
    assert "Set TIDEPOST_PROJECT to the folder of tidepost.yaml" in text
    assert site.status()["jobs"] == []


def test_a_job_links_to_its_dag_where_airflow_has_it(site: Site, world: World) -> None:
    from airflow.models.dag import DagModel  # noqa: PLC0415 - Airflow's settings come first
    from airflow.utils.session import create_session  # noqa: PLC0415

    from tidepost.airflow.names import dag_id  # noqa: PLC0415

    assert "/dags/" not in site.page()
    name = dag_id("flights")
    with create_session() as session:
        session.merge(DagModel(dag_id=name, bundle_name="dags-folder", is_paused=True, is_stale=False))
    try:
        assert f'<a href="../dags/{name}">flights</a>' in site.page()
        assert "flights paused" in site.rows()
        assert site.status()["jobs"][0]["dag"] == {"id": name, "paused": True}
    finally:
        with create_session() as session:
            session.query(DagModel).filter_by(dag_id=name).delete()


def test_one_sees_the_jobs_whose_dags_one_may_read(site: Site, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.api_fastapi.app import get_auth_manager  # noqa: PLC0415 - Airflow's settings come first

    (world.root / "jobs" / "secret.yaml").write_text(json.dumps({**world.job, "name": "secret"}))
    (world.root / "jobs" / "torn.yaml").write_text("name: [torn\n")
    assert set(site.rows()) == {"flights", "secret", "jobs/torn.yaml"}
    manager = get_auth_manager()
    monkeypatch.setattr(
        manager, "filter_authorized_dag_ids", lambda *, dag_ids, **_: {one for one in dag_ids if "flights" in one}
    )
    monkeypatch.setattr(manager, "is_authorized_view", lambda **_: False)
    assert set(site.rows()) == {"flights"}
    assert "secret" not in site.page()
    status = site.status()
    assert [job["job"] for job in status["jobs"]] == ["flights"]
    assert status["broken"] == []


def test_everything_that_is_shown_is_escaped(
    airflow_home: Path, world: World, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Names are checked where jobs are defined; the page does not rely on it."""
    monkeypatch.setenv("TIDEPOST_PROJECT", str(world.root))
    world.log("good", rows(10))
    world.run()
    (flights,) = read().jobs
    assert flights.status is not None
    (stream,) = flights.status.streams
    (to,) = stream.destinations
    waiting = Waiting(1, DeliveryState.HELD, 5, EVIL, EVIL)
    evil = replace(to, name=EVIL, mark=EVIL, waiting=(waiting,))
    status = replace(
        flights.status, streams=(replace(stream, rejected={EVIL: 3}, too_late=EVIL, destinations=(evil,)),)
    )
    fault = Fault(EVIL, EVIL, EVIL)
    reading = Reading(1e9, EVIL, (Found(EVIL, status), Found(EVIL, None, fault)), (Broken(EVIL, fault),), fault)
    from tidepost.airflow.page import app  # noqa: PLC0415

    monkeypatch.setattr(app, "read", lambda: reading)
    site: Site = request.getfixturevalue("site")
    page = site.page()
    assert "<img" not in page
    assert page.count("<script") == 1
    assert page.count("&lt;script&gt;") > 10
    assert site.status()["broken"][0]["file"] == EVIL
    assert site.get("api/status").headers["content-type"] == "application/json"


def test_the_page_needs_nothing_from_elsewhere_and_runs_no_other_script(site: Site) -> None:
    answer = site.get("")
    everything = answer.text + site.get("page.css").text + site.get("page.js").text
    assert not re.search(r"https?://|url\(|@import|style=|\son\w+=", everything)
    assert set(re.findall(r'(?:src|href)="([^"?]*)', answer.text)) == {"page.css", "page.js", "api/status"}
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"


def test_the_table_has_what_a_screen_reader_needs(site: Site, world: World) -> None:
    world.log("good", rows(10))
    world.run()
    page = site.page()
    assert '<html lang="en">' in page
    assert page.count("<table") == page.count("<caption")
    assert not re.search(r"<th(?! scope)[ >]", page)
    assert page.count('scope="col"') == 10
    assert page.count('scope="row"') == 1


def test_the_package_holds_the_page() -> None:
    parts = files("tidepost.airflow.page")
    for name in ("page.html", "page.css", "page.js"):
        assert (parts / name).read_text(), name


def test_the_plugin_is_registered_by_a_file_and_by_nothing_else() -> None:
    assert not [one for one in distribution("tidepost").entry_points if one.group == "airflow.plugins"]
    assert [path.name for path in PLUGINS.glob("*.py")] == ["tidepost_plugin.py"]


LOADED = """
import sys
from pathlib import Path
from airflow import plugins_manager
before = set(sys.modules)
(plugin,), errors = plugins_manager._load_plugins_from_plugin_directory(plugins_folder=sys.argv[1])
assert not errors, errors
loaded = set(sys.modules) - before - {"tidepost", "tidepost.airflow"}
assert loaded == {"tidepost.airflow.plugin", "tidepost_plugin"}, loaded
views = plugin.external_views
assert [(view["name"], view["destination"]) for view in views] == [("Uploads", "nav")]
assert "fastapi" not in sys.modules
(served,) = plugin.fastapi_apps
assert plugin.fastapi_apps[0]["app"] is served["app"]
assert served["url_prefix"] == "/tidepost"
assert "fastapi" in sys.modules
"""


def test_loading_the_plugin_imports_nothing_and_the_page_is_built_only_where_it_is_served(tmp_path: Path) -> None:
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(PLUGINS)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_many_may_look_and_one_reads() -> None:
    """The others get what was read before; only the very first wait for each other."""
    reading, goes_on, count = threading.Event(), threading.Event(), iter(range(10))

    def slowly() -> int:
        number = next(count)
        if number:
            reading.set()
            assert goes_on.wait(10)
        return number

    recent = Recent(slowly, seconds=0)
    assert recent() == 0
    other = threading.Thread(target=recent)
    other.start()
    assert reading.wait(10)
    assert recent() == 0
    goes_on.set()
    other.join()
    assert recent() == 2
    assert [one() for one in [Recent(lambda: next(count), seconds=60)] * 3] == [3, 3, 3]
