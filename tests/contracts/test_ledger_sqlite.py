"""The ledger on SQLite: the contract, and what is SQLite's own."""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, event

pytest.register_assert_rewrite("tests.contracts.ledger_contract")

from tests.contracts.ledger_contract import (  # noqa: E402
    HOUR,
    LedgerContract,
    NewUrl,
    cut,
    plan,
    process,
    processes_together,
    publish,
    stream_of,
)

from tidepost import __version__  # noqa: E402
from tidepost.errors import Misconfigured, Retryable  # noqa: E402
from tidepost.ledger import open_ledger  # noqa: E402
from tidepost.ledger.schema import REVISION, VERSION_TABLE, metadata  # noqa: E402
from tidepost.ledger.sql import SqlLedger  # noqa: E402
from tidepost.model import StreamName  # noqa: E402
from tidepost.ranges import Range  # noqa: E402

MANY = 100_000


class TestSqliteLedger(LedgerContract):
    @pytest.fixture
    def new_url(self, tmp_path: Path) -> NewUrl:
        number = itertools.count()
        return lambda: f"sqlite:///{tmp_path}/{next(number)}/ledger.db"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "below" / "ledger.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def in_file(path: Path, *statements: str) -> list[object]:
    """Run statements on the file itself, past the ledger; the first column of the last one's rows."""
    with closing(sqlite3.connect(path)) as connection, connection:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return [row[0] for row in rows]


# ---------------------------------------------------------------------------------------------------- opening


def test_the_folders_above_a_new_ledger_are_made(path: Path, url: str) -> None:
    open_ledger(url).close()
    assert path.is_file()


def test_every_connection_writes_ahead_syncs_fully_and_keeps_foreign_keys(url: str) -> None:
    with open_ledger(url) as ledger, ledger._database.read() as one, ledger._database.write() as two:
        for connection in (one, two):
            settings = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
            assert settings == ["wal", 2, 1, 30_000]


def test_of_processes_that_open_a_new_ledger_at_once_exactly_one_migrates(path: Path, url: str) -> None:
    script = """
    import tidepost.ledger.migrate as migrate
    migrated, upgrade = [], migrate._upgrade
    migrate._upgrade = lambda connection: migrated.append(upgrade(connection))
    ready()
    open_ledger(url).close()
    answer(len(migrated))
    """
    assert sum(processes_together(script, url, 4)) == 1
    assert in_file(path, f"SELECT version_num FROM {VERSION_TABLE}") == [REVISION]
    assert len(in_file(path, "SELECT id FROM ledger")) == 1


def test_a_ledger_that_a_newer_tidepost_wrote_is_refused_with_both_versions(path: Path, url: str) -> None:
    open_ledger(url).close()
    in_file(path, f"UPDATE {VERSION_TABLE} SET version_num = '0999'", "UPDATE ledger SET written_by = '9.8.7'")
    with pytest.raises(Misconfigured) as refused:
        open_ledger(url)
    assert "written by tidepost 9.8.7 (tables 0999)" in refused.value.message
    assert f"this is tidepost {__version__}, which knows tables up to {REVISION}" in refused.value.message
    assert in_file(path, f"SELECT version_num FROM {VERSION_TABLE}") == ["0999"]


def test_a_new_ledger_is_not_set_up_where_that_is_not_allowed(path: Path, url: str) -> None:
    with pytest.raises(Misconfigured, match="may not be migrated"):
        open_ledger(url, migrate=False)
    assert in_file(path, "SELECT name FROM sqlite_master") == []
    open_ledger(url).close()
    open_ledger(url, migrate=False).close()


