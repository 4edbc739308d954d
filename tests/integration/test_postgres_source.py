"""Whole runs from a real PostgreSQL server, with everything going on there that goes on at real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection
from tests.postgres import Server
from tests.world import Row, World, after, row, rows, said

from tidepost.errors import Misconfigured, Retryable
from tidepost.events import CutStaged, Event, PartSent, Warned
from tidepost.sources.postgres.source import PostgresSource

COLUMNS = ("id", "at", "logged_at", "distance", "carrier", "score", "note")
INSERT = f"INSERT INTO inferences ({', '.join(COLUMNS)}) VALUES ({', '.join(f'%({name})s' for name in COLUMNS)})"


@dataclass
class Log:
    """The table that a world's job reads."""

    server: Server
    database: str

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    def write(self, of: list[Row], connection: Connection | None = None) -> None:
        """Insert rows; in somebody's transaction, or in one that is committed."""
        if connection is not None:
            connection.cursor().executemany(INSERT, of)
            return
        with self.open() as own:
            self.write(of, own)

    @contextmanager
    def open(self) -> Iterator[Connection]:
        """A transaction that is committed when the block ends."""
        with psycopg.connect(self.url) as connection:
            yield connection

    def execute(self, *statements: str) -> list[Any]:
        return self.server.execute(self.database, *statements)

    def others(self) -> list[Any]:
        """The transactions of the product's that are open at the server."""
        return self.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'tidepost' AND xact_start IS NOT NULL"
        )


@pytest.fixture
def log(postgres: Server, world: World) -> Iterator[Log]:
    """A table with an index on its cursor, which the world's job reads instead of files."""
    log = Log(postgres, postgres.new_database())
    log.execute(
        "CREATE TABLE inferences (number bigserial, key uuid DEFAULT gen_random_uuid(), id text, at timestamptz, "
        "logged_at timestamptz, distance int8, carrier text, score float8, note text)",
        *(f"CREATE INDEX ON inferences ({column})" for column in ("logged_at", "number", "key")),
    )
    world.variables["SCORING_DATABASE"] = log.url
    world.define(source=None)
    world.define(source={"postgres": "${SCORING_DATABASE}", "table": "inferences"})
    yield log
    postgres.drop(log.database)


def warnings(world: World) -> list[str]:
    return [event.text for event in world.events if isinstance(event, Warned)]


# ------------------------------------------------------------------------------------------------------ run after run


def test_a_table_is_uploaded_and_then_what_it_grew_by(world: World, log: Log) -> None:
    log.write(rows(1200))
    outcome = world.run()
    assert not said(outcome)
    assert (outcome.tally.published, outcome.arrived) == (1200, 1200)
    assert outcome.cuts > 1
    log.write(rows(50, first=1200, at=after(hours=21)))
    assert world.run().tally.published == 50
    assert world.everything_arrived_once(1250)
    assert warnings(world) == []


def test_the_values_arrive_as_they_are_in_the_table(world: World, log: Log) -> None:
    logged = rows(30)
    log.write(logged)
    world.run()
    for name in ("distance", "carrier", "score", "note"):
        assert world.values(name) == {one["id"]: one[name] for one in logged}


def test_a_query_in_postgresqls_sql_is_uploaded(world: World, log: Log) -> None:
    log.write(rows(40))
    query = (
        "SELECT DISTINCT ON (id) id, at, logged_at, distance::int, carrier, score, note FROM inferences "
        "WHERE carrier = ANY (ARRAY['UA', 'AA', 'DL']) AND logged_at >= {start} AND logged_at < {end} ORDER BY id"
    )
    world.define(source={"table": None, "query": query})
    assert not said(world.run())
    assert world.everything_arrived_once(40)


@pytest.mark.parametrize(("column", "start"), [("number", 0), ("key", f"{UUID(int=0)}")])
def test_rows_are_found_by_growing_ids(world: World, log: Log, column: str, start: int | str) -> None:
    def grow(count: int, first: int) -> None:
        log.write(rows(count, first=first))
        log.execute(
            f"UPDATE inferences SET key = ('f' || lpad(to_hex(number), 31, '0'))::uuid WHERE number > {first}"
        )

    world.define(cursor={"column": column, "start": start, "settle": "10m"})
    grow(30, 0)
    world.now = datetime.now(UTC) - timedelta(hours=2)
    assert world.run().tally.published == 0  # how far ids were ten minutes ago is not known yet
    grow(20, 30)
    world.now += timedelta(minutes=11)
    assert world.run().tally.published == 30
    world.now += timedelta(minutes=11)
    assert world.run().tally.published == 20
    assert world.everything_arrived_once(50)


def test_ids_that_are_visible_at_once_need_no_log(world: World, log: Log) -> None:
    world.define(cursor={"column": "key", "start": f"{UUID(int=0)}", "settle": "0s"})
    log.write(rows(500))
    assert world.run().tally.published == 500
    assert world.everything_arrived_once(500)


