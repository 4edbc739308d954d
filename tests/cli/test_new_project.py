"""A new project, and definitions that are checked before anything is read or sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa
import pytest
from tests.cli.conftest import NOW_TEXT, Ended, Shell
from tests.world import NOW, SCHEMA, World, after, rows

from tidepost.definition.project import load_project


def test_init_makes_a_project_whose_job_is_valid(shell: Shell) -> None:
    done = shell.here("init", "uploads")
    root = shell.folder / "uploads"
    assert load_project(root).job("example").cursor.column == "logged_at"
    assert (root / ".gitignore").read_text().split("\n")[1:3] == [".tidepost/", ".env"]
    assert "tidepost validate" in done.out
    assert not done.err


def test_init_overwrites_nothing(shell: Shell) -> None:
    (shell.folder / "tidepost.yaml").write_text("version: 1  # mine\n")
    done = shell.here("init", ".", code=2)
    assert "tidepost.yaml already" in done.err
    assert (shell.folder / "tidepost.yaml").read_text() == "version: 1  # mine\n"
    assert not (shell.folder / "jobs").exists()


def test_outside_of_a_project_a_command_says_how_to_make_one(shell: Shell) -> None:
    done = shell.here("status", code=2)
    assert "tidepost init DIR" in done.err
    assert not done.out


def test_a_project_that_is_not_there_is_not_looked_for_above(tidepost: Shell) -> None:
    assert "there is no such folder" in tidepost.here("status", "--project", "nowhere", code=2).err


def test_an_unknown_job_is_told_with_the_nearest_name(tidepost: Shell) -> None:
    assert "did you mean flights?" in tidepost.here("plan", "flihgts", code=2).err


def test_validate_shows_every_job_and_everything_that_is_wrong(world: World, tidepost: Shell) -> None:
    world.log("monday", rows(3))
    jobs = world.root / "jobs"
    text = (jobs / "flights.yaml").read_text()
    (jobs / "typo.yaml").write_text(text.replace('"flights"', '"typo"').replace('"settle"', '"setle"'))
    (jobs / "column.yaml").write_text(text.replace('"flights"', '"column"').replace('"score"', '"skore"'))
    done = tidepost.here("validate", code=2)
    assert done.out.splitlines() == ["flights: valid; cursor logged_at (timestamp), 6 columns to send"]
    assert "setle" in done.err
    assert "jobs/column.yaml:18:3: mapping.predictions: skore" in done.err


def test_validate_shows_columns_that_changed_since_the_first_slice(world: World, tidepost: Shell) -> None:
    world.log("monday", rows(10))
    world.run()
    wider = SCHEMA.append(pa.field("gate", pa.string()))
    world.log("tuesday", pa.Table.from_pylist(rows(10, first=10, at=after(hours=1), gate="B7"), schema=wider))
    assert "column gate (VARCHAR) is new in the source; it is not sent" in tidepost.here("validate").out
    world.define(drift="fail")
    assert "gate (VARCHAR)" in tidepost.here("validate", code=2).err


def test_validate_connects_only_when_asked_to(world: World, tidepost: Shell) -> None:
    world.log("monday", rows(3))
    assert "valid" in tidepost.here("validate", "flights", ARTHUR_API_KEY="").out
    assert "which arthur takes" in tidepost.here("validate", "flights", "--connect").out
    world.define(destination={"model": "another"})
    done = tidepost.here("validate", "--connect", "--json", code=2)
    (job,) = done.document["jobs"]
    assert "no model" in job["error"]["message"]


def test_plan_shows_the_cuts_and_creates_nothing(world: World, tidepost: Shell) -> None:
    world.log("monday", rows(1500, every=30))
    done = tidepost.here("plan", "flights", "--now", NOW_TEXT)
    assert "2 cuts, about 1,500 rows" in done.out
    assert not (world.root / ".tidepost").exists()


def test_plan_logs_no_ids_that_it_sees(world: World, tidepost: Shell, upload: Callable[..., Ended]) -> None:
    world.define(cursor={"column": "distance", "start": 0})
    world.log("monday", rows(10))
    upload()
    world.log("tuesday", rows(10, first=10))
    later = (NOW + timedelta(hours=1)).isoformat()
    document = tidepost.here("plan", "flights", "--now", later, "--json").document
    assert document["rows"] == 10
    with world.ledger() as ledger:
        assert ledger.reports.highest_seen(world.stream(), float("inf")) == 109


def test_plan_of_a_range_shows_a_backfill(world: World, tidepost: Shell) -> None:
    world.log("monday", rows(120))
    arguments = ("--from", "2024-05-01T13:00Z", "--to", "2024-05-01T13:30Z", "--now", NOW_TEXT, "--json")
    document = tidepost.here("plan", "flights", *arguments).document
    assert [(cut["kind"], cut["estimated"]) for cut in document["cuts"]] == [("backfill", 30)]


@pytest.mark.parametrize("given", [("--from", "2024-05-01"), ("--to", "2024-05-01")])
def test_half_a_range_is_refused(tidepost: Shell, given: tuple[str, str]) -> None:
    assert "go together" in tidepost.here("plan", "flights", *given, code=2).err