def test_a_migration_that_fails_leaves_nothing_behind(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("in the middle of it")

    monkeypatch.setattr("alembic.operations.Operations.create_index", fail)
    with pytest.raises(RuntimeError):
        open_ledger(url)
    assert in_file(path, "SELECT name FROM sqlite_master") == []


def test_the_migrations_build_exactly_the_schema(path: Path, url: str) -> None:
    open_ledger(url).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    engine.dispose()


def test_opening_leaves_logging_as_it_was(url: str) -> None:
    before = (logging.root.handlers[:], logging.root.level, logging.getLogger("alembic").level)
    open_ledger(url).close()
    assert (logging.root.handlers[:], logging.root.level, logging.getLogger("alembic").level) == before


def test_a_ledger_that_is_current_is_opened_without_alembic(url: str) -> None:
    open_ledger(url).close()
    with process('open_ledger(url).close(); answer("alembic" in sys.modules)', url) as running:
        assert running.communicate(timeout=60)[0] == "false\n"


def test_importing_the_package_does_not_import_sqlalchemy() -> None:
    script = "import sys, tidepost.ledger; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_wheel_migrates_by_itself_from_any_folder(tmp_path: Path, url: str) -> None:
    root = Path(__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    installed = tmp_path / "100% installed"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(installed)
    script = "import sys, tidepost.ledger as ledger; print(ledger.__file__); ledger.open_ledger(sys.argv[1]).close()"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, url],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ran.stdout.startswith(str(installed))
    open_ledger(url, migrate=False).close()


# ----------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_ledger_in_memory_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="must be a file"):
        open_ledger(text)


@pytest.mark.parametrize("text", ["", "ledger.db", "oracle://me:hunter2@host/x", "sqlite+pysqlcipher://:hunter2@/x"])
def test_a_url_of_another_kind_is_refused_without_its_secret(text: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        open_ledger(text)
    assert "hunter2" not in str(refused.value)


def test_a_timeout_that_is_no_number_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured, match="timeout"):
        open_ledger(f"{url}?timeout=soon")


@pytest.mark.parametrize("content", [b"id,score\n1,0.5\n" * 300, b"SQLite format 3\x00" + b"\xff" * 5_000])
def test_a_file_that_is_not_a_database_is_refused_and_kept(path: Path, url: str, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"ledger\.db cannot be used: it is"):
        open_ledger(url)
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_refused_and_kept(path: Path, url: str) -> None:
    path.parent.mkdir(parents=True)
    in_file(path, "CREATE TABLE alembic_version (version_num TEXT)")
    with pytest.raises(Misconfigured, match="something else"):
        open_ledger(url)
    assert in_file(path, "SELECT name FROM sqlite_master") == ["alembic_version"]


def test_a_damaged_ledger_is_refused(path: Path, url: str) -> None:
    with open_ledger(url) as ledger:
        stream_of(ledger)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match="damaged"), open_ledger(url) as ledger:
        stream_of(ledger)


def test_a_folder_in_place_of_the_file_is_out_of_reach(path: Path, url: str) -> None:
    path.mkdir(parents=True)
    with pytest.raises(Retryable, match="cannot be opened"):
        open_ledger(url)


def test_a_file_in_place_of_the_folder_is_refused(path: Path, url: str) -> None:
    path.parents[1].write_text("not a folder")
    with pytest.raises(Misconfigured, match="folder"):
        open_ledger(url)


def test_a_ledger_that_is_locked_for_too_long_is_to_be_tried_again(path: Path, url: str) -> None:
    with open_ledger(f"{url}?timeout=0.1") as ledger:
        stream = stream_of(ledger)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Retryable, match=r"locked: another process kept it for 0\.1 seconds"):
                ledger.reports.ran(stream)
            assert ledger.plans.coverage(stream).version == 0
        ledger.reports.ran(stream)


def test_a_new_ledger_that_is_locked_for_too_long_is_to_be_tried_again(path: Path, url: str) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Retryable, match="locked"):
            open_ledger(f"{url}?timeout=0.1")


def test_a_full_disk_is_to_be_tried_again_and_nothing_was_written(path: Path, url: str) -> None:
    with open_ledger(url) as ledger:
        stream = stream_of(ledger)
        engine = ledger._database.engine
        event.listen(engine, "connect", lambda one, _: one.execute("PRAGMA max_page_count = 1"))
        engine.dispose()
        with pytest.raises(Retryable, match="disk is full") as refused:
            plan(ledger, *[cut(n, n + 1) for n in range(2_000)])
        assert "Nothing was written" in refused.value.safe
    with open_ledger(url) as ledger:
        assert ledger.plans.coverage(stream).planned == {}
        assert len(plan(ledger, cut(0, 1))) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on files")
