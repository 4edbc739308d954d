"""Rows that become visible after their range was scanned: found by looking back, and sent once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import duckdb
import pytest
from tests.world import ATTRIBUTES, NOW, START, World, after, ns, reasons, row, rows, said

from tidepost.events import Planned, Warned
from tidepost.model import Request, ScanKind
from tidepost.outcome import Outcome
from tidepost.ranges import Range
from tidepost.sources.duckdb import DuckDBSource


def kinds(world: World) -> list[str]:
    """The scans of the cuts that the last run planned."""
    return [cut.kind.value for event in world.events if isinstance(event, Planned) for cut in event.cuts]


def quiet(world: World) -> bool:
    """Whether one more run finds nothing to look at again."""
    outcome = world.run()
    assert not said(outcome)
    return (kinds(world), outcome.cuts) == ([], 0)


def test_a_row_that_ties_with_the_last_one_and_is_visible_later_is_found(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    world.log("late", [row(10, after(minutes=9))])
    outcome = world.run()
    assert (outcome.tally.published, outcome.tally.known) == (1, 10)
    assert world.everything_arrived_once(11)
    assert quiet(world)


def test_a_late_batch_inside_an_empty_range_below_the_mark_is_found(world: World) -> None:
    world.log("monday", rows(10))
    world.log("wednesday", rows(10, first=20, at=after(hours=12)))
    world.run()
    mark = world.mark()
    world.log("tuesday", rows(10, first=10, at=after(hours=6)))
    world.run()
    assert world.everything_arrived_once(30)
    assert world.mark() == mark
    assert quiet(world)


def test_ranges_that_agree_are_passed_over(world: World) -> None:
    world.define(limits={"cut_rows": 100}, cursor={"lookback": "2d"})
    world.log("monday", rows(1000, every=30))
    assert world.run().cuts >= 10
    assert quiet(world)
    world.log("late", [row(1000, after(hours=4))])
    outcome = world.run()
    assert set(kinds(world)) == {"lookback"}
    assert outcome.tally.scanned == 101
    assert world.everything_arrived_once(1001)
    assert quiet(world)


def test_looking_back_reads_the_id_and_the_cursor_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.log("monday", rows(50))
    world.run()
    asked: list[list[str]] = []
    read = DuckDBSource.read

    def noted(self: DuckDBSource, connection: Any, window: Range, columns: Sequence[str]) -> Any:
        asked.append(list(columns))
        return read(self, connection, window, columns)

    monkeypatch.setattr(DuckDBSource, "read", noted)
    assert quiet(world)
    assert asked == [["id"]]


def test_a_row_that_is_swapped_for_another_is_found_though_the_count_agrees(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    world.log("monday", [*rows(9), row(77, after(minutes=9))])
    assert world.run().tally.published == 1
    assert world.everything_arrived_once(11)
    assert quiet(world)


def test_rows_beyond_the_lookback_are_not_looked_for_and_a_backfill_finds_them(world: World) -> None:
    world.define(cursor={"lookback": "1h"}, limits={"cut_rows": 10})
    world.log("monday", rows(200))
    world.run()
    world.log("late", [row(200, after(minutes=5)), row(201, after(minutes=190))])
    assert world.run().tally.published == 1
    assert world.backfill(START, NOW).tally.published == 1
    assert world.everything_arrived_once(202)
    assert quiet(world)


@pytest.mark.parametrize("days", [3, 30])
def test_rows_of_an_outage_are_as_late_as_they_would_be_without_it(world: World, days: int) -> None:
    """Neither the loader nor tidepost ran, the clock did: the lookback reaches from where scanning ended."""
    world.log("monday", rows(60))
    world.run()
    world.now = NOW + timedelta(days=days)
    world.log("late", [row(60, after(minutes=30))])
    world.log("back again", rows(60, first=100, at=after(days=days)))
    world.run()
    assert world.everything_arrived_once(121)


def test_a_loader_that_was_down_for_three_days_while_the_clock_ran_on_loses_nothing(world: World) -> None:
    world.log("monday", rows(60))
    for day in range(4):
        world.now = NOW + timedelta(days=day)
        world.run()
    for day in range(3):
        world.log(f"day {day}", rows(60, first=100 * (day + 1), at=after(hours=2, days=day)))
    world.run()
    assert world.everything_arrived_once(240)


def test_rows_that_appear_between_planning_and_reading_are_found_or_late_and_sent_once(world: World) -> None:
    """Bound and rows are read from two snapshots: what is visible in the second only is in no cut's estimate."""
    world.define(limits={"cut_rows": 20})
    world.log("monday", rows(100))
    grown = False

    def grow(event: object) -> None:
        nonlocal grown
        if not grown and isinstance(event, Planned):
            grown = True
            world.log("meanwhile", rows(100, first=100, at=after(seconds=30)))

    world.run(notice=grow)
    world.run()
    assert grown
    assert world.everything_arrived_once(200)


