"""The ledger on PostgreSQL: the contract, and what is PostgreSQL's own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg.sql import SQL, Identifier
from psycopg.sql import Literal as Value
from sqlalchemy import make_url, text, update
from tests.postgres import ADMIN, Server, server

pytest.register_assert_rewrite("tests.contracts.ledger_contract")

from tests.contracts.ledger_contract import (  # noqa: E402
    COLUMNS,
    Clock,
    LedgerContract,
    NewUrl,
    begin,
    cut,
    draft,
    lease_cut,
    lease_delivery,
    part,
    plan,
    process,
    processes_together,
    publish,
    stream_of,
    together,
)

from tidepost import __version__  # noqa: E402
from tidepost.errors import HeldElsewhere, Misconfigured, Outdated, Retryable, TidepostError  # noqa: E402
from tidepost.ledger import open_ledger  # noqa: E402
from tidepost.ledger import postgres as backend  # noqa: E402
from tidepost.ledger.leases import verify  # noqa: E402
from tidepost.ledger.owner import this_process  # noqa: E402
from tidepost.ledger.schema import REVISION, VERSION_TABLE, metadata, streams  # noqa: E402
from tidepost.ledger.sql import SqlLedger  # noqa: E402
from tidepost.model import (  # noqa: E402
    Cut,
    Delivery,
    DeliveryState,
    Proof,
    Request,
    ScanKind,
    SendForm,
    SendState,
    StreamName,
    Tally,
)
from tidepost.ranges import Range, Ranges  # noqa: E402

MIGRATE = "tidepost ledger migrate"


class TestPostgresLedger(LedgerContract):
    @pytest.fixture
    def new_url(self, new_ledger: NewUrl) -> NewUrl:
        return new_ledger


@pytest.fixture
def url(new_ledger: NewUrl) -> str:
    """Of a ledger that is set up."""
    return new_ledger()


@pytest.fixture
def empty(new_database: NewUrl) -> str:
    """Of a database with nothing in it."""
    return new_database()


@pytest.fixture
def ledger(url: str) -> Iterator[SqlLedger]:
    with open_ledger(url) as ledger:
        yield ledger


@pytest.fixture
def run(postgres: Server) -> Callable[..., list[Any]]:
    """Runs statements on a URL's database, past the ledger."""
    return lambda url, *statements: postgres.execute(database_of(url), *statements)


@pytest.fixture
def guest(postgres: Server) -> Iterator[str]:
    """A user who may connect, and nothing else."""
    yield from user(postgres, "guest", SQL(""))


@pytest.fixture
def guarded(postgres: Server) -> Iterator[str]:
    """A user whom the server asks for a password, which is "right"."""
    yield from user(postgres, "guarded", SQL("PASSWORD 'right'"))


def user(postgres: Server, name: str, options: SQL) -> Iterator[str]:
    postgres.execute(ADMIN, SQL("CREATE ROLE {} LOGIN {}").format(Identifier(name), options))
    yield name
    for database in postgres.execute(ADMIN, "SELECT datname FROM pg_database WHERE datallowconn"):
        postgres.execute(database, SQL("DROP OWNED BY {}").format(Identifier(name)))
    postgres.execute(ADMIN, SQL("DROP ROLE {}").format(Identifier(name)))


def database_of(url: str) -> str:
    return make_url(url).database or ""


def as_user(url: str, name: str, password: str | None = None) -> str:
    return make_url(url).set(username=name, password=password).render_as_string(hide_password=False)


# ---------------------------------------------------------------------------------------------------- opening


