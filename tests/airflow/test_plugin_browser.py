"""The Uploads page as a viewer sees it: in a browser, by Airflow's own navigation, served by Airflow's api-server."""

from __future__ import annotations

import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from deploy.local.environment import ROOT
from deploy.local.program import Program
from deploy.local.rest import Rest, until
from deploy.local.settings import VIEWER, Place
from playwright.sync_api import Browser, Frame, Locator, Page, expect, sync_playwright
from tests.world import Platform, World, after, rows

pytestmark = [pytest.mark.debian, pytest.mark.timeout(300)]

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECONDS = 60.0


@dataclass(frozen=True)
class Served:
    """An api-server, and the project whose uploads it shows."""

    place: Place
    world: World

    def sign_in(self, page: Page) -> None:
        page.goto(self.place.url)
        page.fill("input[name=username]", VIEWER)
        page.fill("input[name=password]", self.place.password)
        page.click("button[type=submit]")
        page.wait_for_url(re.compile(r"^(?!.*/login)"))

    def open_uploads(self, page: Page) -> Frame:
        """The page, reached by its entry in the navigation."""
        self.sign_in(page)
        page.get_by_role("link", name="Uploads").click()
        element = page.wait_for_selector("iframe")
        assert element is not None
        frame = element.content_frame()
        assert frame is not None
        expect(frame.get_by_role("heading", name="Uploads")).to_be_visible()
        return frame


def row(frame: Frame, name: str) -> Locator:
    """A job's row, or that of a file that is wrong."""
    return frame.get_by_role("row").filter(has=frame.get_by_role("rowheader", name=name))


@pytest.fixture(scope="module")
def served(airflow_home: Path, _process: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One job that has uploaded, one whose file is wrong, and Airflow's api-server, which has the first one's DAG."""
    folder = tmp_path_factory.mktemp("served")
    world = World.make(folder / "project", Platform(_process))  # type: ignore[arg-type]
    (world.root / "jobs" / "torn.yaml").write_text("name: [torn\n")
    world.log("first", rows(90))
    world.run()
    place = Place(folder / "home", world.root, folder / "dags", ROOT / "plugins")
    place.dags.mkdir()
    place.prepare()
    database = place.home / "airflow.db"
    _store_dag(world)
    with closing(sqlite3.connect(airflow_home / "airflow.db")) as made, closing(sqlite3.connect(database)) as copy:
        made.backup(copy)
    env = place.environment(
        {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}", "AIRFLOW__API__WORKERS": "1"}
    )
    airflow = Path(sys.executable).with_name("airflow")
    with Program([airflow, "api-server"], log=folder / "api-server.log", env=env, cwd=folder) as server:
        rest = Rest(place.url, VIEWER, place.password)
        until(lambda: rest.health() or None, "the api-server", seconds=SECONDS, alive=lambda: server.running)
        yield Served(place, world)


def _store_dag(world: World) -> None:
    """The job's DAG in Airflow's database, as the DAG processor stores it."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db  # noqa: PLC0415 - Airflow's settings come first

    from tidepost.airflow import upload_dags  # noqa: PLC0415

    bag = DagBag(collect_dags=False)
    bag.bag_dag(upload_dags(world.root)["upload_flights"])
    sync_bag_to_db(bag, "dags-folder", None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert shutil.which(CHROMIUM), "these tests need Debian's chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new window; what its scripts complain of fails the test."""
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors


def test_a_viewer_gets_to_the_page_by_the_navigation_and_sees_what_the_ledger_says(
    served: Served, page: Page
) -> None:
    frame = served.open_uploads(page)
    flights = row(frame, "flights")
    expect(flights).to_contain_text("all arrived")
    expect(flights).to_contain_text(served.world.mark()[:16])
    expect(flights.get_by_role("cell", name="90", exact=True)).to_be_visible()
    torn = row(frame, "jobs/torn.yaml")
    expect(torn).to_contain_text("is not YAML")
    frame.get_by_role("link", name="flights").click()
    page.wait_for_url("**/dags/upload_flights")


def test_the_page_keeps_itself_up_to_date_and_leaves_alone_what_did_not_change(served: Served, page: Page) -> None:
    frame = served.open_uploads(page)
    expect(row(frame, "flights")).to_contain_text("all arrived")
    bad = rows(40, first=1000, at=after(hours=3), score=float("nan"))
    served.world.log("second", bad)
    served.world.run()
    notes = frame.get_by_text("What waits")
    until(lambda: frame.evaluate("refresh()") or notes.count(), "the page to say so", seconds=20, every=0.2)
    expect(row(frame, "flights")).to_contain_text("1 held")
    notes.click()
    torn = row(frame, "jobs/torn.yaml").element_handle()
    assert torn is not None
    frame.evaluate("refresh()")
    expect(frame.get_by_text("40 rows rejected:")).to_be_visible()
    assert torn.evaluate("row => row.isConnected")


def test_the_page_follows_airflows_theme_and_needs_nobody_else(served: Served, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    frame = served.open_uploads(page)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = frame.evaluate(ground)
    page.evaluate("document.documentElement.classList.replace('light', 'dark')")
    frame.wait_for_function(f"{ground} !== '{light}'")
    assert [url for url in asked if url.startswith("http") and not url.startswith(served.place.url)] == []


def test_a_session_that_has_ended_and_a_server_that_does_not_answer_are_said(served: Served, page: Page) -> None:
    frame = served.open_uploads(page)
    page.context.clear_cookies()
    frame.evaluate("refresh()")
    expect(frame.get_by_role("status")).to_contain_text("Your session has ended. Sign in again")
    page.context.set_offline(True)
    frame.evaluate("refresh()")
    expect(frame.get_by_role("status")).to_contain_text("Airflow does not answer")
    expect(row(frame, "flights")).to_be_visible()