def test_an_id_that_was_logged_twice_hours_apart_is_sent_once(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    world.log("again", rows(10, logged_at=after(hours=5)))
    outcome = world.run()
    assert (outcome.tally.duplicates, outcome.tally.published) == (10, 0)
    world.log("late twin", [row(3, after(minutes=3), logged_at=after(hours=1))])
    outcome = world.run()
    assert (outcome.tally.published, outcome.tally.known) == (0, 11)
    assert world.everything_arrived_once(10)
    assert quiet(world)


def test_a_late_row_with_the_id_of_another_is_set_aside_once(world: World) -> None:
    world.define(limits={"rejects": "50%"})
    world.log("monday", [*rows(10), row(90, after(minutes=3), score=None)])
    world.run()
    world.log("late", [row(2, after(minutes=2), score=0.99), row(50, after(minutes=5))])
    outcome = world.run()
    assert (outcome.tally.rejected, outcome.tally.published) == ({"changed_after_sent": 1}, 1)
    world.log("later", [row(51, after(minutes=5))])
    outcome = world.run()
    assert (outcome.tally.rejected, outcome.tally.published, outcome.tally.known) == ({}, 1, 13)
    assert reasons(world.rejects()) == {"r000090": "null_prediction:score", "r000002": "changed_after_sent"}
    assert world.summary().rejected == {"changed_after_sent": 1, "null_prediction:score": 1}
    assert world.everything_arrived_once(12)


def test_rows_that_vanish_from_the_source_stay_sent(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    world.log("monday", rows(4))
    outcome = world.run()
    assert (outcome.tally.published, outcome.tally.known) == (0, 4)
    assert world.everything_arrived_once(10)
    assert quiet(world)


def in_database(world: World, cursor: str, start: object, values: str) -> None:
    """Rows in a database of the project, whose cursor is given as SQL of their number."""
    with duckdb.connect(world.root / "log.duckdb") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"CREATE TABLE logged AS SELECT 'r' || i AS id, TIMESTAMPTZ '2024-05-01 12:00:00Z' + INTERVAL (i) MINUTE "
            f"AS at, {cursor} AS c, 100 AS distance, 'UA' AS carrier, 0.5::DOUBLE AS score, NULL::VARCHAR AS note "
            f"FROM range({values}) r(i)"
        )
    world.define(
        source={"table": "logged", "database": "log.duckdb", "files": None},
        cursor={"column": "c", "start": start, "settle": "0s"},
        limits={"cut_rows": 50},
    )


def insert(world: World, number: int, cursor: str) -> None:
    with duckdb.connect(world.root / "log.duckdb") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"INSERT INTO logged SELECT * REPLACE ('late' || {number} AS id, {cursor} AS c) FROM logged "
            f"WHERE id = 'r{number}'"
        )


def test_late_rows_of_a_growing_id_are_found_within_the_lookback_by_when_ids_were_seen(world: World) -> None:
    in_database(world, "i * 2", 0, "200")
    world.define(cursor={"lookback": "2h"})
    world.run()
    insert(world, 75, "151")
    world.now = NOW + timedelta(minutes=30)
    world.run()
    assert world.everything_arrived_once(201)
    assert quiet(world)


def test_growing_ids_older_than_the_lookback_are_not_looked_at(world: World) -> None:
    in_database(world, "i * 2", 0, "100")
    world.define(cursor={"lookback": "2h"})
    world.run()
    world.now = NOW + timedelta(hours=5)
    for number in range(3):
        with duckdb.connect(world.root / "log.duckdb") as connection:
            connection.execute(
                f"INSERT INTO logged SELECT * REPLACE (id || '-{number}' AS id, c + {1000 * (number + 1)} AS c) "
                f"FROM logged WHERE c < 1000"
            )
        world.now += timedelta(hours=1.5)
        world.run()
    insert(world, 20, "41")
    insert(world, 21, "2041")
    assert world.run().tally.published == 1


def test_late_rows_of_a_date_are_found(world: World) -> None:
    in_database(world, "DATE '2024-05-01' - CAST(i // 50 AS INTEGER)", "2024-04-01", "200")
    world.define(cursor={"lookback": "36h", "type": "date"})
    world.now = NOW + timedelta(days=1)
    world.run()
    insert(world, 60, "DATE '2024-04-30'")
    insert(world, 190, "DATE '2024-04-28'")
    assert world.run().tally.published == 1
    assert quiet(world)


