"""Whole runs on a real platform that keeps repeats, so that whatever is sent twice shows."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from tests.world import NOW, SCHEMA, START, World, after, eventually, row, rows, said

from tidepost import run as engine
from tidepost.errors import Misconfigured, Retryable
from tidepost.events import CutStaged, Event, Planned, Settled
from tidepost.model import DeliveryState, Request, ScanKind
from tidepost.sandbox.settings import Fault


def bound(world: World) -> str | None:
    (planned,) = (event for event in world.events if isinstance(event, Planned))
    return planned.bound


# ------------------------------------------------------------------------------------------------------ run after run


def test_a_first_run_uploads_the_log(world: World) -> None:
    world.log("monday", rows(1200))
    outcome = world.run()
    assert not said(outcome)
    assert (outcome.tally.published, outcome.arrived, outcome.held) == (1200, 1200, 0)
    assert world.everything_arrived_once(1200)


def test_the_values_arrive_as_they_were_logged(world: World) -> None:
    logged = rows(30)
    world.log("monday", logged)
    world.run()
    for name in ("distance", "carrier", "score", "note"):
        assert world.values(name) == {one["id"]: one[name] for one in logged}


def test_a_second_run_uploads_nothing(world: World) -> None:
    world.log("monday", rows(100))
    world.run()
    outcome = world.run()
    assert (outcome.cuts, outcome.slices, outcome.errors) == (0, 0, [])
    assert world.everything_arrived_once(100)


def test_what_the_log_grew_by_is_uploaded_alone(world: World) -> None:
    world.log("monday", rows(100))
    world.run()
    world.log("tuesday", rows(50, first=100, at=after(hours=10)))
    outcome = world.run()
    assert outcome.tally.scanned == 50
    assert world.everything_arrived_once(150)


def test_a_file_that_grew_is_uploaded_from_where_it_stood(world: World) -> None:
    world.log("monday", rows(100))
    world.run()
    world.log("monday", rows(160))
    outcome = world.run()
    assert outcome.tally.scanned == 60
    assert world.everything_arrived_once(160)


def test_rows_younger_than_settle_wait(world: World) -> None:
    world.log("monday", rows(60))
    world.now = after(minutes=40)
    assert world.run().tally.published == 30
    world.now = after(minutes=50)
    assert world.run().tally.published == 10
    world.now = after(hours=2)
    assert world.run().tally.published == 20
    assert world.everything_arrived_once(60)


def test_rows_logged_before_the_start_are_left_alone(world: World) -> None:
    world.define(cursor={"start": "2024-05-01T12:30:00Z"})
    world.log("monday", rows(60))
    world.run()
    assert world.ids() == [f"r{number:06d}" for number in range(30, 60)]


def test_a_range_that_was_empty_at_the_end_is_scanned_when_it_fills(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    mark = world.mark()
    world.now = NOW + timedelta(days=3)
    world.run()
    assert world.mark() == mark
    world.log("late loader", rows(10, first=10, at=after(minutes=30)))
    world.run()
    assert world.everything_arrived_once(20)


def test_many_cuts_go_out_in_the_order_of_the_cursor(world: World) -> None:
    world.define(limits={"cut_rows": 200})
    world.log("monday", rows(1000, every=30))
    outcome = world.run()
    assert outcome.slices == 5
    (planned,) = (event for event in world.events if isinstance(event, Planned))
    starts = [cut.range.start for cut in planned.cuts]
    assert starts == sorted(starts)
    assert world.everything_arrived_once(1000)


def test_the_mark_is_just_past_the_last_row(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    assert world.mark() == "2024-05-01T12:09:00.000001Z" == bound(world)


def test_every_slice_lies_in_the_folder_of_its_day(world: World) -> None:
    world.log("monday", rows(100, at=datetime(2024, 5, 1, 23, tzinfo=UTC)))
    world.run()
    folders = [path.parent.name for path in world.files()]
    assert folders == ["event_day=2024-05-01", "event_day=2024-05-02"]


def test_a_request_that_was_asked_before_is_answered_with_the_same_cuts(world: World) -> None:
    asked = Request("dag/run-1/abc", ScanKind.INCREMENTAL)
    world.log("monday", rows(10))
    world.run(asked)
    world.log("tuesday", rows(10, first=10, at=after(hours=5)))
    assert world.run(asked).cuts == 0
    assert world.everything_arrived_once(10)


# --------------------------------------------------------------------------------------------------- kinds of sources


def test_a_source_without_rows_moves_nothing(world: World) -> None:
    world.log("monday", [])
    outcome = world.run()
    assert (outcome.cuts, outcome.errors, bound(world)) == (0, [], None)
    assert world.mark() == "2024-05-01T00:00:00Z"


def test_a_glob_that_matches_no_file_names_the_pattern(world: World) -> None:
    with pytest.raises(Misconfigured, match=r"source\.files: nothing matches .*log/\*\.parquet"):
        world.run()


def test_csv_files_are_uploaded(world: World) -> None:
    world.define(source="log/*.csv.gz")
    path = world.root / "log" / "monday.csv.gz"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("logged", pa.Table.from_pylist(rows(50), schema=SCHEMA))
        connection.execute(f"COPY logged TO '{path}' (HEADER, COMPRESSION gzip)")
    outcome = world.run()
    assert not said(outcome)
    assert world.everything_arrived_once(50)


def test_a_table_of_a_duckdb_file_is_uploaded(world: World) -> None:
    in_a_database(world, rows(50))
    world.define(source={"table": "inferences", "database": "log.duckdb"})
    world.run()
    assert world.everything_arrived_once(50)


def test_a_query_is_uploaded(world: World) -> None:
    in_a_database(world, rows(50))
    query = "SELECT * REPLACE (upper(carrier) AS carrier) FROM inferences WHERE distance >= 110 -- the long ones"
    world.define(source={"query": query, "database": "log.duckdb"})
    world.run()
    assert world.everything_arrived_once(40)


def test_a_query_that_says_where_its_range_goes_is_uploaded(world: World) -> None:
    in_a_database(world, [*rows(50), *rows(50)])
    query = "SELECT DISTINCT * FROM inferences WHERE logged_at >= {start} AND logged_at < {end}"
    world.define(source={"query": query, "database": "log.duckdb"}, limits={"cut_rows": 20})
    outcome = world.run()
    assert not said(outcome)
    assert world.everything_arrived_once(50)


def in_a_database(world: World, of: list[dict[str, object]]) -> None:
    with duckdb.connect(world.root / "log.duckdb") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("logged", pa.Table.from_pylist(of, schema=SCHEMA))
        connection.execute("CREATE OR REPLACE TABLE inferences AS FROM logged")


# --------------------------------------------------------------------------------------------------- kinds of cursors


@pytest.fixture(params=[pa.int64(), pa.int32(), pa.int16(), pa.uint64(), pa.uint8()], ids=str)
def numbered(request: pytest.FixtureRequest) -> pa.Schema:
    """A log whose rows are counted."""
    return SCHEMA.append(pa.field("number", request.param))


def counted(count: int, first: int = 0) -> list[dict[str, object]]:
    return [one | {"number": first + n} for n, one in enumerate(rows(count, first=first))]


def test_an_integer_cursor_of_any_width_is_followed(world: World, numbered: pa.Schema) -> None:
    world.define(cursor={"column": "number", "start": 0, "settle": "0s"})
    world.log("monday", pa.Table.from_pylist(counted(50), schema=numbered))
    outcome = world.run()
    assert not said(outcome)
    world.log("tuesday", pa.Table.from_pylist(counted(50, first=50), schema=numbered))
    assert world.run().tally.scanned == 50
    assert world.everything_arrived_once(100)
    assert world.mark() == "100"


def test_an_integer_cursor_settles_by_what_was_seen_that_long_ago(world: World) -> None:
    schema = SCHEMA.append(pa.field("number", pa.int64()))
    world.define(cursor={"column": "number", "start": 0, "settle": "10m"})
    world.log("monday", pa.Table.from_pylist(counted(50), schema=schema))
    world.now = after(minutes=0)
    assert world.run().cuts == 0
    world.log("tuesday", pa.Table.from_pylist(counted(50, first=50), schema=schema))
    world.now = after(minutes=11)
    assert world.run().tally.published == 50
    world.now = after(minutes=22)
    assert world.run().tally.published == 50
    assert world.everything_arrived_once(100)


def test_a_date_is_taken_once_it_is_over(world: World) -> None:
    schema = SCHEMA.append(pa.field("day", pa.date32()))
    of = [one | {"day": one["at"].date()} for one in rows(72, every=3600, at=datetime(2024, 5, 1, tzinfo=UTC))]
    world.define(cursor={"column": "day", "start": "2024-05-01", "settle": "2h"})
    world.log("days", pa.Table.from_pylist(of, schema=schema))
    world.now = datetime(2024, 5, 2, 1, 59, tzinfo=UTC)
    assert world.run().cuts == 0
    world.now = datetime(2024, 5, 2, 2, tzinfo=UTC)
    assert world.run().tally.published == 24
    assert world.mark() == date(2024, 5, 2).isoformat()
    world.now = datetime(2024, 5, 9, tzinfo=UTC)
    world.run()
    assert world.everything_arrived_once(72)


def test_rows_without_a_cursor_are_counted_and_reported(world: World) -> None:
    world.log("monday", [*rows(10), row(10, START, logged_at=None), row(11, START, logged_at=None)])
    world.run()
    (planned,) = (event for event in world.events if isinstance(event, Planned))
    assert planned.null_cursors == 2
    assert world.everything_arrived_once(10)


# ---------------------------------------------------------------------------------------------------------- backfills


def test_a_backfill_of_what_was_scanned_sends_nothing(world: World) -> None:
    world.log("monday", rows(100))
    world.run()
    mark = world.mark()
    outcome = world.backfill(START, NOW)
    assert (outcome.tally.scanned, outcome.tally.known, outcome.slices) == (100, 100, 0)
    assert world.mark() == mark
    assert world.everything_arrived_once(100)


def test_a_backfill_ahead_of_the_mark_sends_its_range_and_the_mark_passes_when_the_gap_is_filled(
    world: World,
) -> None:
    world.log("monday", rows(100))
    world.backfill(after(minutes=50), after(minutes=70))
    assert world.platform_rows() == 20
    assert world.mark() == "2024-05-01T00:00:00Z"
    outcome = world.run()
    assert outcome.tally.scanned == 80
    assert world.everything_arrived_once(100)
    assert world.mark() == "2024-05-01T13:39:00.000001Z"


def test_a_backfill_does_not_reach_beyond_what_has_settled(world: World) -> None:
    world.log("monday", rows(100))
    world.now = after(minutes=40)
    world.backfill(START, NOW)
    assert world.platform_rows() == 30


def test_a_failed_backfill_does_not_hold_the_mark_back(world: World) -> None:
    world.log("monday", rows(100))
    world.run()
    mark = world.mark()
    world.log("late", rows(5, first=100, at=after(minutes=5)))
    world.platform.process.fault(Fault("fail", kind="file", status=400, count=1))
    world.backfill(START, NOW)
    assert world.states() == {"closed": 1, "held": 1}
    assert world.mark() == mark


# ----------------------------------------------------------------------------------------- after something went wrong


def test_a_platform_that_is_down_gets_everything_when_it_is_back(world: World) -> None:
    world.log("monday", rows(100))
    world.platform.process.fault(Fault("fail", status=503))
    with pytest.raises(Retryable, match="503"):
        world.run()
    assert world.mark() == "2024-05-01T00:00:00Z"
    world.platform.reset()
    assert not said(world.run())
    assert world.everything_arrived_once(100)


def test_a_platform_that_goes_down_while_files_are_sent_gets_the_rest_when_it_is_back(world: World) -> None:
    world.define(limits={"cut_rows": 50})
    world.log("monday", rows(200))
    world.platform.process.fault(Fault("throttle", kind="file", retry_after=0, skip=1, count=20))
    outcome = world.run()
    assert isinstance(outcome.worst(), Retryable)
    assert 0 < world.platform_rows() < 200
    world.platform.reset()
    assert not said(world.run())
    assert world.everything_arrived_once(200)


def test_a_platform_that_cannot_be_reached_leaves_the_mark_and_says_so(world: World) -> None:
    world.log("monday", rows(100))
    url = world.job["destination"]["url"]
    world.define(destination={"url": "http://127.0.0.1:9"})
    with pytest.raises(Retryable, match="arthur"):
        world.run()
    assert world.mark() == "2024-05-01T00:00:00Z"
    world.define(destination={"url": url})
    world.run()
    assert world.everything_arrived_once(100)


def test_a_refused_key_is_named_and_nothing_is_lost(world: World) -> None:
    world.log("monday", rows(100))
    world.platform.process.fault(Fault("fail", kind="other", status=401, count=10))
    with pytest.raises(Misconfigured, match="refuses the key") as refused:
        world.run()
    assert "api_key" in str(refused.value)
    world.platform.reset()
    world.run()
    assert world.everything_arrived_once(100)


def test_a_refused_file_is_held_and_caps_the_mark_while_later_ones_arrive(world: World) -> None:
    world.define(limits={"cut_rows": 50})
    world.log("monday", rows(100))
    world.platform.process.fault(Fault("fail", kind="file", status=400, count=1))
    world.run()
    assert world.states() == {"held": 1, "closed": 1}
    assert world.platform_rows() == 50
    held = next(event.delivery for event in world.events if isinstance(event, Settled) and event.delivery.reason)
    assert held.state is DeliveryState.HELD
    assert "400" in held.reason


def test_a_held_slice_goes_after_it_was_released(world: World) -> None:
    world.define(limits={"cut_rows": 50})
    world.log("monday", rows(100))
    world.platform.process.fault(Fault("fail", kind="file", status=400, count=1))
    world.run()
    stream = world.stream()
    with world.ledger() as ledger:
        for sequence in (1, 2):
            ledger.deliveries.release(stream, sequence, who="a test", why="it was a mistake")
    outcome = world.run()
    assert not said(outcome)
    assert world.everything_arrived_once(100)
    assert world.mark() == "2024-05-01T13:39:00.000001Z"


def test_a_run_killed_while_it_sends_is_finished_by_the_next(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(400))
    world.platform.process.fault(Fault("delay", kind="file", seconds=60, skip=1, count=10))
    with world.spawned("killed"):
        eventually(lambda: sending(world))
    world.platform.reset()
    outcome = world.run()
    assert not said(outcome)
    assert world.everything_arrived_once(400)


def sending(world: World) -> bool:
    """Whether a run has closed something and is sending something else."""
    states = world.states() if list(world.staging.root.rglob("head.json")) else {}
    return {"sending", "closed"} <= set(states)


def test_a_run_killed_while_it_reads_is_finished_by_the_next(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(1000))
    with world.spawned("killed"):
        eventually(lambda: list(world.staging.root.rglob("scratch/*")))
    outcome = world.run()
    assert not said(outcome)
    assert world.everything_arrived_once(1000)


def test_a_stopped_run_leaves_the_rest_to_the_next(world: World) -> None:
    world.define(limits={"cut_rows": 100})
    world.log("monday", rows(1000))
    stop = threading.Event()

    def told(event: Event) -> None:
        if isinstance(event, CutStaged):
            stop.set()

    with world.wired() as wired:
        outcome = engine.run(wired, world.ask(), notice=told, stop=stop)
    assert outcome.stopped
    assert outcome.cuts == 1
    world.run()
    assert world.everything_arrived_once(1000)


# ---------------------------------------------------------------------------------- the ledger and what it belongs to


def test_a_lost_ledger_refuses_to_begin_again(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    for path in (world.root / ".tidepost").glob("ledger.db*"):
        path.unlink()
    with pytest.raises(Misconfigured, match="written by another ledger") as refused:
        world.run()
    assert "Nothing was sent" in str(refused.value)
    assert world.platform_rows() == 10


def test_a_ledger_restored_from_an_older_copy_refuses_to_go_on(world: World, tmp_path: Path) -> None:
    world.log("monday", rows(10))
    world.run()
    kept = (world.root / ".tidepost" / "ledger.db").read_bytes()
    world.log("tuesday", rows(10, first=10, at=after(hours=5)))
    world.run()
    for path in (world.root / ".tidepost").glob("ledger.db*"):
        path.unlink()
    (world.root / ".tidepost" / "ledger.db").write_bytes(kept)
    with pytest.raises(Misconfigured, match="holds slice 2, and the ledger knows none after 1"):
        world.run()
    assert world.everything_arrived_once(20) is True


def test_a_ledger_that_forgot_its_newest_sends_asks_before_it_sends(world: World, tmp_path: Path) -> None:
    ledger, copy = world.root / ".tidepost" / "ledger.db", tmp_path / "copy.db"

    def keep(event: Event) -> None:
        if isinstance(event, CutStaged):  # published, and nothing of it sent yet
            with closing(sqlite3.connect(ledger)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)

    world.log("monday", rows(10))
    world.run(notice=keep)
    for path in ledger.parent.glob("ledger.db*"):
        path.unlink()
    copy.replace(ledger)
    assert world.run().worst() is None
    assert world.everything_arrived_once(10) is True


@pytest.mark.parametrize(
    ("section", "change", "named"),
    [
        ("cursor", {"column": "at"}, "cursor"),
        ("mapping", {"partner_inference_id": "{id}-{carrier}"}, "partner_inference_id"),
        ("destination", {"model": "another"}, "destination arthur"),
    ],
)
def test_what_a_job_is_known_by_may_not_change(
    world: World, section: str, change: dict[str, str], named: str
) -> None:
    world.log("monday", rows(10))
    world.run()
    world.define(**{section: change})
    with pytest.raises(Misconfigured, match=f"{named} of flights/inferences was") as refused:
        world.run()
    assert f"Put {named} back" in str(refused.value)
    assert world.platform_rows() == 10


def test_head_names_the_ledger_and_the_newest_slice(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    head = json.loads((world.staging.root / "flights/inferences/_tidepost/head.json").read_text())
    with world.ledger() as ledger:
        assert head == {"ledger": ledger.id, "newest": 1}