def test_an_empty_database_is_not_set_up_unasked(empty: str, run: Callable[..., list[Any]]) -> None:
    with pytest.raises(Misconfigured) as refused:
        open_ledger(empty)
    assert MIGRATE in refused.value.hint
    assert run(empty, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []
    open_ledger(empty, migrate=True).close()
    open_ledger(empty).close()


def test_an_older_ledger_is_not_migrated_unasked(url: str, run: Callable[..., list[Any]]) -> None:
    run(url, f"UPDATE {VERSION_TABLE} SET version_num = '0000'")
    with pytest.raises(Misconfigured) as refused:
        open_ledger(url)
    assert MIGRATE in refused.value.hint
    assert run(url, f"SELECT version_num FROM {VERSION_TABLE}") == ["0000"]


def test_a_ledger_that_a_newer_tidepost_wrote_is_refused_with_both_versions(
    url: str, run: Callable[..., list[Any]]
) -> None:
    run(url, f"UPDATE {VERSION_TABLE} SET version_num = '0999'", "UPDATE ledger SET written_by = '9.8.7'")
    with pytest.raises(Misconfigured) as refused:
        open_ledger(url, migrate=True)
    assert "written by tidepost 9.8.7 (tables 0999)" in refused.value.message
    assert f"this is tidepost {__version__}, which knows tables up to {REVISION}" in refused.value.message


def test_of_processes_that_migrate_at_once_one_does_and_all_succeed(
    empty: str, run: Callable[..., list[Any]]
) -> None:
    script = """
    import tidepost.ledger.migrate as migrate
    migrated, upgrade = [], migrate._upgrade
    migrate._upgrade = lambda connection: migrated.append(upgrade(connection))
    ready()
    with open_ledger(url, migrate=True) as ledger:
        answer([len(migrated), ledger.id])
    """
    answers = processes_together(script, empty, 4)
    assert sum(migrated for migrated, _ in answers) == 1
    assert {identity for _, identity in answers} == set(run(empty, "SELECT id FROM ledger"))


def test_a_migration_waits_for_another_ones_end_for_as_long_as_it_takes(
    empty: str, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(backend._SETTINGS, "lock_timeout", "50ms")
    monkeypatch.setitem(backend._SETTINGS, "statement_timeout", "50ms")
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with (
        ThreadPoolExecutor(1) as threads,
        psycopg.connect(empty) as other,
    ):
        other.execute("SELECT pg_advisory_xact_lock(%s)", (backend._MIGRATION,))
        migrating = threads.submit(lambda: open_ledger(empty, migrate=True).close())
        while postgres.execute(ADMIN, waiting) == [0]:
            time.sleep(0.01)
        time.sleep(0.2)
        assert not migrating.done()
        other.rollback()
        migrating.result(30)


def test_a_migration_that_fails_leaves_nothing_behind(
    empty: str, run: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("in the middle of it")

    monkeypatch.setattr("alembic.operations.Operations.create_index", fail)
    with pytest.raises(RuntimeError):
        open_ledger(empty, migrate=True)
    assert run(empty, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []


def test_the_migrations_build_exactly_the_schema(ledger: SqlLedger) -> None:
    with ledger._database.read() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_a_database_of_something_else_is_refused_and_kept(empty: str, run: Callable[..., list[Any]]) -> None:
    run(empty, "CREATE TABLE alembic_version (version_num TEXT)")
    with pytest.raises(Misconfigured, match="something else"):
        open_ledger(empty, migrate=True)
    assert run(empty, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == ["alembic_version"]


def test_a_schema_can_hold_a_ledger(empty: str, run: Callable[..., list[Any]]) -> None:
    run(empty, "CREATE SCHEMA one", "CREATE SCHEMA two", "CREATE TABLE public.other (id int)")
    ids = []
    for schema in ("one", "two"):
        with open_ledger(f"{empty}&options=-csearch_path%3D{schema}", migrate=True) as ledger:
            ids.append(ledger.id)
            assert len(plan(ledger, cut(0, 10))) == 1
    assert len(set(ids)) == 2
    with pytest.raises(Misconfigured, match="schema"):
        open_ledger(f"{empty}&options=-csearch_path%3Dthree", migrate=True)


def test_a_user_needs_to_read_and_write_the_tables_and_no_more(
    url: str, guest: str, run: Callable[..., list[Any]]
) -> None:
    run(
        url,
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO guest",
    )
    with open_ledger(as_user(url, guest)) as ledger:
        ACTS["a_settled_total"](ledger)(ledger)
        one, two = plan(ledger, cut(10, 20), cut(20, 30))
        ledger.slices.withdraw(stream_of(ledger), begin(ledger, one, part(0, {5: 1})).sequence)
        ledger.slices.empty(lease_cut(ledger, two), stream_of(ledger), two, Tally())
        assert ledger.reports.summary("flights")[0].slices == 1


@pytest.mark.parametrize("migrates", [None, True])
def test_what_a_user_has_no_right_to_is_named(
    url: str, empty: str, guest: str, migrates: bool | None, run: Callable[..., list[Any]]
) -> None:
    where = empty if migrates else url
    with pytest.raises(Misconfigured, match=r"the user has no right to it: permission denied for (table|schema) \w+"):
        open_ledger(as_user(where, guest), migrate=migrates)


# ------------------------------------------------------------------------------------------------ connections


def test_connections_say_who_they_are_and_none_idles_in_a_transaction(ledger: SqlLedger, url: str) -> None:
    publish(ledger, plan(ledger, cut(0, 10))[0])
    ledger.reports.summary("flights")
    with suppress(Outdated):
        ledger.slices.withdraw(stream_of(ledger), 1)
    activity = "SELECT DISTINCT application_name, state FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
    with psycopg.connect(url) as other:
        mine = other.info.backend_pid
        assert other.execute(activity, (database_of(url), mine)).fetchall() == [("tidepost", "idle")]


def test_what_the_url_says_of_the_connection_wins(url: str, postgres: Server) -> None:
    with (
        open_ledger(f"{url}&application_name=mine") as ledger,
        ledger._database.read() as connection,
    ):
        assert connection.execute(text("SHOW application_name")).scalar() == "mine"


def test_a_write_is_durable_where_the_server_would_not_wait_for_it(url: str, run: Callable[..., list[Any]]) -> None:
    run(url, SQL("ALTER DATABASE {} SET synchronous_commit = off").format(Identifier(database_of(url))))
    with open_ledger(url) as ledger, ledger._database.write() as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"


def test_a_read_is_one_snapshot_and_a_write_sees_what_was_committed_before_each_statement(
    ledger: SqlLedger, url: str
) -> None:
    stream = stream_of(ledger)
    version = streams.select().with_only_columns(streams.c.planned)
    with open_ledger(url) as other:
        for transaction, seen in ((ledger._database.read, 0), (ledger._database.write, 2)):
            with transaction() as connection:
                before = connection.execute(version).scalar_one()
                other.plans.write(stream, Request(f"from {before}", ScanKind.INCREMENTAL), [], before)
                assert connection.execute(version).scalar_one() == seen


def test_a_read_cannot_write(ledger: SqlLedger) -> None:
    with pytest.raises(Retryable, match="takes no writes"), ledger._database.read() as connection:
        connection.execute(update(streams).values(planned=1))


def test_a_connection_that_the_server_ended_meanwhile_is_replaced(ledger: SqlLedger, url: str) -> None:
    stream_of(ledger)
    with psycopg.connect(url) as other:
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
        assert other.execute(end, (database_of(url), other.info.backend_pid)).fetchall()
    assert len(plan(ledger, cut(0, 10))) == 1


def test_a_thread_waits_for_a_connection_only_so_long(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_CONNECTIONS": 1, "_MORE_CONNECTIONS": 0, "_PATIENCE": 0.1}.items():
        monkeypatch.setattr(backend, name, value)
    with (
        open_ledger(url) as ledger,
        ledger._database.read(),
        pytest.raises(Retryable, match="connections to it are in use"),
    ):
        ledger.plans.find("flights", StreamName.INFERENCES)


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


# ----------------------------------------------------------------------------------------------------- errors


def test_without_its_driver_the_extra_is_named() -> None:
    script = """
    sys.modules["psycopg"] = None
    try:
        open_ledger(url)
    except Misconfigured as error:
        answer(error.hint)
    """
    with process(script, "postgresql://host/database") as running:
        assert "pip install 'tidepost[postgres]'" in running.communicate(timeout=60)[0]


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg", "psycopg_async"])
def test_another_driver_is_refused(driver: str) -> None:
    with pytest.raises(Misconfigured, match="cannot use the driver"):
        open_ledger(f"postgresql+{driver}://me:hunter2@host/database")


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_url_may_name_the_driver(url: str, scheme: str) -> None:
    open_ledger(url.replace("postgresql", scheme, 1)).close()


@pytest.mark.parametrize("password", ["hunter2", "right but longer"])
@pytest.mark.parametrize("place", ["user", "query"])
def test_a_wrong_password_is_refused_and_not_shown(url: str, guarded: str, password: str, place: str) -> None:
    wrong = (
        as_user(url, guarded, password) if place == "user" else f"{as_user(url, guarded)}&password={quote(password)}"
    )
    with pytest.raises(Misconfigured, match="refuses the user or the password") as refused:
        open_ledger(wrong)
    assert password not in str(refused.value)
    assert refused.value.__suppress_context__
    assert "//guarded" in refused.value.message


def test_a_right_password_is_taken(url: str, guarded: str, run: Callable[..., list[Any]]) -> None:
    run(url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO guarded")
    open_ledger(as_user(url, guarded, "right")).close()


def test_a_password_that_is_missing_is_asked_for(url: str, guarded: str) -> None:
    with pytest.raises(Misconfigured, match="asks for a password"):
        open_ledger(as_user(url, guarded))


@pytest.mark.parametrize("rest", ["hunt@er2@host/database", "hunt@er/2@host/database", "hunt@/er2@host"])
def test_a_password_that_is_not_written_as_urls_need_it_is_not_shown(rest: str) -> None:
    with pytest.raises(Misconfigured, match="more than one @") as refused:
        open_ledger(f"postgresql://me:{rest}")
    assert "er" not in refused.value.message.replace("there", "").replace("ledger", "")
    assert "%40" in refused.value.hint


@pytest.mark.parametrize(
    ("change", "why"),
    {
        "/ledger_": ("/nowhere_", "no such user or database"),
        "postgres@": ("nobody@", "no such user or database"),
        "?host": ("?hots", "an option that PostgreSQL does not know"),
        "?": ("?sslmode=sometimes&", "no such value"),
    }.items(),
)
def test_what_no_retry_can_mend_is_to_be_mended(url: str, change: str, why: tuple[str, str]) -> None:
    with pytest.raises(Misconfigured, match=why[1]):
        open_ledger(url.replace(change, why[0], 1))


@pytest.mark.parametrize(
    ("where", "why"),
    {
        "postgresql://me:hunter2@/database?host=/nowhere": "nothing listens there",
        "postgresql://me:hunter2@127.0.0.1:1/database": "nothing listens there",
        "postgresql://me:hunter2@nowhere.invalid/database": "the name of its host is not known",
        "postgresql://me:hunter2@127.0.0.1:{silent}/database?connect_timeout=2": "does not answer",
    }.items(),
)
def test_a_server_out_of_reach_is_to_be_tried_again(where: str, why: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Retryable, match=why) as refused:
            open_ledger(where.format(silent=port))
    assert "hunter2" not in str(refused.value)


def test_a_server_that_takes_no_more_connections_is_to_be_tried_again(
    url: str, guest: str, run: Callable[..., list[Any]]
) -> None:
    run(url, SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(Identifier(database_of(url))))
    with pytest.raises(Retryable, match="no more connections"):
        open_ledger(as_user(url, guest))


def test_a_database_that_is_read_only_for_a_while_can_be_read(url: str, run: Callable[..., list[Any]]) -> None:
    with open_ledger(url) as ledger:
        stream = stream_of(ledger)
    database = Identifier(database_of(url))
    run(url, SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(database))
    with open_ledger(url) as ledger:
        assert ledger.plans.coverage(stream).version == 0
        with pytest.raises(Retryable, match="takes no writes now"):
            plan(ledger, cut(0, 10))


LATER = "08006 25006 25P03 40001 40P01 53000 53100 53200 53300 55P03 57014 57P05 58030".split()
NEVER = "22021 28000 3D000 42501 XX001".split()


@pytest.mark.parametrize("code", [*LATER, *NEVER, "23505", "22012", "XX000"])
def test_an_error_of_the_servers_is_told_by_what_to_do_and_without_values(
    ledger: SqlLedger, url: str, code: str, run: Callable[..., list[Any]]
) -> None:
    stream = stream_of(ledger)
    fail = "RAISE 'key %', NEW.key USING ERRCODE = {}, DETAIL = NEW.key, HINT = NEW.key"
    run(
        url,
        SQL("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS {}").format(
            Value(SQL(f"BEGIN {fail}; END").format(Value(code)).as_string())
        ),
        "CREATE TRIGGER fail BEFORE INSERT ON requests FOR EACH ROW EXECUTE FUNCTION fail()",
    )
    with pytest.raises(TidepostError) as raised:
        ledger.plans.write(stream, Request("secret", ScanKind.INCREMENTAL), [], 0)
    kind = Retryable if code in LATER else Misconfigured if code in NEVER else TidepostError
    assert raised.type is kind
    assert "Nothing was written" in raised.value.safe or kind is Misconfigured
    if code != "42501":  # of this one the server's own words are shown, which never hold values
        assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__
    assert ledger.plans.coverage(stream).version == 0


def test_a_row_that_is_locked_for_too_long_is_to_be_tried_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backend._SETTINGS, "lock_timeout", "100ms")
    with open_ledger(url) as ledger:
        stream = stream_of(ledger)
        with psycopg.connect(url) as other:
            other.execute("SELECT 1 FROM streams FOR UPDATE")
            with pytest.raises(Retryable, match="it is locked"):
                ledger.reports.ran(stream)
            assert ledger.plans.coverage(stream).version == 0
        ledger.reports.ran(stream)


def test_a_process_that_is_stopped_in_a_transaction_does_not_keep_its_locks(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(url) as ledger:
        stream = stream_of(ledger)
        monkeypatch.setitem(backend._SETTINGS, "idle_in_transaction_session_timeout", "200ms")
        with open_ledger(url) as stopped:

            def work() -> None:
                with stopped._database.write() as connection:
                    connection.execute(update(streams).values(planned=99))
                    ledger.reports.ran(stream)  # waits for the other one's end
                    connection.execute(update(streams).values(planned=100))

            with pytest.raises(Retryable):
                work()
        assert ledger.plans.coverage(stream).version == 0


def test_text_that_postgresql_cannot_hold_is_kept_without_what_it_cannot(ledger: SqlLedger) -> None:
    delivery = publish(ledger, plan(ledger, cut(0, 10))[0])
    lease = lease_delivery(ledger, delivery)
    send = ledger.deliveries.intend(lease, delivery, 0, SendForm.FILE, 3)
    ledger.deliveries.answer(lease, send, SendState.REFUSED, "row 1:\x00 bad ☃")
    assert ledger.deliveries.contents(delivery)[1][0].detail == "row 1:\N{REPLACEMENT CHARACTER} bad ☃"


# ----------------------------------------------------------------------------------------------------- clocks


def test_leases_go_by_the_servers_clock_however_wrong_the_workers_are(
    ledger: SqlLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = ledger.leases.take("cut", 1, "slow", 60)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with open_ledger(url) as ahead:
        with pytest.raises(HeldElsewhere):
            ahead.leases.take("cut", 1, "ahead", 60)
        assert ahead.leases.renew(lease, 60).until < lease.until + 30
        assert ahead.plans.stream("trains", StreamName.INFERENCES, {}).id


def test_a_lease_begins_when_it_was_had_and_not_when_it_was_asked_for(ledger: SqlLedger, url: str) -> None:
    lease = ledger.leases.take("cut", 1, "one", 1)
    with psycopg.connect(url) as other, ThreadPoolExecutor(1) as threads:
        other.execute("SELECT 1 FROM leases FOR UPDATE")
        waiting = threads.submit(ledger.leases.take, "cut", 1, "two", 60)
        time.sleep(1.1)
        other.rollback()
        assert waiting.result(30).until > lease.until + 60 - 0.5


# ------------------------------------------------------------------------------------------------ concurrency


def test_whoever_takes_a_lapsed_lease_over_waits_for_what_is_done_under_it(url: str) -> None:
    clock = Clock()
    with (
        open_ledger(url, clock=clock) as ledger,
        open_ledger(url, clock=clock) as other,
        ThreadPoolExecutor(1) as threads,
    ):
        lease = ledger.leases.take("cut", 1, "one", 60)
        clock.now += 61
        with ledger._database.write() as connection:
            verify(connection, lease, "cut", 1)
            waiting = threads.submit(other.leases.take, "cut", 1, "two", 60)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
        assert waiting.result(30).fence == lease.fence + 1


def test_sixteen_workers_publish_and_deliver_each_cut_once(ledger: SqlLedger, url: str) -> None:
    cuts, workers = 32, 16
    plan(ledger, *[cut(n, n + 1) for n in range(cuts)])

    def work() -> int:
        mine = 0
        with open_ledger(url) as own:
            stream = stream_of(own)
            while planned := own.plans.open_cuts(stream):
                for one in planned:
                    mine += publish_one(own, one)
            for delivery in own.deliveries.open(stream, "arthur"):
                close(own, delivery)
        return mine

    done = together(*[work] * workers)
    assert sum(done) == cuts
    (summary,) = ledger.reports.summary("flights")
    assert (summary.slices, summary.rows, summary.open_cuts) == (cuts, cuts, 0)
    assert summary.scanned == {"": Ranges((Range(0, cuts),))}
    assert summary.destinations[0].deliveries == {DeliveryState.CLOSED: cuts}
    parts = ledger.slices.published(stream_of(ledger), None).parts
    assert [one.sequence for one in parts] == list(range(1, cuts + 1))


def publish_one(ledger: SqlLedger, of: Cut, seconds: float = 60) -> bool:
    """Publish a cut, as a run does; False where another worker has it, or something was published meanwhile."""
    stream = stream_of(ledger)
    try:
        lease = ledger.leases.take("cut", of.id, this_process(), seconds)
    except HeldElsewhere:
        return False
    try:
        begun = ledger.slices.begin(lease, stream, draft(of, part(0, {5: 1})), stream.published, COLUMNS)
        ledger.slices.finish(stream, begun, ["arthur"])
    except (HeldElsewhere, Outdated):
        return False
    finally:
        ledger.leases.release(lease)
    return True


def close(ledger: SqlLedger, delivery: Delivery) -> None:
    """Send a delivery and close it, unless another worker does or did."""
    try:
        lease = ledger.leases.take("delivery", delivery.id, this_process(), 60)
    except HeldElsewhere:
        return
    if ledger.deliveries.current(delivery).state is DeliveryState.TODO:
        send = ledger.deliveries.intend(lease, delivery, 0, SendForm.FILE, 1)
        ledger.deliveries.answer(lease, send, SendState.ACCEPTED, "")
        ledger.deliveries.settle(lease, delivery, DeliveryState.CLOSED, arrived=1, proof=Proof.ROWS)
    ledger.leases.release(lease)


def test_a_slice_that_is_released_while_a_destination_joins_is_held_nowhere(ledger: SqlLedger, url: str) -> None:
    with open_ledger(url) as other:
        for one in plan(ledger, *[cut(n, n + 1) for n in range(12)]):
            sequence = publish(ledger, one, held="too many rejects").sequence
            answers = together(
                lambda: ledger.deliveries.enroll(stream_of(ledger), "arize"),
                lambda sequence=sequence: other.deliveries.release(  # type: ignore[misc]
                    stream_of(other), sequence, who="ada", why="fine"
                ),
            )
            assert answers[0] == 1
            states = ledger.reports.slices(stream_of(ledger), 1)[0].states
            assert states == {"arthur": DeliveryState.TODO, "arize": DeliveryState.TODO}


def test_enrolling_and_finishing_at_once_create_each_delivery_once(ledger: SqlLedger, url: str) -> None:
    with open_ledger(url) as other:
        for one in plan(ledger, *[cut(n, n + 1) for n in range(12)]):
            begun = begin(ledger, one, part(0, {5: 1}))
            answers = together(
                lambda begun=begun: ledger.slices.finish(  # type: ignore[misc]
                    stream_of(ledger), begun, ["arthur", "arize"]
                ),
                lambda: other.deliveries.enroll(stream_of(other), "arize"),
            )
            assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert len(ledger.deliveries.open(stream_of(ledger), "arize")) == 12


# -------------------------------------------------------------------------------------------------- a server's end


@pytest.fixture(scope="module")
def fragile() -> Iterator[Server]:
    """A server of this module's own, to be killed."""
    with server() as started:
        yield started


def test_a_server_killed_in_a_transaction_has_none_of_it_and_goes_on_after_its_restart(fragile: Server) -> None:
    with open_ledger(fragile.url(fragile.new_ledger())) as ledger:
        stream = stream_of(ledger)
        (one,) = plan(ledger, cut(0, 10))

        def work() -> None:
            with ledger._database.write() as connection:
                connection.execute(update(streams).values(planned=99))
                fragile.kill()
                connection.execute(update(streams).values(planned=100))

        with pytest.raises(Retryable) as failed:
            work()
        assert "connection to it was lost" in failed.value.message
        assert failed.value.safe == "Nothing was written."
        with pytest.raises(Retryable, match="nothing listens there"):
            ledger.plans.coverage(stream)
        fragile.start()
        assert ledger.plans.coverage(stream).version == 1
        assert publish(ledger, one).sequence == 1


def test_workers_whose_server_is_killed_again_and_again_publish_each_cut_once(fragile: Server) -> None:
    cuts, workers = 60, 4
    url = fragile.url(fragile.new_ledger())
    with open_ledger(url) as ledger:
        stream = stream_of(ledger)
        plan(ledger, *[cut(n, n + 1) for n in range(cuts)])
        calm = threading.Event()

        def work(own: SqlLedger) -> None:
            while True:
                try:
                    half = own.slices.publishing(stream)
                    if half is not None:
                        own.slices.finish(stream, half, ["arthur"])
                    planned = own.plans.open_cuts(stream)
                    if not planned and calm.is_set():
                        return
                    for one in planned:
                        publish_one(own, one, seconds=1)  # one that cannot be released lapses
                except Retryable:
                    time.sleep(0.02)

        with ExitStack() as stack:
            own = [stack.enter_context(open_ledger(url)) for _ in range(workers)]
            threads = stack.enter_context(ThreadPoolExecutor(workers))
            working = [threads.submit(work, one) for one in own]
            for _ in range(3):
                time.sleep(0.15)
                fragile.kill()
                fragile.start()
            calm.set()
            for one in working:
                one.result(60)
        (summary,) = ledger.reports.summary("flights")
        assert (summary.slices, summary.rows, summary.open_cuts) == (cuts, cuts, 0)
        assert summary.destinations[0].deliveries == {DeliveryState.TODO: cuts}


# ------------------------------------------------------------------------------------- a commit without an answer

Act = Callable[[SqlLedger], object]


class Wire:
    """A way to a server that loses the commit of a write, when it is told to: before the server sees it, or only
    its answer."""

    def __init__(self, to: Path) -> None:
        self._to = str(to)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.lose: Literal["commit", "answer"] | None = None
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            there = socket.socket(socket.AF_UNIX)
            there.connect(self._to)
            lost = threading.Event()
            for way in (self._forth, self._back):
                self._threads.append(threading.Thread(target=way, args=(client, there, lost), daemon=True))
                self._threads[-1].start()

    def _forth(self, client: socket.socket, there: socket.socket, lost: threading.Event) -> None:
        writes = False
        while data := _received(client):
            if b"BEGIN" in data:
                writes = b"READ ONLY" not in data
            if b"COMMIT\x00" in data and writes and self.lose is not None:
                if self.lose == "commit":
                    break
                lost.set()
            there.sendall(data)
        _end(there)

    def _back(self, client: socket.socket, there: socket.socket, lost: threading.Event) -> None:
        while data := _received(there):
            if lost.is_set():
                break
            client.sendall(data)
        _end(there)
        _end(client)
        there.close()
        client.close()


def _received(from_: socket.socket) -> bytes:
    try:
        return from_.recv(65536)
    except OSError:
        return b""


def _end(of: socket.socket) -> None:
    with suppress(OSError):
        of.shutdown(socket.SHUT_RDWR)


@contextmanager
def wired(url: str) -> Iterator[tuple[SqlLedger, Wire]]:
    """The ledger at a URL of a socket, by a wire that can lose a commit."""
    to = make_url(url)
    with (
        closing(Wire(Path(str(to.query["host"])) / ".s.PGSQL.5432")) as wire,
        open_ledger(f"postgresql://{to.username}@127.0.0.1:{wire.port}/{to.database}") as ledger,
    ):
        yield ledger, wire


def a_plan(ledger: SqlLedger) -> Act:
    stream = stream_of(ledger)
    request = Request("run 1", ScanKind.INCREMENTAL)
    return lambda of: of.plans.write(stream, request, [cut(0, 10), cut(10, 20)], 0)


def a_stream(ledger: SqlLedger) -> Act:
    return lambda of: of.plans.stream("flights", StreamName.INFERENCES, {"cursor": "at"})


def a_lease_of_a_process_that_ended(ledger: SqlLedger) -> Act:
    plan(ledger, cut(0, 10))
    host, boot, namespace, pid, _, drawn = this_process().split("/")
    return lambda of: of.leases.take("cut", 1, "/".join((host, boot, namespace, pid, "1", drawn)), 60)


def a_renewal(ledger: SqlLedger) -> Act:
    lease = ledger.leases.take("cut", 1, "me", 60)
    return lambda of: of.leases.renew(lease, 60)


def a_release_of_a_lease(ledger: SqlLedger) -> Act:
    lease = ledger.leases.take("cut", 1, "me", 60)
    return lambda of: of.leases.release(lease)


def a_slice_that_begins(ledger: SqlLedger) -> Act:
    (one,) = plan(ledger, cut(0, 10))
    lease, asked = lease_cut(ledger, one), draft(one, part(0, {5: 1}))

    def act(of: SqlLedger) -> None:
        # As a run does: what is found half published is finished, not begun again.
        if of.slices.publishing(stream_of(of)) is None:
            of.slices.begin(lease, stream_of(of), asked, 0, COLUMNS)

    return act


def a_slice_that_ends(ledger: SqlLedger) -> Act:
    (one,) = plan(ledger, cut(0, 10))
    begun = begin(ledger, one, part(0, {5: 1}))
    return lambda of: of.slices.finish(stream_of(of), begun, ["arthur", "arize"])


def an_empty_cut(ledger: SqlLedger) -> Act:
    (one,) = plan(ledger, cut(0, 10))
    lease = lease_cut(ledger, one)
    return lambda of: of.slices.empty(lease, stream_of(of), one, Tally(scanned=2, duplicates=2))


def a_withdrawal(ledger: SqlLedger) -> Act:
    (one,) = plan(ledger, cut(0, 10))
    begun = begin(ledger, one, part(0, {5: 1}))
    return lambda of: of.slices.withdraw(stream_of(of), begun.sequence)


def a_destination_that_joins(ledger: SqlLedger) -> Act:
    publish(ledger, plan(ledger, cut(0, 10))[0])
    return lambda of: of.deliveries.enroll(stream_of(of), "arize")


def an_answer(ledger: SqlLedger) -> Act:
    delivery = publish(ledger, plan(ledger, cut(0, 10))[0])
    lease = lease_delivery(ledger, delivery)
    send = ledger.deliveries.intend(lease, delivery, 0, SendForm.FILE, 3)
    return lambda of: of.deliveries.answer(lease, send, SendState.ACCEPTED, "{}")


def a_settled_total(ledger: SqlLedger) -> Act:
    delivery = publish(ledger, plan(ledger, cut(0, 10))[0])
    lease = lease_delivery(ledger, delivery)
    return lambda of: of.deliveries.settle(lease, delivery, DeliveryState.CLOSED, arrived=2, refused={7: 1})


def a_release_of_a_slice(ledger: SqlLedger) -> Act:
    sequence = publish(ledger, plan(ledger, cut(0, 10))[0], held="too many rejects").sequence
    return lambda of: of.deliveries.release(stream_of(of), sequence, who="ada", why="fine")


def a_log_of_what_was_seen(ledger: SqlLedger) -> Act:
    return lambda of: of.reports.seen(stream_of(of), 1.0, 5)


ACTS = {
    act.__name__: act
    for act in (
        a_plan,
        a_stream,
        a_lease_of_a_process_that_ended,
        a_renewal,
        a_release_of_a_lease,
        a_slice_that_begins,
        a_slice_that_ends,
        an_empty_cut,
        a_withdrawal,
        a_destination_that_joins,
        an_answer,
        a_settled_total,
        a_release_of_a_slice,
        a_log_of_what_was_seen,
    )
}
TABLES = {
    "streams": "identity, published, last_sequence, planned, pinned",
    "requests": "key",
    "cuts": "state, scanned, published, duplicates, sequence",
    "slices": "sequence, state, held, rows",
    "scanned": '"start", "end"',
    "deliveries": "sequence, destination, state, arrived, refused",
    "delivery_hours": "hour, rows, refused",
    "sends": "part, attempt, state",
    "leases": "kind, ref, owner",
    "seen": "at, highest",
    "audit": "who, what, why",
}


def content(server: Server, url: str) -> dict[str, list[Any]]:
    """What a ledger holds, without instants and numbers of rows."""
    return {
        table: sorted(server.execute(database_of(url), f"SELECT ROW({columns})::text FROM {table}"))
        for table, columns in TABLES.items()
    }


@pytest.mark.parametrize("lost", ["commit", "answer"])
@pytest.mark.parametrize("act", ACTS)
def test_an_act_whose_commit_had_no_answer_is_in_doubt_and_when_repeated_done_once(
    new_ledger: NewUrl, postgres: Server, act: str, lost: Literal["commit", "answer"]
) -> None:
    undisturbed, disturbed = new_ledger(), new_ledger()
    with open_ledger(undisturbed) as ledger:
        stream_of(ledger)
        ACTS[act](ledger)(ledger)
    with open_ledger(disturbed) as ledger:
        stream_of(ledger)
        doing = ACTS[act](ledger)
        before = content(postgres, disturbed)
        with wired(disturbed) as (over, wire):
            wire.lose = lost
            with pytest.raises(Retryable) as raised:
                doing(over)
            wire.lose = None
            assert "is not known" in raised.value.safe
            written = content(postgres, disturbed) != before
            assert written is (lost == "answer" and act != "a_renewal")
            doing(over)
    assert content(postgres, disturbed) == content(postgres, undisturbed)


def test_an_intent_in_doubt_stays_a_send_without_an_answer(url: str, ledger: SqlLedger) -> None:
    delivery = publish(ledger, plan(ledger, cut(0, 10))[0])
    lease = lease_delivery(ledger, delivery)
    with wired(url) as (over, wire):
        wire.lose = "answer"
        with pytest.raises(Retryable):
            over.deliveries.intend(lease, delivery, 0, SendForm.FILE, 3)
    again = ledger.deliveries.intend(lease, delivery, 0, SendForm.FILE, 3)
    sends = ledger.deliveries.contents(delivery)[1]
    assert [(one.attempt, one.state) for one in sends] == [(1, SendState.INTENT), (2, SendState.INTENT)]
    assert sends[1] == again
