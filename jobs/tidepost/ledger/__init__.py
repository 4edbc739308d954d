"""The transactional record of what was scanned, published and delivered, on SQLAlchemy Core."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidepost.ledger.sql import SqlLedger

__all__ = ["open_ledger"]


def open_ledger(url: str, *, clock: Callable[[], float] | None = None, migrate: bool | None = None) -> SqlLedger:
    """Open the ledger at a URL: `sqlite:////absolute/path/ledger.db`, which is made where there is none, with the
    folders above it; or `postgresql://USER@HOST/DATABASE`, whose database has to be there.

    clock:   seconds since 1970, on which every instant in the ledger is based; None for the database's own, which
             is the server's for PostgreSQL and this host's for SQLite
    migrate: whether to set up the tables of a new ledger and bring older ones up to date; None for the database's
             own default: yes for SQLite, no for PostgreSQL, whose users need no right to that. Of several processes
             that open an old or new ledger at once, exactly one migrates it, and all succeed.

    Raises Misconfigured where a newer tidepost wrote it, where the URL or the file is not a ledger's, or where it
    needs a migration that was not asked for; Retryable where it cannot be reached.
    """
    # Imported here: whoever only imports the package does not pay for SQLAlchemy.
    from tidepost.ledger.sql import open_ledger as open_sql  # noqa: PLC0415

    return open_sql(url, clock=clock, migrates=migrate)