def test_a_disk_that_fails_is_to_be_tried_again(url: str) -> None:
    script = """
    import resource
    with open_ledger(url) as ledger:
        stream = ledger.plans.stream("flights", StreamName.INFERENCES, {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            ledger.reports.ran(stream)
        except Retryable as error:
            answer("disk" in error.message)
    """
    with process(script, url) as running:
        assert running.communicate(timeout=60)[0] == "true\n"


def test_a_file_that_may_not_be_written_to_is_refused(url: str) -> None:
    with open_ledger(url) as ledger:
        stream = stream_of(ledger)
        engine = ledger._database.engine
        event.listen(engine, "connect", lambda one, _: one.execute("PRAGMA query_only = ON"))
        engine.dispose()
        with pytest.raises(Misconfigured, match="may not be written to"):
            ledger.reports.ran(stream)


def test_a_fork_works_on_connections_of_its_own(url: str) -> None:
    script = """
    with open_ledger(url) as ledger:
        stream = ledger.plans.stream("flights", StreamName.INFERENCES, {})
        child = os.fork()
        ledger.leases.take("cut", 1 if child else 2, this_process(), 60)
        if child:
            answer(os.waitpid(child, 0)[1])
            answer([ledger.leases.take("cut", 2, this_process(), 60).fence])
    """
    with process(script, url) as running:
        assert running.communicate(timeout=60)[0] == "0\n[2]\n"


# ------------------------------------------------------------------------------------------ with many slices


class Counter:
    """What a call costs, on any machine the same: SQLite's steps (in hundreds) and the rows that come back."""

    def __init__(self, ledger: SqlLedger) -> None:
        self.steps = 0
        event.listen(ledger._database.engine, "checkout", self._watch)

    def _watch(self, connection: sqlite3.Connection, *_: object) -> None:
        connection.set_progress_handler(self._step, 100)

    def _step(self) -> int:
        self.steps += 1
        return 0

    def of(self, call: Callable[[], object]) -> int:
        self.steps = 0
        call()
        return self.steps * 100


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlLedger]:
    """A ledger with 100,000 published slices of ten minutes; three are still to be delivered."""
    path = tmp_path_factory.mktemp("large") / "ledger.db"
    with open_ledger(f"sqlite:///{path}") as ledger:
        stream_of(ledger)
        ten_minutes = HOUR // 6
        in_file(
            path,
            "PRAGMA synchronous = OFF",
            "INSERT INTO requests VALUES (1, 1, 'run', 'incremental', NULL, NULL, 1.0, 'me')",
            "CREATE TEMP TABLE n AS WITH RECURSIVE n(i) AS "
            f"(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY}) SELECT i FROM n",
            f"INSERT INTO cuts SELECT i, 1, 1, i, '', 'incremental', {text('i * 10')}, {text('i * 10 + 10')}, "
            "7, 'done', 8, 7, 0, 0, 0, 0, 0, '1', 0.0, i, i FROM n",
            f"INSERT INTO buckets SELECT 1, '', {text('i * 10')}, {text('i * 10 + 10')}, 8, '1' FROM n",
            "INSERT INTO cut_rejects SELECT i, 'no id', 1, 1 FROM n",
            f"INSERT INTO slices SELECT 1, i, i, 'published', NULL, 7, 100, i * {ten_minutes}, "
            f"(i + 1) * {ten_minutes} - 1, i, i FROM n",
            f"INSERT INTO parts SELECT 1, i, 0, 'p' || i, 7, 100, 'x', i * {ten_minutes}, "
            f"(i + 1) * {ten_minutes} - 1, 0, '', NULL, NULL FROM n",
            "INSERT INTO part_hours SELECT 1, i, 0, i / 6, 7 FROM n",
            f"INSERT INTO deliveries SELECT i, 1, i, 'arthur', CASE WHEN i > {MANY - 3} THEN 'todo' ELSE 'closed' "
            "END, 7, 7, 0, '', NULL, 1.0, 1.0, 1.0, NULL, NULL FROM n",
            "INSERT INTO delivery_hours SELECT i, i / 6, 1, 7, 0 FROM n",
            f"INSERT INTO scanned VALUES (1, '', {text('10')}, {text(f'{MANY * 10 + 10}')})",
            f"UPDATE streams SET published = {MANY}, last_sequence = {MANY}, planned = 1",
        )
        yield ledger


