"""The ledger on a SQL database: opened, migrated, and its parts."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final

from sqlalchemy import URL, make_url, select
from sqlalchemy.exc import ArgumentError

from tidepost.errors import Misconfigured
from tidepost.ledger.deliveries import SqlDeliveries
from tidepost.ledger.engine import Backend, Database
from tidepost.ledger.leases import SqlLeases
from tidepost.ledger.migrate import is_current, migrate
from tidepost.ledger.plans import SqlPlans
from tidepost.ledger.reports import SqlReports
from tidepost.ledger.schema import ledger
from tidepost.ledger.slices import SqlSlices
from tidepost.ledger.sqlite import Sqlite

_AS: Final = "Write it as sqlite:////absolute/path/ledger.db or postgresql://USER@HOST/DATABASE"


class SqlLedger:
    """`ports.Ledger`. Safe from several threads and processes; whatever a call wrote is durable when it returns.

    Every method raises Retryable where the database cannot be reached, and Misconfigured where it is not one.
    A context manager: its end closes the ledger.
    """

    def __init__(self, database: Database, identity: str) -> None:
        self._database = database
        self.id = identity
        self.plans = SqlPlans(database)
        self.leases = SqlLeases(database)
        self.slices = SqlSlices(database)
        self.deliveries = SqlDeliveries(database)
        self.reports = SqlReports(database)

    def close(self) -> None:
        """Close its connections. Repeating it is harmless."""
        self._database.close()

    def __enter__(self) -> SqlLedger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_ledger(url: str, *, clock: Callable[[], float] | None, migrates: bool | None) -> SqlLedger:
    backend = _backend(url)
    database = Database(backend, clock)
    try:
        backend.prepare(database.engine)
        if not is_current(database, backend.name):
            migrate(database, backend, backend.name, allowed=backend.migrates if migrates is None else migrates)
        with database.read() as connection:
            return SqlLedger(database, connection.execute(select(ledger.c.id)).scalar_one())
    except BaseException:
        database.close()
        raise


def _backend(url: str) -> Backend:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text is not repeated: a password may stand in it.
        raise Misconfigured("the ledger's URL cannot be read", hint=_AS) from None
    if parsed.get_backend_name() == "sqlite":
        return Sqlite(parsed)
    if parsed.get_backend_name() == "postgresql":
        return _postgres(parsed)
    raise Misconfigured(f"a ledger cannot be kept in {parsed.get_backend_name()!r}", hint=_AS)


def _postgres(url: URL) -> Backend:
    try:
        # Imported here: its driver is an extra.
        from tidepost.ledger.postgres import Postgres  # noqa: PLC0415
    except ImportError:
        raise Misconfigured(
            "a ledger on PostgreSQL needs a driver that is not installed",
            hint="Install it:  pip install 'tidepost[postgres]'",
        ) from None
    return Postgres(url)