def test_status_says_how_many_came_late_and_how_late(world: World) -> None:
    world.define(cursor={"lookback": "10h"})
    world.log("monday", rows(10))
    world.log("evening", rows(1, first=10, at=after(hours=9)))
    world.run()
    world.log("late", [row(11, after(hours=8)), row(12, after(hours=7))])
    world.run()
    summary = world.summary()
    assert summary.late_rows == 2
    assert summary.late == pytest.approx(2 * 3600, abs=1)
    assert not [event for event in world.events if isinstance(event, Warned)]
    world.log("too late, nearly", [row(13, after(minutes=30))])
    world.run()
    (warning,) = [event.text for event in world.events if isinstance(event, Warned)]
    assert "rows came up to 8h31m late" in warning
    assert "cursor.lookback, which is 10h" in warning


def test_what_a_person_passed_over_is_not_looked_back_at(world: World) -> None:
    from tidepost.cursor import format_instant  # noqa: PLC0415
    from tidepost.recovery import acts  # noqa: PLC0415

    world.log("monday", rows(10))
    world.run()
    world.log("tuesday", rows(10, first=10, at=after(hours=3)))
    with world.wired() as wired, world.ledger() as ledger:
        stream = world.stream()
        coverage = ledger.plans.coverage(stream)
        start, end = ns(START.replace(hour=0)), ns(after(hours=5))
        move = acts.move_to(end, start=start, frontier=ns(after(minutes=10)), bound=end)
        assert move is not None
        acts.set_frontier(
            ledger,
            wired.records,
            stream,
            move,
            acts.Word("me", 0.0, "broken rows"),
            coverage=coverage,
            old="",
            new=format_instant(end),
        )
    assert quiet(world)
    assert world.everything_arrived_once(10)


def test_a_backfill_over_half_of_a_range_leaves_the_other_half_to_the_next_lookback(world: World) -> None:
    world.log("monday", rows(100))
    world.run()
    world.backfill(START, after(minutes=50))
    outcome = world.run()
    assert (kinds(world), outcome.tally.known) == (["lookback", "lookback"], 50)
    assert quiet(world)


def test_rows_that_a_platform_refused_do_not_come_back_with_a_late_one_but_mended_ones_go(world: World) -> None:
    needed = [(name, of, "PREDICTED_VALUE" if name == "note" else stage) for name, of, stage in ATTRIBUTES]
    strict = World.make(world.root / "strict", world.platform, attributes=needed)
    strict.define(limits={"rejects": "50%"})
    strict.log(
        "monday", [*rows(5, first=1), row(50, after(minutes=5), note=None), row(51, after(minutes=5), note=None)]
    )
    strict.run()
    assert sorted(reasons(strict.rejects())) == ["r000050", "r000051"]
    strict.log("late", [row(60, after(minutes=2)), row(51, after(minutes=2), note="mended")])
    outcome = strict.run()
    assert (outcome.tally.published, outcome.tally.known) == (2, 7)
    assert sorted(reasons(strict.rejects())) == ["r000050", "r000051"]
    assert strict.ids() == sorted([*[f"r{n:06d}" for n in range(1, 6)], "r000051", "r000060"])
    assert quiet(strict)


def test_plan_shows_what_a_run_would_look_at_again(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    world.log("late", [row(10, after(minutes=9))])
    from tidepost.planning.prospect import prospect  # noqa: PLC0415

    with world.wired() as wired:
        found = prospect(wired, world.stream(), Request("", ScanKind.INCREMENTAL))
    assert [(cut.kind, cut.estimated) for cut in found.cuts] == [(ScanKind.LOOKBACK, 11)]


def test_a_lookback_that_is_asked_for_again_is_the_same(world: World) -> None:
    world.log("monday", rows(10))
    world.run()
    world.log("late", [row(10, after(minutes=9))])
    request = world.ask()
    first = world.run(request)
    world.log("later", [row(11, after(minutes=9))])
    again = world.run(request)
    assert isinstance(again, Outcome)
    assert (first.tally.published, again.cuts) == (1, 0)
    assert world.run().tally.published == 1


def test_nothing_is_looked_back_at_where_the_job_says_so(world: World) -> None:
    world.define(cursor={"lookback": "0s"})
    world.log("monday", rows(10))
    world.run()
    world.log("late", [row(10, after(minutes=9))])
    assert quiet(world)


def test_after_an_update_of_duckdb_ranges_are_looked_at_again_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hashes may be others then, so that the sums say nothing."""
    world.log("monday", rows(10))
    world.run()
    assert quiet(world)
    monkeypatch.setattr(duckdb, "__version__", "9.9.9")
    outcome = world.run()
    assert (kinds(world), outcome.tally.known, outcome.slices) == (["lookback"], 10, 0)
    assert quiet(world)