def text(position: str) -> str:
    """A position, given as SQL of an integer, as the tables hold it."""
    return f"printf('1%039d', {position})"


def day(at: int) -> tuple[Range, Range]:
    """The day before the event time of a slice: in microseconds, and in hours."""
    hour = at // 6
    return Range((hour - 24) * HOUR, hour * HOUR), Range(hour - 24, hour)


@pytest.mark.parametrize("at", [MANY, MANY // 2, 300], ids=["new", "middle", "old"])
def test_a_run_with_nothing_new_costs_the_same_however_many_slices_there_are(large: SqlLedger, at: int) -> None:
    stream, (window, hours), cost = stream_of(large), day(at), Counter(large)
    calls: dict[str, Callable[[], object]] = {
        "published": partial(large.slices.published, stream, window),
        "publishing": partial(large.slices.publishing, stream),
        "open": partial(large.deliveries.open, stream, "arthur"),
        "coverage": partial(large.plans.coverage, stream),
        "open_cuts": partial(large.plans.open_cuts, stream),
        "expected": partial(large.reports.expected, stream, "arthur", hours),
        "in_flight": partial(large.reports.in_flight, stream, "arthur", hours),
        "buckets": partial(large.plans.buckets, stream, Range(at * 10, at * 10 + 1440)),
        "slices": partial(large.reports.slices, stream, 100),
        "rejects": partial(large.reports.rejects, stream, 100),
    }
    costs = {name: cost.of(call) for name, call in calls.items()}
    assert {name: steps for name, steps in costs.items() if steps > 20_000} == {}


def test_a_window_in_a_large_ledger_finds_what_it_holds(large: SqlLedger) -> None:
    window, hours = day(MANY // 2)
    assert len(large.slices.published(stream_of(large), window).parts) == 24 * 6
    assert set(large.reports.expected(stream_of(large), "arthur", hours).values()) == {6 * 7}
    assert len(large.deliveries.open(stream_of(large), "arthur")) == 3


def test_a_summary_of_a_large_ledger_reads_no_more_rows_than_it_shows(large: SqlLedger) -> None:
    counted = 0

    def count(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> tuple[object, ...]:
        nonlocal counted
        counted += 1
        return row

    def watch(connection: sqlite3.Connection, *_: object) -> None:
        connection.row_factory = count

    event.listen(large._database.engine, "checkout", watch)
    try:
        (summary,) = large.reports.summary("flights")
    finally:
        event.remove(large._database.engine, "checkout", watch)
        large._database.engine.dispose()
    assert (summary.slices, summary.rows, summary.rejected) == (MANY, 7 * MANY, {"no id": MANY})
    assert counted < 30


def test_a_destination_that_is_enrolled_already_reads_no_slice(large: SqlLedger) -> None:
    statements: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    event.listen(large._database.engine, "before_cursor_execute", note)
    try:
        assert large.deliveries.enroll(stream_of(large), "arthur") == 0
    finally:
        event.remove(large._database.engine, "before_cursor_execute", note)
    assert all("count(" in one for one in statements if "slices" in one)


def test_publishing_into_a_large_ledger_costs_the_same_as_into_a_small_one(large: SqlLedger, tmp_path: Path) -> None:
    def published(ledger: SqlLedger) -> int:
        (one,) = plan(ledger, cut(MANY * 100, MANY * 100 + 1), key="one more")
        return Counter(ledger).of(partial(publish, ledger, one))

    with open_ledger(f"sqlite:///{tmp_path}/small.db") as small:
        small.plans.stream("flights", StreamName.INFERENCES, {})
        assert published(large) < published(small) + 5_000
    assert len(large.deliveries.open(stream_of(large), "arthur")) == 4


# -------------------------------------------------------------------------------------------------- the log


def test_the_log_of_seen_cursors_stays_small(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidepost.ledger.reports._KEPT_IN_LOG", 10)
    with open_ledger(url) as ledger:
        stream = stream_of(ledger)
        for number in range(25):
            ledger.reports.seen(stream, float(number), number)
            ledger.reports.seen(stream, number + 0.5, number)
        assert ledger.reports.highest_seen(stream, 100.0) == 24
        assert ledger.reports.highest_seen(stream, 14.9) is None
    assert in_file(path, "SELECT count(*) FROM seen") == [10]
