"""Purging: data files go, their ids stay, and nothing is lost or sent twice by it, killed wherever it may be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.world import World, after, rows, said

from tidepost.errors import Misconfigured, Retryable
from tidepost.ledger.owner import this_process
from tidepost.ledger.purging import SqlPurging
from tidepost.publishing.purge import Purge, Purged
from tidepost.recovery.rebuild import look, rebuild
from tidepost.rows.index import CONTENT
from tidepost.rows.shape import ID
from tidepost.staging.local import LocalStaging


class Killed(BaseException):
    """As if the process died there."""


@pytest.fixture
def world(world: World) -> World:
    """Three slices of 20 rows, all arrived."""
    world.define(limits={"cut_rows": 20, "rejects": "90%"}, staging={"keep": "0s"})
    world.log("monday", rows(60, every=300))
    assert not said(world.run())
    return world


def purged(world: World, *, keep: float = 0.0, destinations: tuple[str, ...] = ("arthur",)) -> Purged:
    with world.wired() as wired, world.ledger() as ledger:
        purge = Purge(world.stream(), ledger, wired.staging, wired.records, destinations, keep)
        return purge.purge(wired.engine, this_process())


def sidecars(world: World) -> list[Path]:
    return sorted((world.staging.root / "flights" / "inferences" / "_tidepost" / "ids").glob("*.parquet"))


def test_files_that_every_destination_closed_go_and_their_ids_stay(world: World) -> None:
    files = world.files()
    size = sum(file.stat().st_size for file in files)
    result = purged(world)
    assert (result.slices, result.parts, result.rows, result.size) == (3, len(files), 60, size)
    assert world.files() == []
    tables = [pq.read_table(file) for file in sidecars(world)]
    assert sorted(id_ for one in tables for id_ in one.column(ID).to_pylist()) == [f"r{n:06d}" for n in range(60)]
    assert {len(content) for one in tables for content in one.column(CONTENT).to_pylist()} == {16}


def test_files_stay_until_keep_is_over(world: World) -> None:
    assert purged(world, keep=3600.0) == Purged()
    assert len(world.files()) == 3


def test_a_destination_that_has_not_closed_a_slice_pins_it(world: World) -> None:
    assert purged(world, destinations=("arthur", "elsewhere")) == Purged()
    assert len(world.files()) == 3


def test_a_purge_that_is_repeated_drops_nothing_more(world: World) -> None:
    purged(world)
    assert purged(world) == Purged()


def test_rows_of_purged_files_are_still_duplicates(world: World) -> None:
    purged(world)
    world.log("again", rows(60, every=300, logged_at=after(hours=8)))
    outcome = world.run()
    assert not said(outcome)
    assert (outcome.tally.scanned, outcome.tally.duplicates, outcome.tally.published) == (60, 60, 0)
    assert world.everything_arrived_once(60)


def test_rows_of_purged_files_that_changed_are_set_aside(world: World) -> None:
    purged(world)
    world.log("again", rows(10, every=300, logged_at=after(hours=8), score=0.123456))
    outcome = world.run()
    assert outcome.tally.rejected == {"changed_after_sent": 10}


def test_kept_and_purged_files_are_looked_up_together(world: World) -> None:
    purged(world)
    world.log("tuesday", rows(10, first=60, at=after(hours=6)))
    assert not said(world.run())
    again = [
        one | {"logged_at": after(hours=9)} for one in (*rows(60, every=300), *rows(10, first=60, at=after(hours=6)))
    ]
    world.log("again", again)
    assert world.run().tally.duplicates == 70
    assert world.everything_arrived_once(70)


def test_a_sidecar_that_is_missing_stops_the_run_before_anything_is_sent(world: World) -> None:
    purged(world)
    sidecars(world)[1].unlink()
    world.log("again", rows(60, every=300, logged_at=after(hours=8)))
    assert "should be there and is not" in said(world.run())
    assert world.everything_arrived_once(60)


def test_a_file_that_is_not_what_was_published_is_not_dropped(world: World) -> None:
    first = world.files()[0]
    pq.write_table(pq.read_table(first).slice(1), first)
    with pytest.raises(Misconfigured, match="holds 19 rows, and 20 were published"):
        purged(world)
    assert len(world.files()) == 3


def effects(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Let the process die before its effect of that number; the effects so far, by name."""
    done: list[str] = []

    def dying(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*args: Any, **options: Any) -> Any:
            if len(done) == at:
                raise Killed
            done.append(name)
            return act(*args, **options)

        return acted

    monkeypatch.setattr(LocalStaging, "file", dying("sidecar", LocalStaging.file))
    monkeypatch.setattr(LocalStaging, "withdraw", dying("drop", LocalStaging.withdraw))
    monkeypatch.setattr(SqlPurging, "purge", dying("mark", SqlPurging.purge))
    return done


@pytest.mark.parametrize("at", range(9))
def test_a_purge_killed_before_any_effect_is_finished_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with monkeypatch.context() as patched:
        done = effects(patched, at)
        with pytest.raises(Killed):
            purged(world)
        assert done == (["sidecar", "mark", "drop"] * 3)[:at]
    world.log("again", rows(60, every=300, logged_at=after(hours=8)))
    assert world.run().tally.duplicates == 60
    purged(world)
    assert (world.files(), len(sidecars(world))) == ([], 3)
    assert world.everything_arrived_once(60)


def test_a_disk_that_is_full_drops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise Retryable("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(LocalStaging, "file", full)
        with pytest.raises(Retryable):
            purged(world)
    assert len(world.files()) == 3


def test_a_ledger_is_rebuilt_from_what_a_purge_leaves(world: World) -> None:
    purged(world)
    for path in (world.root / ".tidepost").glob("ledger.db*"):
        path.unlink()
    rebuilt(world)
    assert world.states() == {"closed": 3}
    assert world.summary().destinations[0].arrived == 60
    assert not said(world.run())
    world.log("again", rows(60, every=300, logged_at=after(hours=8)))
    assert world.run().tally.duplicates == 60
    assert world.everything_arrived_once(60)


def test_a_file_that_is_gone_without_a_sidecar_is_an_error_of_a_rebuild(world: World) -> None:
    world.files()[1].unlink()
    for path in (world.root / ".tidepost").glob("ledger.db*"):
        path.unlink()
    with pytest.raises(Misconfigured, match="is missing, and so is the sidecar"):
        rebuilt(world)


def rebuilt(world: World) -> None:
    job, staging = world.project.job("flights"), world.staging
    with world.wired() as wired, world.ledger() as ledger:
        for found in look(job, staging, ledger):
            rebuild(
                job,
                found,
                ledger,
                staging=staging,
                records=staging,
                engine=wired.engine,
                who="a test",
                at=0.0,
            )