# -------------------------------------------------------------------------------------------- transactions in flight


def test_a_transaction_that_began_before_a_run_and_commits_after_it_loses_nothing(world: World, log: Log) -> None:
    log.write(rows(10))
    world.now = after(minutes=30)
    with log.open() as writer:
        log.write([row(100, after(minutes=25))], writer)
        assert world.run().tally.published == 10
    world.now = after(minutes=60)
    assert world.run().tally.published == 1
    assert world.everything_arrived_once(11)


def test_a_transaction_that_began_before_a_run_and_writes_after_it_loses_nothing(world: World, log: Log) -> None:
    log.write(rows(10))
    world.now = after(minutes=30)
    with log.open() as writer:
        writer.execute("SELECT 1 FROM inferences")
        assert world.run().tally.published == 10
        log.write([row(100, after(minutes=29))], writer)
    log.write([row(101, after(minutes=40))])
    world.now = after(minutes=60)
    assert world.run().tally.published == 2
    assert world.everything_arrived_once(12)


def test_ids_of_transactions_that_commit_out_of_order_lose_nothing(world: World, log: Log) -> None:
    world.define(cursor={"column": "number", "start": 0, "settle": "10m"})
    world.now = datetime.now(UTC) - timedelta(hours=2)
    with log.open() as writer:
        log.write(rows(5), writer)
        log.write(rows(5, first=5))
        assert world.run().tally.published == 0
    log.write(rows(5, first=10))
    world.now += timedelta(minutes=11)
    world.run()
    world.now += timedelta(minutes=11)
    world.run()
    assert world.everything_arrived_once(15)


def test_rows_of_a_transaction_that_was_longer_than_settle_are_found_by_looking_back(world: World, log: Log) -> None:
    log.write(rows(10))
    world.now = after(hours=2)
    with log.open() as writer:
        log.write([row(100, after(minutes=5, seconds=30))], writer)
        assert world.run().tally.published == 10
    outcome = world.run()
    assert (outcome.tally.published, outcome.tally.known) == (1, 10)
    assert world.everything_arrived_once(11)


# ------------------------------------------------------------------------------------------------------------ clocks


@pytest.fixture
def server_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], float]], None]:
    """Sets what the server's clock shows."""
    return lambda shows: monkeypatch.setattr(PostgresSource, "clock", lambda self: shows())


def test_a_server_whose_clock_is_behind_decides_what_is_settled(
    world: World, log: Log, server_clock: Callable[[Callable[[], float]], None]
) -> None:
    log.write(rows(10))
    log.write([row(100, after(minutes=55))])
    world.now = after(minutes=70)
    server_clock(lambda: after(minutes=60).timestamp())
    assert world.run().tally.published == 10
    server_clock(lambda: after(minutes=70).timestamp())
    assert world.run().tally.published == 1
    assert world.everything_arrived_once(11)


def test_a_server_whose_clock_is_ahead_does_not_make_rows_settle_sooner(
    world: World, log: Log, server_clock: Callable[[Callable[[], float]], None]
) -> None:
    log.write(rows(10))
    world.now = after(minutes=10, seconds=30)
    server_clock(lambda: after(hours=5).timestamp())
    assert world.run().tally.published == 1


@pytest.mark.parametrize(("minutes", "side"), [(-6, "behind"), (6, "ahead of"), (4, None), (-4, None)])
def test_clocks_further_apart_than_half_of_settle_are_warned_of(
    world: World,
    log: Log,
    server_clock: Callable[[Callable[[], float]], None],
    minutes: int,
    side: str | None,
) -> None:
    log.write(rows(10))
    server_clock(lambda: time.time() + minutes * 60)
    assert not said(world.run())
    assert [f"360 s {side} this host's" in text for text in warnings(world)] == ([True] if side else [])


# -------------------------------------------------------------------------------------------------------- the server


def test_nothing_is_open_at_the_server_while_rows_are_sent(world: World, log: Log) -> None:
    log.write(rows(300))
    world.define(limits={"cut_rows": 100_000})
    found: list[Any] = []

    def look(event: Event) -> None:
        if isinstance(event, (CutStaged, PartSent)):
            found.append(log.others())

    outcome = world.run(notice=look)
    assert not said(outcome)
    assert len(found) == 2
    assert found == [[], []]
    assert world.everything_arrived_once(300)


def end_the_connection(log: Log) -> None:
    assert log.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidepost'")


def kill_the_server(log: Log) -> None:
    log.server.kill()
    log.server.start()


