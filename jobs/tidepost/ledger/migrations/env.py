"""Run by Alembic. The connection, and the transaction that is open on it, are `tidepost.ledger.migrate`'s."""

from __future__ import annotations

from alembic import context

from tidepost.ledger.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
