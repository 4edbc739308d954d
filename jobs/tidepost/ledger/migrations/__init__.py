"""Alembic's migrations of the ledger, run by `tidepost.ledger.migrate` on a connection that it hands over."""
