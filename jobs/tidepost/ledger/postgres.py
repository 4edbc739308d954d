"""PostgreSQL as the ledger's database: for workers on several hosts, whose clocks need not agree.

Reads are REPEATABLE READ and read only: each block is one snapshot. Writes are READ COMMITTED, and right because of
the locks that they take before they read what they decide on:

- Planning, publishing, withdrawing, enrolling and releasing lock the stream's row first (`plans.lock`). Whatever
  they compare (`planned`, `published`, a cut's or a slice's state, whether a delivery exists) changes under that
  lock only, and each of their statements sees all that was committed when it began: what the holder of the lock
  before them wrote included. REPEATABLE READ would not do: its snapshot is older than the lock that it waits for.
- Every fence check locks the lease's row (`leases.verify`), and taking a lease locks the same row: either the
  take-over waits until the checked transaction has ended, or the check sees the new fence. What a delivery's lease
  covers, its sends and totals, is written under that lock.
- Rows are locked in one order, stream, lease, slice, delivery, its hours, so that nobody waits in a circle.
- The unique keys, above all the one slice of a stream that is `publishing`, hold even against a mistake in this.

A commit whose answer is lost may have been written or not. No caller may take it for either, and none does: the
error says that it is not known, and each write can be asked for again. Plans are found by their request's key. A
slice that was begun is found as `publishing` and finished. Finishing, withdrawing, an empty cut, enrolling,
releasing, answers and settled totals are the same when repeated. An intent that nobody saw written is a send without
an answer: it did not leave, and is asked about before anything is sent. A lease that was taken unnoticed lapses.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import IsolationLevel
from psycopg.types.string import StrDumper
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, exc, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.dml import Insert

from tidepost.errors import Misconfigured, Retryable, TidepostError
from tidepost.ledger.engine import WRITES
from tidepost.libpq import CONNECTING, NEVER_CONNECTS, connects_later, never_connects, of_class

# A run has a few threads at the ledger at once, each for milliseconds; more of them wait.
_CONNECTIONS: Final = 2
_MORE_CONNECTIONS: Final = 8
_PATIENCE: Final = 30  # seconds that one waits for a connection, or a transaction for another one's end
# A process that is stopped in a transaction keeps its locks for less time than others wait for them.
_SETTINGS: Final = {
    "statement_timeout": "60s",
    "lock_timeout": f"{_PATIENCE}s",
    "idle_in_transaction_session_timeout": "20s",
}
_MIGRATION: Final = int.from_bytes(b"tidepost")
_CLOCK: Final = text("SELECT extract(epoch FROM clock_timestamp())::double precision")

# By SQLSTATE, or by its class: https://www.postgresql.org/docs/current/errcodes-appendix.html
_LATER: Final = {
    "08": "the connection to it was lost",
    "25006": "it takes no writes now",
    "25P": "its server ended the transaction, which took too long",
    "40": "another transaction was in the way",
    "53100": "its disk is full",
    "53200": "its server has not enough memory",
    "53300": "its server takes no more connections",
    "53": "its server is at its limits",
    "55P03": f"it is locked: another process kept it for {_PATIENCE} seconds",
    "57014": f"it took longer than {_SETTINGS['statement_timeout']}",
    "57": "its server is being stopped or started",
    "58": "its server's disk reported an error",
}
_NEVER: Final = {
    "22021": "its encoding is not UTF-8",
    "22P05": "its encoding is not UTF-8",
    "28": "its server refuses the user",
    "3D": "there is no such database",
    "3F": "no schema of its search path exists",
    "42501": "the user has no right to it",
    "XX001": "it is damaged",
    "XX002": "it is damaged",
}
_NAMED: Final = ("host", "port")


class Postgres:
    """A ledger in a database, or a schema (`?options=-csearch_path=NAME`), of its own. Whatever libpq takes may
    stand in the URL's query: `?host=/run/postgresql` for a Unix socket, `?sslmode=verify-full`."""

    migrates = False

    def __init__(self, url: URL) -> None:
        if url.drivername not in ("postgresql", "postgresql+psycopg"):
            raise Misconfigured(
                f"the ledger cannot use the driver {url.drivername!r}", hint="Write postgresql://HOST/DATABASE"
            )
        if "@" in f"{url.host}{url.database}":
            # Nothing of it is repeated: it would be the end of a password.
            raise Misconfigured(
                "the ledger's URL cannot be read: there is more than one @ in it",
                hint="In a password, write @ as %40, / as %2F, : as %3A and % as %25.",
            )
        self._url = url.set(drivername="postgresql+psycopg")
        shown = {key: value for key, value in url.query.items() if key in _NAMED}
        self.name = url.set(drivername="postgresql", query=shown).render_as_string(hide_password=True)

    def engine(self) -> Engine:
        engine = create_engine(
            self._url,
            connect_args={
                **{key: value for key, value in CONNECTING.items() if key not in self._url.query},
                # Statements prepared on one server connection are unknown on another behind a pooler.
                "prepare_threshold": None,
            },
            pool_size=_CONNECTIONS,
            max_overflow=_MORE_CONNECTIONS,
            pool_timeout=_PATIENCE,
            pool_pre_ping=True,
            hide_parameters=True,
            use_native_hstore=False,
        )
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        return engine

    def prepare(self, engine: Engine) -> None:
        """Nothing: a server has to be there already, with its database."""

    def now(self, connection: Connection) -> float:
        """The server's clock, at this moment and not at the transaction's beginning, which may have waited."""
        return float(connection.execute(_CLOCK).scalar_one())

    def lock_migration(self, connection: Connection) -> None:
        # Another one's migration, and this one, may take as long as they need.
        for name in ("lock_timeout", "statement_timeout"):
            connection.execute(text("SELECT set_config(:name, '0', true)"), {"name": name})
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION})

    def absent(self, table: Table) -> Insert:
        return insert(table).on_conflict_do_nothing()

    def translate(self, error: Exception) -> TidepostError | None:
        if isinstance(error, exc.TimeoutError):
            return self._later("all of this process's connections to it are in use")
        if not isinstance(error, exc.DBAPIError):
            return None
        if error.connection_invalidated:
            # Only the end of a transaction has no statement.
            return self._later(_LATER["08"], in_doubt=error.statement is None)
        state = getattr(error.orig, "sqlstate", None)
        return self._not_connected(error.orig) if state is None else self._refused(error.orig, state)

    def _refused(self, error: BaseException | None, state: str) -> TidepostError:
        if why := of_class(_LATER, state):
            return self._later(why)
        if why := of_class(_NEVER, state):
            # The server's own words may hold values, but for these.
            words = error.diag.message_primary if isinstance(error, psycopg.errors.InsufficientPrivilege) else None
            return self._never(f"{why}: {words}" if words else why)
        return TidepostError(
            f"the ledger {self.name} refused a statement: {type(error).__name__} ({state})",
            safe="Nothing was written.",
        )

    def _not_connected(self, error: BaseException | None) -> TidepostError | None:
        if isinstance(error, psycopg.OperationalError):
            words = str(error)
            if error.pgconn is not None and error.pgconn.needs_password:
                return self._never(NEVER_CONNECTS["no password supplied"])
            why = never_connects(words)
            return self._later(connects_later(words)) if why is None else self._never(why)
        if isinstance(error, psycopg.ProgrammingError):
            return self._never("its URL has an option that PostgreSQL does not know")
        if isinstance(error, psycopg.InterfaceError):
            return self._later(_LATER["08"])
        return None

    def _later(self, why: str, *, in_doubt: bool = False) -> Retryable:
        safe = (
            "Whether the last step was written down is not known; the next run finds out before it goes on."
            if in_doubt
            else "Nothing was written."
        )
        return Retryable(f"the ledger {self.name} is out of reach: {why}", safe=safe)

    def _never(self, why: str) -> Misconfigured:
        return Misconfigured(
            f"the ledger {self.name} cannot be used: {why}",
            hint="Mend the ledger's URL, or the user's rights at the server.",
        )


class _Text(StrDumper):
    """Text without NUL, which PostgreSQL cannot hold: what a platform answers may contain it."""

    def dump(self, obj: str) -> psycopg.abc.Buffer | None:
        return super().dump(obj.replace("\x00", "\N{REPLACEMENT CHARACTER}"))


def _configure(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    driver: psycopg.Connection = connection  # type: ignore[assignment]
    driver.adapters.register_dumper(str, _Text)
    with driver.cursor() as cursor:
        for name, value in _SETTINGS.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
        # What was written has to outlive a crash of the server: an intent before its send above all.
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
    driver.commit()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    driver: Any = connection.connection.driver_connection
    driver.isolation_level = IsolationLevel.READ_COMMITTED if writes else IsolationLevel.REPEATABLE_READ
    # Not "read write": where the database is set to read only, it stays so.
    driver.read_only = None if writes else True
