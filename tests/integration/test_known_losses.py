"""Ways in which tools of this kind are known to lose or double rows, by symptom, each with rows of its own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.world import NOW, SCHEMA, START, World, after, reasons, row, rows, said

from tidepost.errors import Misconfigured
from tidepost.events import Planned
from tidepost.model import Request, ScanKind
from tidepost.ranges import Range

LARGEST = 700_000_000
ALIKE = 300_000
CURSORS = {
    "ns": pa.timestamp("ns"),
    "us": pa.timestamp("us", "UTC"),
    "ms": pa.timestamp("ms", "UTC"),
    "s": pa.timestamp("s", "UTC"),
    "large": pa.int64(),
    "larger": pa.uint64(),
    "date": pa.date32(),
}
"""Kinds of cursors; a step is the smallest difference that each can hold."""
FIRST = {"large": 2**53, "larger": 2**63 - 100, "date": (START.date() - date(1970, 1, 1)).days}


def first_of(kind: str) -> int:
    """A value of the cursor in its own units, from which on steps are counted."""
    units = {"ns": 10**9, "us": 10**6, "ms": 10**3, "s": 1}
    return FIRST[kind] if kind in FIRST else int(START.timestamp()) * units[kind]


def position(kind: str, step: int) -> int:
    """The cursor's position at a step."""
    units = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
    return (first_of(kind) + step) * units.get(kind, 1)


def stepped(kind: str, steps: Sequence[int], *, first: int = 0) -> pa.Table:
    """Rows whose cursors lie that many steps after the first, made within one hour."""
    of = rows(len(steps), first=first, every=1.0)
    plain = pa.Table.from_pylist(of, schema=SCHEMA)
    values = [first_of(kind) + step for step in steps]
    whole = pa.array(values, pa.int32() if kind == "date" else pa.uint64() if kind == "larger" else pa.int64())
    return plain.append_column("seen", whole.cast(CURSORS[kind]))


def follow(world: World, kind: str) -> None:
    """Make the job follow a cursor of that kind."""
    start: object = "2024-05-01T00:00:00Z"
    if kind in FIRST:
        start = "2024-05-01" if kind == "date" else 0
    zone = "UTC" if kind == "ns" else None
    world.define(cursor={"column": "seen", "start": start, "settle": "0s", "timezone": zone})
    world.now = NOW + timedelta(days=30)


def backfill(world: World, start: int, end: int) -> int:
    """Scan a range of positions again; how many rows that returned."""
    request = Request(f"backfill {start}", ScanKind.BACKFILL, Range(start, end))
    return world.run(request).tally.scanned


# ------------------------------------------------------------------------------------------- where two ranges meet


@pytest.mark.parametrize("kind", CURSORS)
def test_a_row_one_step_after_the_last_one_is_not_rounded_away(world: World, kind: str) -> None:
    follow(world, kind)
    world.log("monday", stepped(kind, [0, 1, 2]))
    world.run()
    world.log("tuesday", stepped(kind, [3, 4], first=3))
    assert world.run().tally.scanned == 2
    world.log("wednesday", stepped(kind, [5], first=5))
    assert world.run().tally.scanned == 1
    assert world.everything_arrived_once(6)


@pytest.mark.parametrize("kind", CURSORS)
def test_backfills_of_adjacent_ranges_share_no_row_and_miss_none(world: World, kind: str) -> None:
    follow(world, kind)
    world.log("monday", stepped(kind, [0, 9, 10, 10, 11, 19, 20]))
    assert backfill(world, position(kind, 0), position(kind, 10)) == 2
    assert backfill(world, position(kind, 10), position(kind, 20)) == 4
    assert backfill(world, position(kind, 20), position(kind, 21)) == 1
    assert world.everything_arrived_once(7)


def test_very_many_rows_with_one_cursor_value_are_one_cut_in_bounded_memory(world: World) -> None:
    world.define(limits={"cut_rows": 1000}, destination={"loading": "1m"})
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            "COPY (SELECT 'inference-' || i AS id, TIMESTAMPTZ '2024-05-01 12:00:00Z' AS \"at\", "
            '"at" AS logged_at, '
            "i % 900 AS distance, 'UA' AS carrier, i % 101 / 100 AS score, 'note ' || i % 5000 AS note "
            f"FROM range({ALIKE}) AS r(i)) TO '{world.root}/log/alike.parquet'"
        )
    with world.spawned("alike", anew=True) as process:
        found = process.told()
    assert (found["errors"], found["cuts"], found["published"]) == ([], 1, ALIKE)
    assert found["peak"] < LARGEST
    assert world.everything_arrived_once(ALIKE)


# ------------------------------------------------------------------------------------------------- rows unread


def test_rows_without_a_cursor_are_told_at_every_run_and_arrive_once_they_have_one(world: World) -> None:
    stamped = rows(10)
    bare = rows(3, first=10, logged_at=None)
    world.log("monday", [*stamped, *bare])
    assert world.run().tally.null_cursors == 3
    world.log("tuesday", rows(5, first=20, at=after(hours=2)))
    world.run()
    (planned,) = (event for event in world.events if isinstance(event, Planned))
    assert planned.null_cursors == 3
    world.log("monday", [*stamped, *(one | {"logged_at": after(hours=3)} for one in bare)])
    assert world.run().tally.published == 3
    assert world.everything_arrived_once(18)


