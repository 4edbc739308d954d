"""Bring a ledger's tables to the revision that this tidepost knows."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from sqlalchemy import Connection, column, insert, inspect, select, table, update

from tidepost import __version__
from tidepost.errors import Misconfigured
from tidepost.ledger.schema import REVISION, VERSION_TABLE, ledger

if TYPE_CHECKING:
    from tidepost.ledger.engine import Backend, Database

# Alembic keeps the migration at work in a global: two threads may not migrate two ledgers at once.
_ALEMBIC: Final = threading.Lock()


def is_current(database: Database, name: str) -> bool:
    """Whether the ledger is at this tidepost's revision. Raises Misconfigured where a newer one wrote it."""
    with database.read() as connection:
        return _is_current(connection, name)


def migrate(database: Database, backend: Backend, name: str, *, allowed: bool) -> None:
    """Migrate in one transaction; of several processes that try, one does and the others find it done.
    Raises Misconfigured where it is not allowed, or where a newer tidepost wrote the ledger."""
    if not allowed:
        raise Misconfigured(
            f"the ledger {name} is new, or older than tidepost {__version__}, and may not be migrated",
            hint="Set up its tables, or bring them up to date:  tidepost ledger migrate",
        )
    with _ALEMBIC, database.write() as connection:
        backend.lock_migration(connection)
        if _is_current(connection, name):
            return
        _upgrade(connection)
        if connection.execute(update(ledger).values(written_by=__version__)).rowcount == 0:
            first = {"id": str(uuid4()), "created_at": database.now(connection), "written_by": __version__}
            connection.execute(insert(ledger).values(first))


def _is_current(connection: Connection, name: str) -> bool:
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE not in tables:
        if tables:
            raise Misconfigured(
                f"the database {name} holds something else than a ledger", hint="Give the ledger one of its own."
            )
        return False
    version = table(VERSION_TABLE, column("version_num"))
    revision = connection.execute(select(version.c.version_num)).scalar()
    if revision is not None and revision > REVISION:
        writer = connection.execute(select(ledger.c.written_by)).scalar()
        raise Misconfigured(
            f"the ledger {name} was written by tidepost {writer} (tables {revision}); "
            f"this is tidepost {__version__}, which knows tables up to {REVISION}",
            safe="Nothing was read or written.",
            hint=f"Install tidepost {writer} or newer.",
        )
    return revision == REVISION


def _upgrade(connection: Connection) -> None:
    # Imported here: a ledger that is current is opened without Alembic.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    # The option is read as an interpolated one, in which a percent sign has to be written twice.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
