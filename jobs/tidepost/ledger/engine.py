"""Transactions on the ledger's database: durable when they end, and no error of a driver's leaves them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.dml import Insert

from tidepost.errors import TidepostError

WRITES = "tidepost_writes"


class Backend(Protocol):
    """Everything in which one database differs from another."""

    migrates: bool
    """Whether opening a ledger also migrates it, unless the caller says otherwise."""

    def engine(self) -> Engine:
        """An engine whose connections begin a transaction as `WRITES` in their options says."""

    @property
    def name(self) -> str:
        """Where the ledger is, for messages: without a secret."""

    def prepare(self, engine: Engine) -> None:
        """What has to hold of a database before the first transaction on it."""

    def now(self, connection: Connection) -> float:
        """The database's clock, in seconds since 1970."""

    def lock_migration(self, connection: Connection) -> None:
        """Keep every other process from migrating until the transaction ends."""

    def absent(self, table: Table) -> Insert:
        """An insert that leaves a row alone that is there already."""

    def translate(self, error: Exception) -> TidepostError | None:
        """The error as the caller can act on it; None for a mistake of ours."""


class Database:
    """One ledger's database. Safe from several threads, and after a fork.

    clock: seconds since 1970, on which every instant in the ledger is based; None for the database's own
    """

    def __init__(self, backend: Backend, clock: Callable[[], float] | None) -> None:
        self._backend = backend
        self._clock = clock
        self._process = os.getpid()
        self.engine = backend.engine()

    def now(self, connection: Connection) -> float:
        """This instant; to be asked after the locks that the transaction waits for."""
        return self._backend.now(connection) if self._clock is None else self._clock()

    def absent(self, table: Table) -> Insert:
        """An insert that leaves a row alone that is there already."""
        return self._backend.absent(table)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot. Raises Retryable or Misconfigured as the backend translates."""
        with self._transaction(writes=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that is durable when the block ends, and has no effect where it raises.
        Raises Retryable or Misconfigured as the backend translates."""
        with self._transaction(writes=True) as connection:
            yield connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Let none of SQLAlchemy's errors out that the backend knows."""
        try:
            yield
        except SQLAlchemyError as error:
            known = self._backend.translate(error)
            if known is None:
                raise
            # The driver's own message names the statement and its values: only its kind is passed on.
            raise known from None

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        if os.getpid() != self._process:
            # A connection that a fork copied is still its parent's; to close it here would break it there.
            self.engine.dispose(close=False)
            self._process = os.getpid()
        with self.translated(), self.engine.connect() as connection:
            connection.execution_options(**{WRITES: writes})
            with connection.begin():
                yield connection
