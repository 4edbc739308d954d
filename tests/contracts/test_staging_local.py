"""Staging on a local disk: the contract, and what is a disk's own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from tests.contracts.staging_contract import STREAM, StagingContract, finished, rows_of
from tests.world import World, after, rows, said

from tidepost.errors import Misconfigured, Retryable
from tidepost.staging.local import LocalStaging


class TestLocalStaging(StagingContract):
    @pytest.fixture
    def staging(self, tmp_path: Path) -> LocalStaging:
        return LocalStaging(tmp_path / "staging")

    @pytest.fixture
    def again(self, tmp_path: Path) -> Callable[[], LocalStaging]:
        return lambda: LocalStaging(tmp_path / "staging")


@pytest.fixture
def staging(tmp_path: Path) -> LocalStaging:
    return LocalStaging(tmp_path / "staging")


# ------------------------------------------------------------------------------------------------------ the layout


def test_nothing_is_made_before_something_is_written(staging: LocalStaging) -> None:
    assert staging.get("a") is None
    assert list(staging.list("")) == []
    assert not staging.root.exists()


def test_a_data_set_can_be_read_by_anything_that_knows_hive_folders(staging: LocalStaging) -> None:
    part = finished(staging, partner_inference_id=["a"])
    staging.reveal(STREAM, part)
    data = staging.root / "flights" / "inferences" / "data"
    found = duckdb.sql(f"SELECT * FROM read_parquet('{data}/**/*.parquet', hive_partitioning = true)").fetchall()
    assert [str(value) for value in found[0]] == ["a", "2024-05-01"]


@pytest.mark.parametrize("name", ["it's", "with [brackets]", "stars * and ?", "größe 🎈", "{braces}", "a=b"])
def test_staging_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    staging = LocalStaging(tmp_path / name / "staging")
    part = finished(staging, partner_inference_id=["a"])
    staging.reveal(STREAM, part)
    assert rows_of(staging, part) == [("a", part.path, 0)]


@pytest.mark.parametrize("name", ["it's", "with [brackets]", "größe 🎈"])
def test_a_project_may_lie_in_a_folder_of_any_name(
    tmp_path: Path, make_world: Callable[..., World], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    moved = world.root.rename(tmp_path / name)
    world.root = moved
    world.log("monday", [*rows(20), *rows(5)])
    assert not said(world.run())
    world.log("tuesday", rows(30, logged_at=after(hours=3)))
    assert not said(world.run())
    assert world.everything_arrived_once(30)


def test_a_file_that_is_no_part_is_in_nobodys_way(staging: LocalStaging) -> None:
    part = finished(staging)
    staging.reveal(STREAM, part)
    (staging.root / "flights/inferences/_tidepost/scratch/.DS_Store").write_bytes(b"")
    staging.clear(STREAM, 1, 1)
    assert staging.leftovers(STREAM) == []


# ------------------------------------------------------------------------------------------------------- durability


def test_a_part_is_synced_before_it_is_seen_and_its_folder_after(
    staging: LocalStaging, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        done.append(f"rename {self.name} {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    part = finished(staging)
    staging.reveal(STREAM, part)
    moved = done.index("rename 00000.parquet 00000007-00000.parquet")
    assert "sync 00000.parquet" in done[:moved]
    assert "sync event_day=2024-05-01" in done[moved:]
    assert "sync data" in done[moved:]
    assert "sync inferences" in done[moved:]


# ------------------------------------------------------------------------------------------------- disks that fail


def test_a_file_where_a_folder_should_be_is_a_mistake_to_mend(tmp_path: Path) -> None:
    (tmp_path / "staging").write_bytes(b"somebody's file")
    staging = LocalStaging(tmp_path / "staging")
    for act in (lambda: staging.put("a/b", b"one"), lambda: staging.scratch(STREAM, 1, 1)):
        with pytest.raises(Misconfigured, match="staging") as error:
            act()
        assert "Nothing was lost" in error.value.safe


def test_a_file_where_the_streams_folder_should_be_is_a_mistake_to_mend(tmp_path: Path) -> None:
    staging = LocalStaging(tmp_path / "staging")
    part = finished(staging)
    (staging.root / "flights" / "inferences" / "data").write_bytes(b"somebody's file")
    with pytest.raises(Misconfigured, match="data"):
        staging.reveal(STREAM, part)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_or_failing_passes(
    staging: LocalStaging, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def failing(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(Retryable, match=os.strerror(number)) as error:
            staging.put("a/b", b"one")
        assert "Nothing was lost" in error.value.safe
        with pytest.raises(Retryable):
            finished(staging)
    assert staging.get("a/b") is None
    assert list(staging.list("a")) == []


LIMITED = """
import resource, sys, threading
from pathlib import Path
from tidepost.errors import TidepostError
from tidepost.model import Request, ScanKind
from tidepost.definition.project import load_project
from tidepost.run import run
from tidepost.wire import ledger_of, wire
import signal
root = Path(sys.argv[1])
project = load_project(root)
ledger = ledger_of(project)
world = wire(project, project.job("flights"), ledger, clock=lambda: float(sys.argv[2]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
outcome = run(world, Request("limited", ScanKind.INCREMENTAL), notice=lambda event: None, stop=threading.Event())
error = outcome.worst()
print(type(error).__name__, "|", str(error).replace(chr(10), " "))
"""


def test_a_disk_that_fills_up_while_rows_are_written_costs_nothing(world: World) -> None:
    world.define(limits={"cut_rows": 100_000})
    noisy = [one | {"note": os.urandom(12).hex()} for one in rows(20_000, every=1)]
    world.log("monday", noisy)
    world.run()  # so that the ledger, which grows too, is not what fills the disk
    world.log("tuesday", [one | {"id": f"again {one['id']}", "logged_at": after(hours=7)} for one in noisy])
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(world.root), str(world.now.timestamp())],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **world.env},
    )
    assert done.stdout.startswith("Retryable |"), done.stdout + done.stderr
    assert world.platform_rows() == 20_000
    assert not said(world.run())
    assert world.everything_arrived_once(40_000)


# ---------------------------------------------------------------------------------------------- what others may see


def test_nothing_but_whole_files_is_ever_seen_in_the_data(world: World) -> None:
    world.define(limits={"cut_rows": 200}, staging={"partition": "hour", "file_rows": 100})
    world.log("monday", rows(3000, every=20))
    data = world.staging.root / "flights" / "inferences" / "data"
    done = threading.Event()
    seen: dict[str, int] = {}
    wrong: list[Any] = []

    def watch() -> None:
        while not done.is_set():
            for path in data.rglob("*"):
                if path.is_dir():
                    continue
                try:
                    size, rows_there = path.stat().st_size, pq.read_metadata(path).num_rows
                except Exception as error:
                    wrong.append((path, error))
                    continue
                if path.suffix != ".parquet" or rows_there == 0 or seen.setdefault(str(path), size) != size:
                    wrong.append(path)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        outcome = world.run()
    finally:
        done.set()
        thread.join()
    assert not said(outcome)
    assert wrong == []
    assert seen
    assert world.everything_arrived_once(3000)


def test_drafts_of_those_who_died_are_removed_after_a_day(tmp_path: Path) -> None:
    staging, drafts = LocalStaging(tmp_path), tmp_path / "_tidepost" / "drafts"
    staging.put("flights/inferences/_tidepost/head.json", b"{}")
    assert list(drafts.iterdir()) == [], "nothing is left of what was finished"
    for name, hours in (("abandoned", 25), ("at work", 23)):
        (drafts / f".{name}").write_bytes(b"half")
        then = time.time() - hours * 3600
        os.utime(drafts / f".{name}", (then, then))
    staging.leftovers(STREAM)
    assert [path.name for path in drafts.iterdir()] == [".at work"]
