"""Comparing source, index and platform: the sums add up, and every row is in exactly one number."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.world import START, Row, World, after, between, row, rows, said

from tidepost.comparing.numbers import Bucket, Here, Reconciled, There
from tidepost.comparing.reconcile import Every, Reconciling, Scope
from tidepost.comparing.results import Difference
from tidepost.cursor import to_nanoseconds
from tidepost.ledger.owner import this_process
from tidepost.model import Request, ScanKind
from tidepost.publishing.purge import Purge
from tidepost.ranges import Range
from tidepost.sandbox.settings import Fault

DAY = timedelta(days=1)


@contextmanager
def comparing(world: World, every: Every = "day") -> Iterator[Callable[..., Reconciled]]:
    with world.wired() as wired, world.ledger() as ledger, wired.engine.connect() as connection:
        it = Reconciling(wired, ledger, world.stream(), connection, every)

        def compared(scope: Scope | None = None) -> Reconciled:
            found = it.reconcile(scope or Scope(), wired.destinations)
            adds_up(found)
            differences.clear()
            differences.extend(it.differences())
            assert len(differences) == it.differing()
            return found

        yield compared


differences: list[Difference] = []
"""Of the newest comparison."""


def compared(world: World, scope: Scope | None = None, *, every: Every = "day") -> Reconciled:
    world.platform.process.wait_until_loaded()
    with comparing(world, every) as compare:
        return compare(scope)


def adds_up(found: Reconciled) -> None:
    """What the documentation says of the sums."""
    for one in (*found.buckets, found.total):
        here = one.here
        assert here.source + here.gone == (
            here.published + here.duplicates + here.conflicts + here.rejected + here.waiting + here.missing
        ), one
        for there in one.there.values():
            assert here.published == there.published, one
    assert found.total.here.source == sum(one.here.source for one in found.buckets)
    assert found.total.here.rejected == sum(found.reasons.values())


def what(*kinds: str) -> list[tuple[str, str | None]]:
    return sorted((one.what, one.id) for one in differences if not kinds or one.what in kinds)


@pytest.fixture
def world(world: World) -> World:
    world.define(limits={"cut_rows": 20, "rejects": "90%"})
    return world


def arrived(world: World, of: Sequence[Row], name: str = "monday") -> None:
    world.log(name, of)
    assert not said(world.run())


def test_a_row_that_arrived_is_in_the_source_published_and_arrived(world: World) -> None:
    arrived(world, rows(50))
    found = compared(world)
    assert found.agrees
    assert found.total.here == Here(source=50, published=50)
    assert found.total.there == {"arthur": There(arrived=50)}
    assert differences == []


def test_numbers_are_by_day_or_by_hour_of_the_inferences_time(world: World) -> None:
    arrived(world, rows(47, every=1800))
    days = [(one.start, one.here.source) for one in compared(world).buckets]
    assert [source for _, source in days] == [24, 23]
    hours = compared(world, every="hour").buckets
    assert [one.here.source for one in hours] == [2] * 23 + [1]
    assert hours[0].start == to_nanoseconds(START) // 1000


def test_repeats_conflicts_and_rejects_are_told_apart(world: World) -> None:
    of = rows(30)
    of += [of[0], of[1], of[1]]  # twice, three times
    of += [of[2] | {"score": 0.123}, row(90, after(minutes=5), score=None), row(91, after(minutes=6), id="")]
    arrived(world, of)
    found = compared(world)
    assert found.total.here == Here(source=36, published=30, duplicates=3, conflicts=1, rejected=2)
    assert found.reasons == {"empty_id": 1, "null_prediction:score": 1}
    assert found.agrees
    assert what() == [("conflicts", "r000002"), ("rejected", ""), ("rejected", "r000090")]


def test_a_row_without_a_time_is_counted_apart(world: World) -> None:
    arrived(world, [*rows(10), row(10, after(minutes=20), at=None)])
    found = compared(world)
    assert found.buckets[-1] == Bucket(None, Here(source=1, rejected=1), {"arthur": There()})


def test_rows_that_the_platform_lost_are_named(world: World) -> None:
    arrived(world, rows(50))
    world.platform.process.lose(world.model_id, ["r000007", "r000033"])
    found = compared(world)
    assert not found.agrees
    assert found.total.there["arthur"] == There(arrived=48, lost=2)
    assert what() == [("lost", "r000007"), ("lost", "r000033")]
    assert sum(found.lost["arthur"].values()) == 2


def test_rows_that_are_nowhere_are_missing_and_their_ranges_told(world: World) -> None:
    arrived(world, rows(50))
    world.log("late", rows(3, first=200, at=after(minutes=11), every=120))
    found = compared(world)
    assert found.total.here == Here(source=53, published=50, missing=3)
    assert what() == [("missing", f"r{n}") for n in ("000200", "000201", "000202")]
    positions = [to_nanoseconds(after(minutes=11 + 2 * n)) for n in range(3)]
    assert all(one in found.missing for one in positions)


def test_rows_that_are_not_scanned_yet_are_waiting(world: World) -> None:
    arrived(world, rows(50))
    world.log("tuesday", rows(5, first=50, at=after(hours=6)))
    found = compared(world, Scope(cursor=between(START, after(hours=9))))
    assert found.total.here == Here(source=55, published=50, waiting=5)
    assert found.agrees


def test_rows_that_are_gone_from_the_source_are_published_still(world: World) -> None:
    arrived(world, rows(50))
    world.log("monday", rows(40))
    found = compared(world)
    assert found.total.here == Here(source=40, gone=10, published=50)
    assert found.agrees


def test_rows_that_were_set_aside_and_could_be_sent_now_are_rejected(world: World) -> None:
    arrived(world, [*rows(20), row(20, after(minutes=21), score=None)])
    world.log("monday", rows(21))
    found = compared(world)
    assert (found.total.here.rejected, found.total.here.missing) == (1, 0)
    assert found.reasons == {"null_prediction:score": 1}


def test_held_slices_and_deliveries_on_their_way_are_told_apart(world: World) -> None:
    world.define(limits={"cut_rows": 20, "rejects": "10%"})
    world.log("monday", [row(n, after(minutes=n), score=None if n < 5 else 0.5) for n in range(20)])
    world.run()
    world.define(destination={"retries": 0})
    world.platform.process.fault(Fault("throttle", kind="file", retry_after=0, count=50))
    world.log("tuesday", rows(10, first=30, at=after(hours=3)))
    world.run()
    found = compared(world)
    assert found.total.here == Here(source=30, published=25, rejected=5)
    assert found.total.there == {"arthur": There(held=15, in_flight=10)}


def test_rows_of_others_and_rows_that_are_there_twice_are_apart(world: World) -> None:
    arrived(world, rows(10))
    somebody_sends(world, rows(2, first=3), rows(3, first=700, at=after(minutes=20)))
    found = compared(world)
    assert found.total.there["arthur"] == There(arrived=10, doubled=2, others=3)
    assert not found.agrees
    assert what("doubled") == [("doubled", "r000003"), ("doubled", "r000004")]


def somebody_sends(world: World, *of: Sequence[Row]) -> None:
    for each in of:
        body = [
            {
                "partner_inference_id": one["id"],
                "inference_timestamp": one["at"].isoformat(),
                "inference_data": {name: one[name] for name in ("distance", "carrier", "score", "note")},
            }
            for one in each
        ]
        answer = world.platform.call("POST", f"/models/{world.model_id}/inferences", body)
        assert answer.status_code == 207, answer.text


def test_a_range_of_the_cursor_is_widened_to_whole_slices(world: World) -> None:
    arrived(world, rows(100))
    found = compared(world, Scope(cursor=between(after(minutes=25), after(minutes=30))))
    assert found.cursor is not None
    assert found.total.here.source == found.total.here.published
    assert found.cursor.start <= to_nanoseconds(after(minutes=25))
    assert found.agrees


def test_a_range_of_event_time_is_taken_as_it_is(world: World) -> None:
    of = [one | {"logged_at": one["at"] + timedelta(hours=n % 3)} for n, one in enumerate(rows(100))]
    arrived(world, of)
    start, end = (to_nanoseconds(after(minutes=n)) // 1000 for n in (25, 55))
    somebody_sends(world, rows(1, first=700, at=after(minutes=30)), rows(1, first=701, at=after(minutes=60)))
    found = compared(world, Scope(events=Range(start, end)))
    assert found.total.here == Here(source=30, published=30)
    assert found.total.there == {"arthur": There(arrived=30, others=1)}


def test_purged_rows_are_compared_by_their_sidecars(world: World) -> None:
    arrived(world, rows(50))
    before = compared(world)
    purge(world)
    assert world.files() == []
    assert compared(world) == before


def test_comparing_writes_nothing(world: World) -> None:
    arrived(world, rows(50))
    world.platform.process.lose(world.model_id, ["r000007"])
    files = {path: path.stat().st_mtime_ns for path in world.staging.root.rglob("*") if path.is_file()}
    summary = world.summary()
    compared(world)
    assert world.summary() == summary
    assert files == {path: path.stat().st_mtime_ns for path in world.staging.root.rglob("*") if path.is_file()}


def test_a_data_file_that_is_missing_is_an_error_and_not_a_difference(world: World) -> None:
    arrived(world, rows(50))
    world.files()[0].unlink()
    with pytest.raises(Exception, match="should be there and is not"):
        compared(world)


def purge(world: World) -> None:
    with world.wired() as wired, world.ledger() as ledger:
        Purge(world.stream(), ledger, wired.staging, wired.records, ("arthur",), 0.0).purge(
            wired.engine, this_process()
        )


# ------------------------------------------------------------------------------------------------- random worlds


@pytest.mark.parametrize("seed", range(4))
def test_in_random_worlds_the_numbers_are_those_that_were_counted_by_hand(world: World, seed: int) -> None:
    chance = random.Random(seed)
    world.platform.process.configure(seed=seed)
    world.define(limits={"cut_rows": 25, "rejects": "90%"}, cursor={"lookback": "5d"})
    log: list[Row] = []
    known: Counter[tuple[str, Any]] = Counter()  # what was published, by reading the files
    for step in range(3):
        log += batch(chance, step, log)
        world.log("log", log)
        world.run()
        if chance.random() < 0.3:
            world.run(Request(f"again {step}", ScanKind.BACKFILL, between(START, after(days=4))))
    for path in world.files():
        known.update((str(one["partner_inference_id"]), content(one)) for one in pq.read_table(path).to_pylist())
    if chance.random() < 0.5:
        purge(world)
    # Late rows, rows that are gone from the source, rows that the platform lost, rows of others.
    log = [one for one in log if chance.random() > 0.05]
    log += [row(5000 + n, after(minutes=chance.randrange(60))) for n in range(chance.randrange(5))]
    world.log("log", log)
    lost = [id_ for id_ in world.ids() if chance.random() < 0.1]
    world.platform.process.lose(world.model_id, lost)
    somebody_sends(world, rows(chance.randrange(1, 4), first=8000, at=after(minutes=chance.randrange(60))))
    found = compared(world)
    here, there = by_hand(log, known, world.ids())
    assert {one.start: one.here for one in found.buckets if one.here != Here()} == here
    assert {one.start: one.there["arthur"] for one in found.buckets if one.there["arthur"] != There()} == there


def batch(chance: random.Random, step: int, before: Sequence[Row]) -> list[Row]:
    """New rows, repeats of older and of new ones, changed ones, and some that cannot be sent."""
    new: list[Row] = []
    for n in range(60):
        at = START + timedelta(hours=7 * step, minutes=n * 5)
        new.append(row(1000 * step + n, at, score=None if chance.random() < 0.05 else chance.random()))
    logged = START + timedelta(hours=7 * step, minutes=5)
    for one in chance.sample([*new, *before], 15):
        changes = {"score": chance.random()} if chance.random() < 0.4 else {}
        new.append(one | changes | {"logged_at": max(logged, one["logged_at"])})
    return new


def content(one: Row) -> Any:
    at = one.get("inference_timestamp", one.get("at"))
    assert isinstance(at, datetime)
    return (at, *(one[name] for name in ("distance", "carrier", "score", "note")))


def by_hand(
    log: Sequence[Row], known: Counter[tuple[str, Any]], there: Sequence[str]
) -> tuple[dict[int | None, Here], dict[int | None, There]]:
    """The numbers by day, counted one row at a time."""
    here: dict[int, Counter[str]] = defaultdict(Counter)
    shown: dict[int, Counter[str]] = defaultdict(Counter)
    left, ids = Counter(known), {id_ for id_, _ in known}
    copies = Counter(there)
    fresh: dict[str, list[Row]] = defaultdict(list)
    for one in sorted(log, key=lambda each: (each["id"], each["logged_at"])):
        day, key = of_day(one["at"]), (one["id"], content(one))
        here[day]["source"] += 1
        if one["score"] is None:
            here[day]["rejected"] += 1
        elif left[key]:
            left[key] -= 1
        elif key in known:
            here[day]["duplicates"] += 1
        elif one["id"] in ids:
            here[day]["conflicts"] += 1
        else:
            fresh[one["id"]].append(one)
    for each in fresh.values():
        assert len(each) == 1
        here[of_day(each[0]["at"])]["missing"] += 1
    for (_, of), number in left.items():
        here[of_day(of[0])]["gone"] += number
    for (id_, of), number in known.items():
        day = of_day(of[0])
        here[day]["published"] += number
        shown[day]["arrived" if copies[id_] else "lost"] += 1
        shown[day]["doubled"] += max(0, copies[id_] - 1)
    for id_ in copies.keys() - ids:
        shown[of_day(START)]["others"] += copies[id_]
    return (
        {day: Here(**counted) for day, counted in here.items() if +counted},
        {day: There(**counted) for day, counted in shown.items() if +counted},
    )


def of_day(at: datetime) -> int:
    return to_nanoseconds(at.replace(hour=0, minute=0, second=0, microsecond=0)) // 1000
