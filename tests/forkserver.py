"""Where the tests' child processes are forked from: one server, which has imported everything and done nothing.

A child of it costs little. There is one in a process, whoever asks for it first; so all ask here.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext
from typing import Final

PRELOAD: Final = (
    "alembic.command",
    "boto3.session",
    "duckdb",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "tests.children",
    "tests.crash.child",
    "tests.crash.orders",
    "tidepost.cli.app",
    "tidepost.cli.progress",
    "tidepost.ledger.postgres",
    "tidepost.ledger.sql",
    "tidepost.ledger.sqlite",
    "tidepost.recovery.rebuild",
    "tidepost.run",
    "tidepost.sources.duckdb",
    "tidepost.sources.kafka.source",
    "tidepost.staging.s3",
    "tidepost.status",
    "tidepost.steps",
)


def forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    return context