# ------------------------------------------------------------------------------------------------- state lost


def test_without_its_ledger_a_job_refuses_instead_of_sending_everything_again(world: World) -> None:
    world.log("monday", rows(50))
    world.run()
    for path in (world.root / ".tidepost").glob("ledger.db*"):
        path.unlink()
    world.log("tuesday", rows(50, first=50, at=after(hours=2)))
    for _ in range(2):
        with pytest.raises(Misconfigured, match="tidepost ledger rebuild flights"):
            world.run()
    assert world.platform_rows() == 50


# ------------------------------------------------------------------------------------------------- files that rotate


def test_a_file_that_is_appended_to_while_runs_go_on_is_followed(world: World) -> None:
    so_far: list[dict[str, Any]] = []
    for hour in range(5):
        so_far += rows(7, first=7 * hour, at=after(hours=hour))
        world.log("current", so_far)
        world.now = after(hours=hour + 0.9)
        assert world.run().tally.scanned == 7
    assert world.everything_arrived_once(35)


@pytest.mark.parametrize(("missing", "readable"), [(1, True), (40, False)])
def test_a_line_that_is_only_half_written_costs_no_row_and_no_digit(
    world: World, missing: int, readable: bool
) -> None:
    columns = [name for name in SCHEMA.names if name != "note"]
    world.define(source={"files": "log/*.csv", "format": "csv"}, mapping={"non_inputs": None})
    lines = [",".join(str(one[name]) for name in columns) for one in rows(40, score=0.75)]
    path = world.root / "log" / "current.csv"
    path.write_text("\n".join([",".join(columns), *lines[:21]])[:-missing])
    world.now = after(minutes=25)
    if readable:
        assert world.run().tally.published == 15
    else:
        with pytest.raises(Misconfigured):
            world.run()
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    world.now = NOW
    assert not said(world.run())
    assert world.everything_arrived_once(40)
    assert set(world.values("score").values()) == {0.75}


def test_a_file_named_by_its_hour_may_hold_rows_of_the_next(world: World) -> None:
    """A rotation by the clock of whoever writes: what belongs where is told by the rows, never by names."""
    world.log("2024-05-01-12", rows(10, at=after(minutes=55)))
    world.now = after(minutes=75)
    world.run()
    world.log("2024-05-01-13", rows(10, first=10, at=after(minutes=65)))
    world.log("2024-05-01-12", [*rows(10, at=after(minutes=55)), *rows(5, first=20, at=after(minutes=80))])
    world.now = NOW
    assert world.run().tally.published == 15
    assert world.everything_arrived_once(25)


# ------------------------------------------------------------------------------------------------- time zones


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_times_without_zone_are_of_the_declared_zone_whatever_the_processs_own(
    world: World, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    naive = [(name, pa.timestamp("us")) if name in ("at", "logged_at") else (name, of) for name, of in _fields()]
    bare = [
        {**one, "at": one["at"].replace(tzinfo=None), "logged_at": one["logged_at"].replace(tzinfo=None)}
        for one in rows(60)
    ]
    world.define(
        cursor={"timezone": "Europe/Berlin", "start": "2024-05-01T00:00:00+02:00", "settle": "0s"},
        mapping={"inference_timestamp": {"column": "at", "timezone": "Europe/Berlin"}},
    )
    world.log("monday", pa.Table.from_pylist(bare, schema=pa.schema(naive)))
    monkeypatch.setenv("TZ", zone)
    world.now = START - timedelta(hours=2) + timedelta(minutes=29, seconds=30)
    with world.spawned("half", anew=True) as process:
        assert process.told()["published"] == 30
    world.now = NOW
    with world.spawned("rest", anew=True) as process:
        assert process.told()["published"] == 30
    assert world.everything_arrived_once(60)
    assert world.mark() == "2024-05-01T10:59:00.000001Z"
    at = {key: datetime.fromisoformat(value) for key, value in world.values("inference_timestamp").items()}
    assert at == {one["id"]: one["at"] - timedelta(hours=2) for one in rows(60)}


def _fields() -> list[tuple[str, pa.DataType]]:
    return [(field.name, field.type) for field in SCHEMA]


# ------------------------------------------------------------------------------------------------- bulk updates


def test_a_bulk_update_that_stamps_all_rows_anew_sends_nothing_twice(world: World) -> None:
    before = rows(200)
    world.log("monday", before)
    world.define(limits={"rejects": "100%"})
    world.run()
    again = [one | {"logged_at": after(hours=6)} for one in before]
    again[7] = again[7] | {"score": 0.123}
    world.log("monday", [*again, row(900, after(hours=6))])
    outcome = world.run()
    assert not said(outcome)
    assert (outcome.tally.published, outcome.tally.duplicates, outcome.tally.rejects) == (1, 199, 1)
    assert reasons(world.rejects()) == {"r000007": "changed_after_sent"}
    assert world.everything_arrived_once(201)
    assert world.values("score")["r000007"] == before[7]["score"]