@pytest.mark.parametrize("drop", [end_the_connection, kill_the_server])
def test_a_connection_that_drops_in_the_middle_of_a_cut_is_made_up_for_by_the_next_run(
    world: World, log: Log, monkeypatch: pytest.MonkeyPatch, drop: Callable[[Log], None]
) -> None:
    log.write(rows(20_000, every=2.0, note="x" * 1000))
    world.define(limits={"cut_rows": 100_000})
    monkeypatch.setattr("tidepost.sources.postgres.session.BATCH_BYTES", 200_000)
    dropped: list[bool] = []
    register = PostgresSource.read

    @contextmanager
    def dropping(self: PostgresSource, *args: Any) -> Iterator[Any]:
        with register(self, *args) as relation:
            if not dropped:
                dropped.append(True)
                drop(log)
            yield relation

    monkeypatch.setattr(PostgresSource, "read", dropping)
    outcome = world.run()
    assert dropped
    assert isinstance(outcome.worst(), Retryable)
    assert "the connection to it was lost" in said(outcome)
    assert world.platform_rows() == 0
    assert not said(world.run())
    assert world.everything_arrived_once(20_000)


def test_a_server_that_is_killed_and_comes_back_is_made_up_for_by_the_next_run(world: World, log: Log) -> None:
    log.write(rows(1300))
    kills: list[Event] = []

    def kill(event: Event) -> None:
        if isinstance(event, CutStaged) and not kills:
            kills.append(event)
            log.server.kill()

    try:
        outcome = world.run(notice=kill)
    finally:
        log.server.start()
    assert kills
    assert isinstance(outcome.worst(), Retryable)
    assert not said(world.run())
    assert world.everything_arrived_once(1300)


def test_a_wrong_password_is_in_no_text(world: World, log: Log) -> None:
    world.variables["SCORING_DATABASE"] = f"postgresql://me:hunter2@/nowhere?host={log.server.folder}"
    with pytest.raises(Misconfigured) as refused:
        world.run()
    assert "hunter2" not in str(refused.value)
    assert "nowhere" in refused.value.message


def test_a_variable_that_is_not_set_is_named(world: World, log: Log) -> None:
    del world.variables["SCORING_DATABASE"]
    with pytest.raises(Misconfigured, match=r"source\.postgres: SCORING_DATABASE is not set"):
        world.run()


def test_the_url_is_kept_nowhere(world: World, log: Log) -> None:
    log.write(rows(30))
    world.variables["SCORING_DATABASE"] = log.url.replace("@", ":hunter2@", 1)
    assert not said(world.run())
    kept = [path for path in world.root.rglob("*") if path.is_file()]
    assert len(kept) > 5
    assert not [path for path in kept if b"hunter2" in path.read_bytes()]


def test_a_column_that_changed_its_type_since_the_first_slice_is_told(world: World, log: Log) -> None:
    log.write(rows(30))
    assert not said(world.run())
    log.execute("ALTER TABLE inferences ALTER distance TYPE text")
    log.write([row(100, after(hours=3), distance="far")])
    with pytest.raises(Misconfigured, match="'distance' is VARCHAR now and was BIGINT"):
        world.run()


def test_a_missing_index_is_warned_of_once_a_run(world: World, log: Log) -> None:
    log.write(rows(1500))
    log.execute("DROP INDEX inferences_logged_at_idx")
    outcome = world.run()
    assert outcome.cuts > 1
    (text,) = warnings(world)
    assert 'CREATE INDEX CONCURRENTLY ON "inferences" ("logged_at")' in text
    log.execute(text.partition("To make one:")[2].strip())
    world.run()
    assert warnings(world) == []


def test_a_driver_that_is_not_installed_is_asked_for(world: World, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tidepost.sources.postgres.source", None)
    with pytest.raises(Misconfigured, match=r"driver that is not installed") as refused:
        world.run()
    assert "pip install 'tidepost[postgres]'" in str(refused.value)


# ------------------------------------------------------------------------------------------------------------ memory

LARGEST = 250_000_000
READ = """
import os, sys
from pathlib import Path
from tidepost.engine import Engine
from tidepost.ranges import Range
from tidepost.sources.postgres.source import Origin, PostgresSource

query = "SELECT i AS c, repeat(md5(i::text), 8) AS note FROM generate_series(1, 2000000) i"
source = PostgresSource(os.environ["DATABASE"], Origin(query=query), column="c")
with Engine(100_000_000, 2, Path(sys.argv[1])).connect() as connection:
    with source.read(connection, Range(0, 10**9), ["note"]) as relation:
        (size,) = connection.execute(f"SELECT sum(length(note)) FROM ({relation.sql})").fetchone()
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
print(size, peak)
"""


def test_500_megabytes_pass_through_a_process_of_250(postgres: Server, log: Log, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)],
        env={**os.environ, "DATABASE": log.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    size, peak = map(int, done.stdout.split())
    assert size == 2_000_000 * 256
    assert peak < LARGEST
