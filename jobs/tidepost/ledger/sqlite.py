"""SQLite as the ledger's database: a file on a local disk. On network file systems nothing is promised."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.dml import Insert

from tidepost.errors import Misconfigured, Retryable, TidepostError
from tidepost.ledger.engine import WRITES

_PATIENCE: Final = 30.0  # seconds that a transaction waits for another one's end
_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_LATER: Final = {
    sqlite3.SQLITE_FULL: "its disk is full",
    sqlite3.SQLITE_IOERR: "its disk reported an error",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
    sqlite3.SQLITE_PROTOCOL: "its lock could not be had",
    sqlite3.SQLITE_INTERRUPT: "it was interrupted",
}
_NEVER: Final = {
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database",
    sqlite3.SQLITE_CORRUPT: "it is damaged",
    sqlite3.SQLITE_READONLY: "it may not be written to",
    sqlite3.SQLITE_PERM: "it may not be accessed",
    sqlite3.SQLITE_AUTH: "it may not be accessed",
}


class Sqlite:
    """A ledger in one file. Its URL may set how long to wait for others: `sqlite:////path/ledger.db?timeout=5`."""

    migrates = True

    def __init__(self, url: URL) -> None:
        if url.get_driver_name() != "pysqlite":
            raise Misconfigured(
                f"the ledger cannot use the driver {url.drivername!r}", hint="Write sqlite:////path/…"
            )
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise Misconfigured(
                "the ledger must be a file: one in memory would forget what was sent",
                hint="Write it as sqlite:////absolute/path/ledger.db",
            )
        self._path = Path(url.database)
        self._url = url
        self.name = url.render_as_string(hide_password=True)
        self._patience = _timeout(url)

    def engine(self) -> Engine:
        # Each thread at work has a connection; a limit here could only make them wait for one another.
        url = self._url.difference_update_query(["timeout"])
        engine = create_engine(url, connect_args={"timeout": self._patience}, max_overflow=-1)
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        return engine

    def prepare(self, engine: Engine) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            raise Misconfigured(f"the ledger's folder {self._path.parent} cannot be made: {error.strerror}") from None
        except OSError as error:
            raise Retryable(f"the ledger's folder {self._path.parent} cannot be made: {error.strerror}") from None
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return _write_ahead(engine)
            except (sqlite3.Error, SQLAlchemyError) as error:
                # SQLite does not wait by itself for the lock that a change of the journal needs.
                if _code(error) not in _BUSY or time.monotonic() > deadline:
                    raise (self.translate(error) or error) from None
                time.sleep(0.02)

    def now(self, connection: Connection) -> float:
        """This host's clock: all who use the file are on it."""
        return time.time()

    def lock_migration(self, connection: Connection) -> None:
        """A writing transaction is the only one; there is nothing else to lock."""

    def absent(self, table: Table) -> Insert:
        return insert(table).on_conflict_do_nothing()

    def translate(self, error: Exception) -> TidepostError | None:
        code = _code(error)
        if code in _BUSY:
            return Retryable(
                f"the ledger {self._path} is locked: another process kept it for {self._patience:g} seconds",
                safe="Nothing was written.",
            )
        if code in _LATER:
            return Retryable(f"the ledger {self._path} is out of reach: {_LATER[code]}", safe="Nothing was written.")
        if code in _NEVER:
            return Misconfigured(
                f"the ledger {self._path} cannot be used: {_NEVER[code]}",
                hint="Bring back the file, or name another one; a new ledger would not know what was sent.",
            )
        return None


def _timeout(url: URL) -> float:
    given = url.query.get("timeout", str(_PATIENCE))
    try:
        return float(str(given))
    except ValueError:
        raise Misconfigured(f"the ledger's timeout is not a number of seconds: {given!r}") from None


def _configure(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # Otherwise the driver begins transactions by itself, late and never as IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        # FULL, as the default of a WAL may lose the last transactions when the power fails; fullfsync, as on
        # macOS an fsync alone does not reach the disk.
        for setting in ("synchronous=FULL", "fullfsync=ON", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {setting}")
    finally:
        cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later can fail on the way; IMMEDIATE waits at its start instead.
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")


def _write_ahead(engine: Engine) -> None:
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()
    finally:
        connection.close()


def _code(error: Exception) -> int | None:
    """SQLite's primary result code of an error; None for one that is not SQLite's."""
    extended = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF
