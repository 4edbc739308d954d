"""A ledger lost, and what is done to one by hand, by command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.cli.conftest import Ended, Shell
from tests.postgres import NewUrl, new_database, postgres  # noqa: F401 - fixtures
from tests.world import START, World, after, ns, row, rows
from typer.main import get_command

from tidepost.cli.app import app
from tidepost.cursor import HOUR
from tidepost.model import Request, ScanKind
from tidepost.planning.prospect import plan_request
from tidepost.ranges import Range

Upload = Callable[..., Ended]
COMMANDS: dict[str, Any] = get_command(app).commands["ledger"].commands  # type: ignore[attr-defined]


def lose(world: World) -> None:
    for path in (world.root / ".tidepost").glob("ledger.db*"):
        path.unlink()


def held(world: World, upload: Upload) -> None:
    """A first slice that is held, and a second one that arrived."""
    world.define(limits={"cut_rows": 10})
    world.log("monday", [row(n, after(minutes=n), score=None if n % 2 else 0.5) for n in range(10)])
    world.log("tuesday", rows(10, first=10, at=after(hours=5)))
    upload(code=3)


# --------------------------------------------------------------------------------------------------------- help


def test_the_commands_are_these() -> None:
    assert list(COMMANDS) == ["rebuild", "migrate", "set-frontier", "history"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_explained_with_an_example_and_has_the_options_that_all_have(name: str) -> None:
    command = COMMANDS[name]
    assert command.help.strip()
    assert f"\n  tidepost ledger {name}" in command.epilog
    assert {"--json", "--project", "--log-format", "--verbose"} <= {o for one in command.params for o in one.opts}
    assert not [one.name for one in command.params if not one.help]


def test_the_group_alone_shows_its_commands(tidepost: Shell) -> None:
    assert "set-frontier" in tidepost.here("ledger").out
    assert "See:  tidepost ledger --help" in tidepost.here("ledger", "mend", code=2).err


# ------------------------------------------------------------------------------------------------------ rebuild


def test_a_run_without_its_ledger_names_the_command_that_helps(world: World, tidepost: Shell, upload: Upload) -> None:
    world.log("monday", rows(25))
    upload()
    lose(world)
    refused = upload(code=2)
    assert "written by another ledger" in refused.err
    assert "tidepost ledger rebuild flights" in refused.err

    nobody = tidepost("ledger", "rebuild", "flights", code=2)
    assert "--yes" in nobody.err
    done = tidepost("ledger", "rebuild", "flights", "--yes")
    assert "flights, inferences: 1 slice of 25 rows" in done.out
    assert "at arthur: 1 sent" in done.out
    assert "Go on:  tidepost run flights" in done.out
    assert upload().out.startswith("flights: 0 rows published in 0 slices (0 B), 25 arrived")
    assert upload().out.startswith("flights: nothing new\n")
    assert world.everything_arrived_once(25)


def test_a_rebuild_without_names_takes_all_jobs_and_says_what_it_did(
    world: World, tidepost: Shell, upload: Upload
) -> None:
    world.log("monday", rows(25))
    upload()
    lose(world)
    (world.root / "jobs" / "wrong.yaml").write_text("version: 1\nname: wrong\n")
    done = tidepost.here("ledger", "rebuild", "--yes", "--json").document
    assert done["rebuilt"] == [
        {
            "job": "flights",
            "stream": "inferences",
            "slices": 1,
            "rows": 25,
            "half_published": None,
            "deliveries": {"arthur": {"sent": 1}},
            "strangers": [],
        }
    ]
    assert "wrong.yaml" in done["problems"][0]
    assert "nothing to rebuild" in tidepost.here("ledger", "rebuild").out
    assert tidepost.here("ledger", "rebuild", "--json").document["rebuilt"] == []


def test_a_rebuild_names_destinations_that_the_job_has_no_more(world: World, tidepost: Shell, upload: Upload) -> None:
    world.log("monday", rows(25))
    upload()
    lose(world)
    world.define(destination={"name": "elsewhere"})
    done = tidepost.here("ledger", "rebuild", "--yes").out
    assert "at elsewhere: 1 todo" in done
    assert "arthur is no destination of the job any more" in done


def test_a_rebuild_that_is_refused_changes_nothing(world: World, tidepost: Shell, upload: Upload) -> None:
    world.log("monday", rows(25))
    upload()
    lose(world)
    manifest = next(world.staging.root.rglob("manifests/*.json"))
    manifest.write_text("{")
    refused = tidepost.here("ledger", "rebuild", "--yes", code=2).err
    assert "flights/inferences/_tidepost/manifests/00000001.json is damaged" in refused
    assert not list((world.root / ".tidepost").glob("ledger.db*"))


def test_a_project_that_never_ran_has_nothing_to_rebuild(tidepost: Shell) -> None:
    assert "nothing to rebuild" in tidepost.here("ledger", "rebuild").out
    assert 'no job "fligths"' in tidepost.here("ledger", "rebuild", "fligths", code=2).err


# ------------------------------------------------------------------------------------------------------ migrate


def test_migrate_says_from_which_version_to_which(world: World, tidepost: Shell) -> None:
    assert "was set up at version 0001" in tidepost.here("ledger", "migrate").out
    assert "is at version 0001 already" in tidepost.here("ledger", "migrate").out
    document = tidepost.here("ledger", "migrate", "--json").document
    assert document == {"ledger": f"{world.root}/.tidepost/ledger.db", "from": "0001", "to": "0001"}


def test_a_ledger_on_a_server_waits_to_be_migrated_and_its_password_is_not_shown(
    world: World,
    tidepost: Shell,
    upload: Upload,
    new_database: NewUrl,  # noqa: F811
) -> None:
    url = new_database().replace("postgres@", "postgres:${SECRET}@")
    (world.root / "tidepost.yaml").write_text(f"version: 1\nledger: {url}\n")
    world.log("monday", rows(5))
    assert "tidepost ledger migrate" in upload(code=2, SECRET="hidden").err
    done = tidepost.here("ledger", "migrate", SECRET="hidden")
    assert "was set up at version 0001" in done.out
    assert "hidden" not in done.out + done.err
    assert "5 rows published" in upload(SECRET="hidden").out


# ------------------------------------------------------------------------------------------------- set-frontier


def test_what_another_tool_sent_is_not_sent_after_the_frontier_was_set_forward(
    world: World, tidepost: Shell, upload: Upload
) -> None:
    world.log("monday", rows(10))
    upload()
    world.log("sent by another tool", rows(10, first=10, at=after(hours=5)))
    set_to = ("ledger", "set-frontier", "flights", "2024-05-01T18:00Z", "--why", "tests")
    assert "--yes" in tidepost.here(*set_to, code=2).err
    done = tidepost.here(*set_to, "--yes", "--json").document
    assert done == {
        "job": "flights",
        "old": "2024-05-01T12:09:00.000001Z",
        "new": "2024-05-01T17:09:00.000001Z",
        "changed": True,
    }
    assert "nothing was changed" in tidepost.here(*set_to, "--yes").out
    world.log("new", rows(5, first=20, at=after(hours=7)))
    upload()
    assert world.everything_arrived_once(15)
    assert world.mark() == "2024-05-01T19:04:00.000001Z"


def test_what_is_above_a_frontier_that_was_set_back_is_looked_at_again(
    world: World, tidepost: Shell, upload: Upload
) -> None:
    world.define(cursor={"lookback": "0s"})
    world.log("monday", rows(60))
    upload()
    world.log("late", rows(10, first=60, at=after(minutes=30)))
    assert "nothing new" in upload().out
    done = tidepost.here("ledger", "set-frontier", "flights", "2024-05-01T12:20Z", "--why", "late rows", "--yes")
    assert "went from 2024-05-01T12:59Z to 2024-05-01T12:20Z" in done.out
    again = upload().out
    assert "10 rows published" in again
    assert "40 duplicates left out" in again
    assert world.everything_arrived_once(70)
    assert world.mark() == "2024-05-01T12:59:00.000001Z"


def test_a_frontier_is_not_set_where_that_means_nothing(world: World, tidepost: Shell, upload: Upload) -> None:
    world.log("monday", rows(10))
    to = ("ledger", "set-frontier", "flights")
    assert "never ran" in tidepost.here(*to, "2024-05-02", "--why", "x", "--yes", code=2).err
    upload()
    assert "before the job's start" in tidepost.here(*to, "2020-01-01", "--why", "x", "--yes", code=2).err
    assert "is not a timestamp position" in tidepost.here(*to, "soon", "--why", "x", "--yes", code=2).err
    assert "--why is empty" in tidepost.here(*to, "2024-05-02", "--why", " ", "--yes", code=2).err
    with world.wired() as wired:
        stream = world.stream()
        world.log("tuesday", rows(10, first=10, at=after(hours=5)))
        plan_request(wired, stream, Request("planned", ScanKind.INCREMENTAL))
    assert "cuts that are not done" in tidepost.here(*to, "2024-05-02", "--why", "x", "--yes", code=2).err
    upload()
    assert world.everything_arrived_once(20)
    assert tidepost.here("ledger", "history").out == "nothing was done by hand\n"


# --------------------------------------------------------------------------------------------------------- skip


def test_a_slice_that_is_skipped_lets_the_mark_move_and_does_not_count_as_arrived(
    world: World, tidepost: Shell, upload: Upload
) -> None:
    held(world, upload)
    start = world.mark()
    skip = ("skip", "flights", "1", "--why", "nonsense")
    assert "--yes" in tidepost.here(*skip, code=2).err
    assert "skipped at arthur: 5 rows will not be sent" in tidepost.here(*skip, "--yes").out
    assert world.mark() > start
    upload()
    assert world.platform_rows() == 10
    (destination,) = world.summary().destinations
    assert (destination.arrived, destination.oldest) == (10, {})
    assert world.states() == {"closed": 2}
    (entry,) = tidepost.here("ledger", "history", "flights", "--json").document["history"]
    assert (entry["job"], entry["what"], entry["why"]) == (
        "flights",
        "skipped slice 1 of inferences at arthur",
        "nonsense",
    )
    assert entry["old"].startswith("held: 5 of 10 rows rejected")
    assert entry["new"] == "5 of 5 rows skipped, 0 arrived, 0 refused"


def test_rows_beside_a_skipped_slice_are_still_counted(world: World, tidepost: Shell, upload: Upload) -> None:
    """The hour of a skipped slice expects nothing of it: what else is there is proven by counts."""
    held(world, upload)
    tidepost.here("skip", "flights", "1", "--why", "nonsense", "--yes")
    world.log("late", [row(n, after(minutes=30), logged_at=after(hours=9)) for n in range(30, 35)])
    upload()
    assert world.states() == {"closed": 3}
    with world.ledger() as ledger:
        hours = Range(ns(START) // HOUR, ns(START) // HOUR + 1)
        assert ledger.reports.expected(world.stream(), "arthur", hours) == {hours.start: 5}
    assert world.platform_rows() == 15


def test_only_a_held_slice_can_be_skipped(world: World, tidepost: Shell, upload: Upload) -> None:
    assert "never ran" in tidepost.here("skip", "flights", "1", "--why", "x", "--yes", code=2).err
    held(world, upload)
    refused = tidepost.here("skip", "flights", "2", "--why", "x", "--yes", code=2).err
    assert "slice 2 of flights is not held" in refused
    assert "Held: 1" in refused
    assert "--why is empty" in tidepost.here("skip", "flights", "1", "--why", "", "--yes", code=2).err
    tidepost.here("skip", "flights", "1", "--why", "x", "--yes")
    again = tidepost.here("skip", "flights", "1", "--why", "x", "--yes", code=2).err
    assert "Held: none is" in again


# ------------------------------------------------------------------------------------------------------ history


def test_the_history_shows_the_newest_entries_first(world: World, tidepost: Shell, upload: Upload) -> None:
    world.log("monday", rows(10))
    assert tidepost.here("ledger", "history", "--json").document == {"history": []}
    upload()
    for position in ("2024-05-01T12:05Z", "2024-05-01T12:03Z"):
        tidepost.here("ledger", "set-frontier", "flights", position, "--why", f"to {position}", "--yes")
    shown = tidepost.here("ledger", "history", "flights").out
    assert shown.index("to 2024-05-01T12:03Z") < shown.index("to 2024-05-01T12:05Z")
    assert "set the frontier of inferences" in shown
    (newest,) = tidepost.here("ledger", "history", "--limit", "1", "--json").document["history"]
    assert newest["why"] == "to 2024-05-01T12:03Z"
    assert "@" in newest["who"]
    assert 'no job "fligths"' in tidepost.here("ledger", "history", "fligths", code=2).err
