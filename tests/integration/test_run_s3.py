"""Whole runs whose staging is on S3."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.integration.test_rebuild import lose, rebuilt
from tests.s3 import SECRET, NewPlace, S3Server, s3_server
from tests.world import World, after, rows, said

from tidepost.cli import main
from tidepost.errors import Misconfigured, Retryable


def moved(world: World, place: str) -> World:
    """The world, staging at another place."""
    (world.root / "tidepost.yaml").write_text(f"version: 1\nstaging: {place}\n")
    return world


@pytest.fixture
def on_s3(world: World, new_place: NewPlace) -> World:
    return moved(world, new_place())


def keys(world: World, prefix: str = "flights/inferences/data") -> list[str]:
    return list(world.area.list(prefix))


def nothing_is_left_over(world: World) -> bool:
    return not list(world.area.leftovers(world.stream()))


def test_what_is_uploaded_arrives_once(on_s3: World) -> None:
    on_s3.define(staging={"partition": "hour", "file_rows": 100})
    on_s3.log("monday", rows(500))
    assert not said(on_s3.run())
    assert on_s3.everything_arrived_once(500)
    there = keys(on_s3)
    assert len(there) == 9  # 500 minutes are more than eight hours
    outcome = on_s3.run()
    assert (said(outcome), outcome.tally.published) == ("", 0)
    assert on_s3.everything_arrived_once(500)
    assert keys(on_s3) == there
    assert nothing_is_left_over(on_s3)


def test_no_part_is_kept_on_this_host(on_s3: World) -> None:
    on_s3.log("monday", rows(50))
    assert not said(on_s3.run())
    found = (on_s3.root / ".tidepost").rglob("*.parquet")
    assert [path for path in found if path.parent.name != "cache"] == []
    assert not (on_s3.root / ".tidepost" / "staging").exists()


def test_ids_are_looked_up_in_what_lies_on_s3(on_s3: World) -> None:
    on_s3.define(limits={"rejects": "50%"})
    on_s3.log("monday", rows(50))
    assert not said(on_s3.run())
    again = rows(50, logged_at=after(hours=3))
    again[0]["score"] = 0.999
    on_s3.log("tuesday", [*again, *rows(5, first=50, logged_at=after(hours=3))])
    assert not said(on_s3.run())
    assert on_s3.everything_arrived_once(55)
    (key,) = keys(on_s3, "flights/inferences/_tidepost/rejects")
    assert key.endswith(".parquet")


def test_a_ledger_that_was_lost_is_rebuilt_from_s3(on_s3: World) -> None:
    on_s3.log("monday", rows(50))
    assert not said(on_s3.run())
    lose(on_s3.root)
    on_s3.log("tuesday", rows(10, first=50, at=after(hours=2)))
    with pytest.raises(Misconfigured, match="another ledger"):
        on_s3.run()
    (done,) = rebuilt(on_s3.root)
    assert (done.slices, done.rows) == (1, 50)
    assert not said(on_s3.run())
    assert on_s3.everything_arrived_once(60)


def test_the_command_line_works_on_s3_and_shows_no_secret(
    on_s3: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(on_s3.root)
    on_s3.define(limits={"rejects": "50%"})
    on_s3.log("monday", [*rows(50), *(one | {"score": None} for one in rows(3, first=50))])
    assert not said(on_s3.run())

    def tidepost(*arguments: str) -> str:
        assert main(arguments) == 0
        told = capfd.readouterr()
        assert SECRET not in told.out + told.err
        return told.out

    (one,) = json.loads(tidepost("rejects", "flights", "--show-rows", "--json"))["files"]
    assert one["file"].startswith("s3://")
    assert len(one["rows"]) == 3
    assert "flights" in tidepost("status")
    assert "nothing to rebuild" in tidepost("ledger", "rebuild")


@pytest.fixture
def failing() -> Iterator[S3Server]:
    """A server to stop and to start."""
    with s3_server() as server:
        yield server


def test_a_store_that_is_down_costs_nothing(world: World, failing: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in failing.env.items():
        monkeypatch.setenv(name, value)
    moved(world, failing.new_place())
    world.log("monday", rows(50))
    assert not said(world.run())
    world.log("tuesday", rows(10, first=50, at=after(hours=2)))
    failing.stop()
    with pytest.raises(Retryable, match="no answer") as error:
        world.run()
    assert failing.url in str(error.value)
    assert SECRET not in str(error.value)
    failing.start()
    assert not said(world.run())
    assert world.everything_arrived_once(60)


def test_a_kind_of_staging_that_there_is_not_is_refused(world: World) -> None:
    moved(world, "gs://bucket/place")
    with pytest.raises(Misconfigured, match="gs://") as error:
        world.run()
    assert "s3://BUCKET/PREFIX" in error.value.hint


HEAVY = """
import sys
from pathlib import Path
from tidepost.definition.project import load_project
from tidepost.wire import staging_of
for place in (".tidepost/staging", "s3://bucket/place"):
    staging_of(load_project(Path(sys.argv[1]), {"TIDEPOST_STAGING": place}), {"TIDEPOST_STAGING": place})
print(sorted({"boto3", "botocore", "fsspec", "duckdb", "pyarrow"} & set(sys.modules)))
"""


def test_nothing_heavy_is_imported_before_s3_is_used(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, str(world.root)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
