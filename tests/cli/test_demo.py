"""The demo: real flights, a real platform, and the same numbers however often it is run and however it ended."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Shell

from tidepost.demo.demo import JOB, create_project
from tidepost.demo.proof import Day, Labels, Proof
from tidepost.sandbox import SandboxProcess

ROWS = {2: 842 + 943, 3: 842 + 943 + 914}
"""Flights that left New York in the first days of 2013."""


@pytest.fixture(scope="module")
def port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder, which gets a `tidepost-demo` in it."""
    return tmp_path_factory.mktemp("anywhere")


@pytest.fixture(scope="module")
def first(folder: Path, port: int) -> dict[str, Any]:
    """The first demo of two days."""
    document: dict[str, Any] = Shell(folder)("demo", "--days", "2", "--port", str(port), "--json").document
    return document


@pytest.fixture
def demo(folder: Path, first: dict[str, Any]) -> Shell:
    """The command in the folder that holds a demo which has run."""
    assert first["equal"]
    return Shell(folder)


def test_every_row_of_the_log_arrives_once_on_each_day(first: dict[str, Any]) -> None:
    assert [day["date"] for day in first["days"]] == ["2013-01-01", "2013-01-02"]
    assert all(day["logged"] == day["published"] == day["arrived"] for day in first["days"])
    assert all(first["total"][name] == ROWS[2] for name in ("logged", "published", "arrived"))
    assert (first["missing"], first["unknown"], first["twice"]) == (0, 0, 0)


def test_every_label_that_is_known_arrives_with_its_value(first: dict[str, Any]) -> None:
    labels = first["labels"]
    assert labels == {"logged": 1_632, "arrived": 1_632, "missing": 0, "wrong": 0, "unknown": 0, "equal": True}
    assert first["landings"]["rows"] == first["run"]["ground_truth"]["published"] == 1_632
    assert first["total"]["labelled"] == 1_632


def test_flights_that_get_no_label_are_told_from_those_whose_label_is_to_come(first: dict[str, Any]) -> None:
    days = [(day["labelled"], day["to_come"], day["never"]) for day in first["days"]]
    assert days == [(799, 32, 11), (833, 95, 15)]
    assert all(day["labelled"] + day["to_come"] + day["never"] == day["arrived"] for day in first["days"])


def test_it_makes_a_project_of_its_own(first: dict[str, Any], folder: Path) -> None:
    root = folder / "tidepost-demo"
    assert first["project"] == str(root)
    assert (root / "jobs" / "flights.yaml").is_file()
    assert len(list((root / "log" / "flights").glob("*.parquet"))) == 2
    assert len(list((root / "log" / "landings").glob("*.parquet"))) == 2


def test_files_that_are_there_are_left_alone(tmp_path: Path) -> None:
    job = tmp_path / "jobs" / "flights.yaml"
    job.parent.mkdir()
    job.write_text("mine")
    assert create_project(tmp_path) == (tmp_path / "tidepost.yaml",)
    assert job.read_text() == "mine"


def test_again_within_its_project_it_uploads_nothing_and_says_so(demo: Shell, port: int) -> None:
    within = Shell(demo.folder / "tidepost-demo" / "log")
    done = within.here("demo", "--days", "2", "--port", str(port))
    assert "flights: nothing new" in done.out
    assert f"Each of the {ROWS[2]:,} rows of the log arrived once." in done.out
    assert "Each of the 1,632 labels that are known arrived with its value." in done.out
    assert "127 are to come; 26 flights get none" in done.out
    assert "tidepost status flights" in done.out


def test_killed_and_run_again_it_ends_with_the_same_numbers(demo: Shell, port: int) -> None:
    arguments = ("demo", "--days", "3", "--port", str(port), "--json")
    with demo.started(*arguments) as process:
        assert process.stderr is not None
        assert "cut 1/" in process.stderr.readline()
        process.kill()
    again = demo.here(*arguments).document
    assert again["equal"]
    assert again["total"]["arrived"] == ROWS[3]
    assert again["labels"]["arrived"] == again["landings"]["rows"] == 2_501


def test_a_week_of_labels_that_is_dropped_as_a_file_is_picked_up(demo: Shell, port: int) -> None:
    week = demo.here("demo", "--days", "7", "--port", str(port), "--json").document
    assert week["equal"]
    assert (week["reports"]["files"], week["reports"]["rows"]) == (1, 276)
    assert week["labels"]["arrived"] == week["landings"]["rows"] + 276 == 6_007
    assert [day["to_come"] for day in week["days"]] == [0, 0, 0, 0, 0, 0, 36]
    before = demo.here("demo", "--days", "3", "--port", str(port), "--json").document
    assert (before["equal"], before["labels"]["arrived"]) == (True, 6_007)


def test_a_sandbox_that_runs_on_the_same_data_is_used(demo: Shell, port: int) -> None:
    data = demo.folder / "tidepost-demo" / ".tidepost" / "sandbox"
    with SandboxProcess(data, port=port) as sandbox:
        document = demo.here("demo", "--days", "2", "--port", str(port), "--json").document
        assert document["url"] == sandbox.url
        assert document["equal"]


def test_a_port_that_something_else_has_is_refused(demo: Shell) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = demo.here("demo", "--port", str(server.server_port), code=2)
        server.shutdown()
    assert f"port {server.server_port} is taken by something else" in done.err
    assert "--port" in done.err


def test_a_job_that_sends_elsewhere_is_refused(tmp_path: Path) -> None:
    create_project(tmp_path)
    job = tmp_path / "jobs" / f"{JOB}.yaml"
    job.write_text(job.read_text().replace("${SANDBOX_URL:-http://127.0.0.1:8765}", "https://arthur.example.com"))
    done = Shell(tmp_path).here("demo", "--days", "1", "--port", "0", "--json", code=2)
    assert "sends to https://arthur.example.com" in json.loads(done.out)["error"]["message"]


@pytest.mark.parametrize(
    ("day", "odd"),
    [
        ((3, 3, 2), (1, 0, 0)),
        ((3, 2, 3), (0, 0, 0)),
        ((3, 3, 3), (0, 0, 1)),
        ((3, 3, 3), (1, 1, 0)),
    ],
)
def test_numbers_that_differ_are_no_proof(day: tuple[int, int, int], odd: tuple[int, int, int]) -> None:
    assert not Proof((Day(date(2013, 1, 1), *day),), *odd).equal
    assert Proof((Day(date(2013, 1, 1), 3, 3, 3),), 0, 0, 0).equal


@pytest.mark.parametrize("odd", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_labels_that_differ_are_no_proof(odd: tuple[int, int, int]) -> None:
    day = Day(date(2013, 1, 1), 3, 3, 3, labelled=2)
    assert not Proof((day,), 0, 0, 0, Labels(2, 2, *odd)).equal
    assert Proof((day,), 0, 0, 0, Labels(2, 2, 0, 0, 0)).equal
