"""A ledger lost: what the staging holds is enough to go on, and nothing is lost or doubled by it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import create_engine, select
from tests.crash.child import Job as Run
from tests.crash.child import work
from tests.crash.fuse import Fuse, arm
from tests.forkserver import forkserver
from tests.postgres import NewUrl, new_ledger, postgres  # noqa: F401 - fixtures
from tests.world import ATTRIBUTES, START, Platform, World, after, ns, row, rows, said, table

from tidepost.cli import main
from tidepost.cursor import HOUR
from tidepost.definition.project import load_project
from tidepost.delivery.deliver import Courier
from tidepost.engine import Engine
from tidepost.errors import Misconfigured, Retryable
from tidepost.ledger.schema import metadata
from tidepost.ledger.sql import SqlLedger
from tidepost.model import Proof, StreamName
from tidepost.ranges import Range
from tidepost.recovery.acts import Move, Word, release, set_frontier, skip
from tidepost.recovery.rebuild import Rebuilt, look, rebuild
from tidepost.rows.rejects import read_rejects, rejects_key
from tidepost.sandbox.settings import Fault
from tidepost.staging.local import LocalStaging
from tidepost.wire import ledger_of, staging_of

SEED = 20240501
TRIALS = 3
CUTS = 2
ROWS = 12
SECONDS = 60.0
AT_ONCE = 3
FOLDER = "flights/inferences/_tidepost"
STRICT = tuple((name, kind, "PREDICTED_VALUE" if name == "note" else stage) for name, kind, stage in ATTRIBUTES)
"""A model that refuses rows without a note."""


def rebuilt(root: Path, job: str = "flights") -> list[Rebuilt]:
    """Rebuild the ledger of a project's job, as the command does."""
    project = load_project(root)
    definition, staging = project.job(job), staging_of(project)
    ledger = ledger_of(project)
    try:
        return [
            rebuild(
                definition,
                found,
                ledger,
                staging=staging,
                records=staging,
                engine=Engine(200_000_000, 1, root / "spill"),
                who="somebody",
                at=0.0,
            )
            for found in list(look(definition, staging, ledger))
        ]
    finally:
        ledger.close()


def rebuild_in_child(root: Path, at: int | None, told: Any) -> None:
    """Rebuild in this process, which is killed at a point, or tells the points that it passed."""
    fuse = Fuse(at)
    arm(fuse)
    rebuilt(root)
    told.put(fuse.passed)
    told.close()
    told.join_thread()


def lose(root: Path) -> None:
    """The ledger is gone, with all that belongs to it."""
    for path in (root / ".tidepost").glob("ledger.db*"):
        path.unlink()


def record(world: World, name: str) -> Path:
    """A file beside the data."""
    return world.staging.root / FOLDER / name


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    return forkserver()


@contextmanager
def never_finished(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No manifest can be written: a slice stays between its first visible file and its end."""
    plain = LocalStaging.put

    def put(self: LocalStaging, key: str, data: bytes, *, absent: bool = False) -> bool:
        if "/manifests/" in key:
            raise OSError("gone")
        return plain(self, key, data, absent=absent)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStaging, "put", put)
        yield


# --------------------------------------------------------------------------------------- what is as it was before


def test_after_a_rebuild_all_is_as_it_was_and_the_next_run_goes_on(world: World) -> None:
    world.define(limits={"rejects": "50%"})
    world.log("monday", [*rows(1500, every=30), row(5, after(minutes=2.5)), row(9000, after(hours=3), score=None)])
    world.run()
    before, mark, stream = world.summary(), world.mark(), world.stream()
    lose(world.root)
    with pytest.raises(Misconfigured, match="tidepost ledger rebuild flights"):
        world.run()
    (done,) = rebuilt(world.root)
    assert (done.slices, done.rows, done.half, done.strangers) == (before.slices, 1500, None, ())
    assert done.deliveries == {"arthur": {"sent": before.slices}}
    again = world.stream()
    assert (again.published, again.allotted, again.pinned) == (stream.published, stream.allotted, stream.pinned)
    world.log("tuesday", rows(10, first=1500, at=after(hours=20)))
    outcome = world.run()
    assert not said(outcome)
    assert (outcome.slices, outcome.tally.published, outcome.tally.duplicates) == (1, 10, 0)
    assert world.everything_arrived_once(1510)
    assert world.mark() > mark
    now = world.summary()
    assert (now.duplicates, now.rejected) == (before.duplicates, before.rejected)
    assert now.destinations[0].arrived == 1510


def test_the_rebuild_is_in_the_history(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    with world.ledger() as ledger:
        old = ledger.id
    lose(world.root)
    rebuilt(world.root)
    with world.ledger() as ledger:
        (entry,) = ledger.reports.audit("flights")
        assert entry.who == "somebody"
        assert entry.what == "rebuilt inferences"
        assert old in entry.old
        assert ledger.id in entry.new
        assert "slices: 1, rows: 10; at arthur 1 sent" in entry.new


def test_a_ledger_that_agrees_with_its_staging_is_left_alone(world: World) -> None:
    world.log("monday", rows(10))
    assert not rebuilt(world.root)
    world.run()
    assert not rebuilt(world.root)
    lose(world.root)
    assert rebuilt(world.root)
    assert not rebuilt(world.root)


def test_the_columns_are_pinned_as_the_first_slice_had_them(make_world: Callable[..., World]) -> None:
    types = {
        "tiny": (pa.int8(), "INTEGER"),
        "small": (pa.int16(), "INTEGER"),
        "plain": (pa.int32(), "INTEGER"),
        "half": (pa.float32(), "FLOAT"),
        "flag": (pa.bool_(), "BOOLEAN"),
        "seen": (pa.timestamp("ns", "UTC"), "TIMESTAMP"),
    }
    attributes = [(name, value_type, "NON_INPUT_DATA") for name, (_, value_type) in types.items()]
    world = make_world(attributes=[*ATTRIBUTES, *attributes])
    world.define(mapping={"non_inputs": ["note", *types]})
    log = table(rows(10))
    for name, (kind, _) in types.items():
        log = log.append_column(name, pa.nulls(10, kind))
    world.log("monday", log)
    assert not said(world.run())
    before = world.stream().pinned
    assert {"TINYINT", "SMALLINT", "INTEGER", "FLOAT", "BOOLEAN", "TIMESTAMP WITH TIME ZONE"} <= set(before.values())
    lose(world.root)
    rebuilt(world.root)
    assert world.stream().pinned == before


def test_a_range_that_was_scanned_and_had_nothing_new_is_scanned_again_and_nothing_is_sent(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    world.log("again", [row(n, after(minutes=n), logged_at=after(hours=6, minutes=n)) for n in range(10)])
    assert world.run().tally.duplicates == 10
    lose(world.root)
    rebuilt(world.root)
    outcome = world.run()
    assert (outcome.slices, outcome.tally.duplicates, outcome.tally.known) == (0, 10, 10)
    assert world.everything_arrived_once(10)


# ------------------------------------------------------------------------------------- what was on its way, and held


def test_a_slice_that_never_left_is_sent_after_a_rebuild(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def later(*_: object) -> None:
        raise Retryable("later")

    world.log("monday", rows(10))
    with monkeypatch.context() as patched:
        patched.setattr(Courier, "pick_up", later)
        world.run()
    assert not record(world, "intents").exists()
    lose(world.root)
    assert rebuilt(world.root)[0].deliveries == {"arthur": {"todo": 1}}
    assert not said(world.run())
    assert world.everything_arrived_once(10)


def test_a_send_that_provably_did_not_land_is_repeated_after_a_rebuild(world: World) -> None:
    world.define(destination={"retries": 0})
    world.platform.process.fault(Fault("throttle", kind="file", count=1, retry_after=0))
    world.log("monday", rows(10))
    world.run()
    assert world.states() == {"todo": 1}
    lose(world.root)
    assert rebuilt(world.root)[0].deliveries == {"arthur": {"todo": 1}}
    assert not said(world.run())
    assert world.everything_arrived_once(10)
    assert record(world, "receipts/00000001-00000.arthur.2.json").exists()


def test_what_may_have_arrived_is_asked_about_and_not_sent_again(world: World) -> None:
    world.define(limits={"cut_rows": 5}, destination={"retries": 0})
    world.log("monday", rows(10))
    world.platform.process.fault(Fault("lose_reply", kind="file", count=1))
    world.platform.process.fault(Fault("fail", kind="query"))
    world.run()
    world.platform.reset()
    assert not record(world, "receipts/00000001-00000.arthur.1.json").exists()
    lose(world.root)
    (done,) = rebuilt(world.root)
    assert done.deliveries["arthur"]["unknown"] == 1  # type: ignore[index]
    assert not said(world.run())
    assert world.everything_arrived_once(10)


def test_rows_that_were_refused_stay_refused_and_can_be_corrected(make_world: Callable[..., World]) -> None:
    world = make_world(attributes=STRICT)
    world.define(limits={"rejects": "90%"}, destination={"loading": "1s"})
    world.log("monday", rows(20))
    world.run()
    before = world.summary().destinations[0]
    assert (before.arrived, before.refused) == (17, 3)
    lose(world.root)
    rebuilt(world.root)
    with world.ledger() as ledger:
        hours = Range(ns(START) // HOUR, ns(START) // HOUR + 1)
        assert sum(ledger.reports.expected(world.stream(), "arthur", hours).values()) == 17
    assert not said(world.run())
    again = world.summary().destinations[0]
    assert (again.arrived, again.refused) == (17, 3)
    assert world.everything_arrived_once(17)
    world.log("corrected", [one | {"note": "mended"} for one in rows(20, logged_at=after(hours=3))])
    assert world.run().tally.published == 3
    assert world.everything_arrived_once(20)


def test_a_held_slice_stays_held(world: World) -> None:
    world.log("monday", [row(n, after(minutes=n), score=None if n % 2 else 0.5) for n in range(10)])
    world.run()
    lose(world.root)
    rebuilt(world.root)
    with world.ledger() as ledger:
        (held,) = ledger.deliveries.held(world.stream(), "arthur")
        assert "5 of 10 rows rejected" in held.reason
        ledger.deliveries.release(world.stream(), 1, who="somebody", why="tests")
    world.run()
    assert world.everything_arrived_once(5)


def test_a_slice_that_was_released_and_sent_is_not_held_again(world: World) -> None:
    world.log("monday", [row(n, after(minutes=n), score=None if n % 2 else 0.5) for n in range(10)])
    world.run()
    with world.ledger() as ledger:
        ledger.deliveries.release(world.stream(), 1, who="somebody", why="tests")
    world.run()
    lose(world.root)
    rebuilt(world.root)
    assert world.states() == {"sent": 1}
    world.run()
    assert world.everything_arrived_once(5)


def test_a_slice_that_was_released_and_not_sent_yet_is_not_held_again(world: World) -> None:
    world.log("monday", [row(n, after(minutes=n), score=None if n % 2 else 0.5) for n in range(10)])
    world.run()
    let_go(world)
    lose(world.root)
    rebuilt(world.root)
    assert world.states() == {"todo": 1}
    world.run()
    assert world.everything_arrived_once(5)


@pytest.mark.parametrize(("arrived", "there"), [(None, 10), (True, 10), (False, 20)])
def test_what_was_decided_about_a_send_without_an_answer_is_decided_still(
    world: World, arrived: bool | None, there: int
) -> None:
    world.shows = Proof.RECEIPT
    world.platform.process.fault(Fault("lose_reply", kind="file", count=1))
    world.log("monday", rows(10))
    world.run()
    if arrived is not None:
        let_go(world, arrived=arrived)
    lose(world.root)
    rebuilt(world.root)
    world.run()
    assert world.states() == {"held" if arrived is None else "closed": 1}
    assert world.platform_rows() == there


def test_what_was_sent_after_a_release_and_not_answered_is_held_after_a_rebuild(world: World) -> None:
    world.shows = Proof.RECEIPT
    world.log("monday", rows(10))
    for _ in range(2):
        world.platform.process.fault(Fault("lose_reply", kind="file", count=1))
        world.run()
        if world.platform_rows() == 10:
            let_go(world)
    lose(world.root)
    rebuilt(world.root)
    assert world.states() == {"held": 1}


def let_go(world: World, *, arrived: bool = False) -> None:
    with world.ledger() as ledger:
        release(ledger, world.staging, world.stream(), 1, Word("somebody", 1.0, "tests"), arrived=arrived)


def test_a_file_that_was_refused_whole_is_held_again(world: World) -> None:
    world.platform.process.fault(Fault("fail", kind="file", status=400, count=1))
    world.log("monday", rows(10))
    world.run()
    with world.ledger() as ledger:
        (before,) = ledger.deliveries.held(world.stream(), "arthur")
    lose(world.root)
    rebuilt(world.root)
    with world.ledger() as ledger:
        (held,) = ledger.deliveries.held(world.stream(), "arthur")
    assert (held.sequence, held.reason) == (before.sequence, before.reason)


def test_what_was_half_published_is_removed_and_comes_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.define(limits={"cut_rows": 5})
    world.log("monday", rows(5))
    world.run()
    world.log("tuesday", rows(5, first=5, at=after(hours=5)))
    with never_finished(monkeypatch), pytest.raises(OSError, match="gone"):
        world.run()
    assert [path.name for path in world.files()] == ["00000001-00000.parquet", "00000002-00000.parquet"]
    (world.staging.root / FOLDER / "scratch" / "00000099-7").mkdir(parents=True)
    lose(world.root)
    (done,) = rebuilt(world.root)
    assert (done.half, done.slices) == (2, 1)
    assert [path.name for path in world.files()] == ["00000001-00000.parquet"]
    with world.ledger() as ledger:
        assert "slice 2 was half-published and removed" in ledger.reports.audit("flights")[-1].new
    assert not said(world.run())
    assert world.everything_arrived_once(10)
    assert [path.name for path in world.files()] == ["00000001-00000.parquet", "00000003-00000.parquet"]
    assert not list(world.staging.root.rglob("scratch/*"))


# ------------------------------------------------------------------------------------------- killed, and done again


def scattered(world: World, context: ForkServerContext, chance: random.Random, kills: int) -> None:
    """Runs of a log that grows, each killed somewhere."""
    for kill in range(kills):
        world.log(f"hour-{kill}", rows(ROWS, first=kill * ROWS, at=after(hours=kill)))
        run_in_child(world, context, f"kill {kill}", chance.randint(20, 150))


def run_in_child(world: World, context: ForkServerContext, key: str, at: int | None) -> int | None:
    told = context.Queue()
    job = Run(world.root, world.env, world.now.timestamp(), key, at)
    child = context.Process(target=work, args=(job, told))
    child.start()
    if at is None:
        told.get(timeout=SECONDS)
    child.join(SECONDS)
    code = child.exitcode
    child.close()
    told.close()
    return code


def rebuild_killed(root: Path, context: ForkServerContext, at: int | None) -> list[str]:
    """Rebuild in a child that is killed at a point; the points that it passed, if it lives."""
    told = context.Queue()
    child = context.Process(target=rebuild_in_child, args=(root, at, told))
    child.start()
    passed: list[str] = told.get(timeout=SECONDS) if at is None else []
    child.join(SECONDS)
    assert child.exitcode in ((0,) if at is None else (0, -9))
    child.close()
    told.close()
    return passed


def survives(root: Path, platform: Platform, context: ForkServerContext, seed: int) -> None:
    chance = random.Random(seed)
    world = World.make(root, platform)
    world.define(limits={"cut_rows": ROWS}, destination={"loading": "1s", "poll": "1s"})
    scattered(world, context, chance, CUTS)
    lose(world.root)
    rebuild_killed(world.root, context, chance.randint(1, 20))
    rebuilt(world.root)
    assert run_in_child(world, context, "the end", None) == 0
    assert world.everything_arrived_once(CUTS * ROWS)
    assert not list(world.staging.root.rglob("scratch/*"))
    assert run_in_child(world, context, "another", None) == 0
    assert world.everything_arrived_once(CUTS * ROWS)


def test_runs_killed_anywhere_a_ledger_lost_and_a_rebuild_killed_lose_and_double_nothing(
    context: ForkServerContext, tmp_path: Path, platform: Platform
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        trials = {
            seed: pool.submit(survives, tmp_path / str(seed), platform, context, seed)
            for seed in range(SEED, SEED + TRIALS)
        }
    lost = {seed: error for seed, trial in trials.items() if (error := trial.exception()) is not None}
    assert not lost, "\n".join(f"{seed}: {error!r}"[:400] for seed, error in lost.items())


def content(root: Path) -> dict[str, list[Any]]:
    """All that a ledger says, but for its id and its times."""
    engine = create_engine(f"sqlite:///{root}/.tidepost/ledger.db")
    clock = {"at", "done_at", "begun_at", "published_at", "created_at", "changed_at", "closed_at", "answered_at"}
    try:
        with engine.connect() as connection:
            return {
                table.name: [
                    {key: value for key, value in one.items() if key not in clock}
                    for one in connection.execute(select(table).order_by(*table.primary_key)).mappings()
                ]
                for table in metadata.sorted_tables
                if table.name not in ("ledger", "audit")
            }
    finally:
        engine.dispose()


def test_a_rebuild_killed_at_any_effect_ends_like_one_that_was_not(
    world: World, context: ForkServerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.define(limits={"cut_rows": 5, "rejects": "50%"}, destination={"retries": 0, "loading": "1s"})
    world.platform.process.fault(Fault("lose_reply", kind="file", count=1))
    world.log("monday", [*rows(10), row(100, after(minutes=3), score=None)])
    world.run()
    world.log("tuesday", [*rows(5, first=10, at=after(hours=5)), row(101, after(hours=5), score=None)])
    with never_finished(monkeypatch), pytest.raises(OSError, match="gone"):
        world.run()
    lose(world.root)

    def copied(name: str) -> Path:
        return shutil.copytree(world.root, tmp_path / "copies" / name)

    points = rebuild_killed(copied("whole"), context, None)
    assert {"before commit", "after commit", "before unlink", "before replace"} <= set(points)
    whole = content(tmp_path / "copies" / "whole")
    visible = sorted(path.name for path in (tmp_path / "copies" / "whole").rglob("*.parquet"))

    def killed(at: int) -> None:
        root = copied(f"at-{at}")
        rebuild_killed(root, context, at)
        rebuilt(root)
        assert content(root) == whole
        assert sorted(path.name for path in root.rglob("*.parquet")) == visible
        assert not rebuilt(root)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        trials = {at: pool.submit(killed, at) for at in range(1, len(points) + 1)}
    lost = {at: error for at, trial in trials.items() if (error := trial.exception()) is not None}
    assert not lost, "\n".join(f"{at} {points[at - 1]}: {error!r}"[:600] for at, error in lost.items())


# ----------------------------------------------------------------------------------------- what cannot be rebuilt


def damaged(text: str) -> str:
    return text[: len(text) // 2]


def newer(text: str) -> str:
    return json.dumps(json.loads(text) | {"version": 2})


def without_rows(text: str) -> str:
    content = json.loads(text)
    content["parts"][0]["rows"] -= 1
    return json.dumps(content)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("manifests/00000001.json", damaged, "is damaged"),
        ("manifests/00000001.json", newer, "was written by a newer tidepost"),
        ("manifests/00000001.json", without_rows, "is damaged"),
        ("manifests/00000001.json", None, "is missing"),
        ("intents/00000001-00000.arthur.1.json", damaged, "is damaged"),
        ("intents/00000001-00000.arthur.1.json", None, "intent is missing"),
        ("receipts/00000001-00000.arthur.1.json", damaged, "is damaged"),
        ("head.json", damaged, "is damaged"),
    ],
)
def test_a_record_that_cannot_be_read_is_named_and_nothing_is_changed(
    world: World, name: str, change: Callable[[str], str] | None, reason: str
) -> None:
    world.log("monday", rows(10))
    world.run()
    lose(world.root)
    path = record(world, name)
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()))
    with pytest.raises(Misconfigured, match=reason) as refused:
        rebuilt(world.root)
    assert path.name in str(refused.value)
    with world.ledger() as ledger:
        assert ledger.plans.find("flights", StreamName.INFERENCES) is None
    assert len(world.files()) == 1


def test_a_ledger_without_a_head_to_compare_with_refuses_too(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    record(world, "head.json").unlink()
    assert world.run().slices == 0
    lose(world.root)
    with pytest.raises(Misconfigured, match="tidepost ledger rebuild flights"):
        world.run()
    rebuilt(world.root)
    assert not said(world.run())
    assert world.everything_arrived_once(10)


def test_an_older_copy_is_not_completed_but_moved_away(world: World) -> None:
    ledger = world.root / ".tidepost" / "ledger.db"
    world.log("monday", rows(10))
    world.run()
    kept = ledger.read_bytes()
    world.log("tuesday", rows(10, first=10, at=after(hours=5)))
    world.run()
    lose(world.root)
    ledger.write_bytes(kept)
    with pytest.raises(Misconfigured, match="Move this ledger's files to another folder") as refused:
        world.run()
    assert "tidepost ledger rebuild flights" in str(refused.value)
    with pytest.raises(Misconfigured, match="holds slice 2") as refused:
        rebuilt(world.root)
    assert "Move that ledger away" in str(refused.value)
    lose(world.root)
    assert rebuilt(world.root)[0].slices == 2
    assert not said(world.run())
    assert world.everything_arrived_once(20)


def test_the_ledger_that_was_lost_is_refused_when_it_comes_back(world: World) -> None:
    ledger = world.root / ".tidepost" / "ledger.db"
    world.log("monday", rows(10))
    world.run()
    kept = ledger.read_bytes()
    lose(world.root)
    rebuilt(world.root)
    lose(world.root)
    ledger.write_bytes(kept)
    for act in (world.run, lambda: rebuilt(world.root)):
        with pytest.raises(Misconfigured, match="written by another ledger"):
            act()


# -------------------------------------------------------------------------------- several jobs, several databases


def test_jobs_are_rebuilt_one_by_one_also_while_others_run_already(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cuts are numbered by the ledger over all of its jobs, and rejects are kept by those numbers."""
    name, model = world.platform.register()
    world.define(limits={"rejects": "50%", "cut_rows": 5})
    others = json.loads(json.dumps(world.job)) | {"name": "others", "source": "log/others/*.parquet"}
    others["destination"]["model"] = name
    (world.root / "jobs" / "others.yaml").write_text(json.dumps(others))
    (world.root / "log" / "others").mkdir()
    for variable, value in world.env.items():
        monkeypatch.setenv(variable, value)
    run_others = ("run", "others", "--project", str(world.root), "--now", world.now.isoformat())
    bad = [row(n, after(minutes=n), score=None if n % 5 == 0 else 0.5) for n in range(10)]
    world.log("monday", bad)
    world.log("others/monday", bad)
    world.run()
    assert main(run_others) == 0
    lose(world.root)
    rebuilt(world.root)
    world.log("tuesday", [one | {"id": f"again {one['id']}", "logged_at": after(hours=3)} for one in bad])
    world.run()
    rebuilt(world.root, "others")
    with world.ledger() as ledger:
        for job in ("flights", "others"):
            stream = ledger.plans.find(job, StreamName.INFERENCES)
            assert stream is not None
            for cut in ledger.reports.rejects(stream):
                kept = read_rejects(world.staging, rejects_key(stream, cut.cut))
                assert kept.num_rows == sum(cut.reasons.values())
    assert main(run_others) == 0
    assert world.platform.process.model_stats(model)["rows"] == 8
    assert world.everything_arrived_once(16)


def test_a_ledger_on_postgresql_is_rebuilt_and_goes_on_counting(world: World, new_ledger: NewUrl) -> None:  # noqa: F811
    def use() -> None:
        (world.root / "tidepost.yaml").write_text(f"version: 1\nledger: {new_ledger()}\n")

    use()
    world.define(limits={"cut_rows": 5})
    world.log("monday", rows(10))
    world.run()
    use()
    with pytest.raises(Misconfigured, match="tidepost ledger rebuild flights"):
        world.run()
    assert rebuilt(world.root)[0].deliveries == {"arthur": {"sent": 2}}
    assert not rebuilt(world.root)
    world.log("tuesday", rows(10, first=10, at=after(hours=5)))
    assert not said(world.run())
    assert world.everything_arrived_once(20)


# ------------------------------------------------------------------------------------------- what was done by hand


def test_what_was_decided_by_hand_is_decided_still(world: World) -> None:
    """A slice that was skipped, ranges that were marked and unmarked: they are in the staging too."""
    world.define(limits={"cut_rows": 5})
    world.log("monday", rows(5))
    world.run()
    world.log("tuesday", [row(n, after(hours=5, minutes=n), score=None if n % 2 else 0.5) for n in range(5, 10)])
    world.run()
    world.log("by another tool", rows(5, first=10, at=after(hours=10)))
    with world.wired() as wired:
        stream, word = world.stream(), Word("somebody", 1.0, "tests")
        (held,) = wired.ledger.deliveries.held(stream, "arthur")
        ledger: SqlLedger = wired.ledger  # type: ignore[assignment]
        skip(ledger, wired.records, stream, held, word)
        for move in (Move(ns(after(hours=11)), ns(START)), Move(ns(after(hours=10, minutes=3)))):
            covered = ledger.plans.coverage(stream)
            set_frontier(ledger, wired.records, stream, move, word, coverage=covered, old="here", new="there")
    before = world.summary()
    lose(world.root)
    rebuilt(world.root)
    after_it = world.summary()
    assert after_it.scanned == before.scanned
    assert world.states() == {"sent": 1, "closed": 1}
    with world.ledger() as found:
        assert [one.what for one in found.reports.audit("flights")] == [
            "skipped slice 2 of inferences at arthur",
            "set the frontier of inferences",
            "set the frontier of inferences",
            "rebuilt inferences",
        ]
    world.run()
    assert world.platform_rows() == 5 + 2
    assert world.states() == {"closed": 3}
