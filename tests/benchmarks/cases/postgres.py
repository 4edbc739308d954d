"""Reading a table in PostgreSQL, its last day and all of it, beside bare ADBC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import duckdb
import psycopg
from tests.benchmarks.data import Data, day
from tests.benchmarks.measure import Case, Contender
from tests.benchmarks.project import PYTHON, Project
from tests.postgres import server

TYPES = {
    "VARCHAR": "text",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    "BIGINT": "bigint",
    "DOUBLE": "double precision",
}


@contextmanager
def _reading(data: Data, what: str, *, days: int) -> Iterator[Case]:
    with server() as started:
        name = started.new_database()
        url = started.url(name)
        _load(data.days(), url, data.folder / "copy.csv")
        first, end = data.sizes.days - days, data.sizes.days
        source = {"postgres": "${BENCH_SOURCE}", "table": "inferences"}
        project = Project.make(data.folder / "postgres", source, start=day(first), cut_rows=data.sizes.a_day)
        bare = Contender(
            "bare ADBC to a parquet file",
            PYTHON,
            "adbc_range.py",
            (url, f"{day(first):%Y-%m-%d}", f"{day(end):%Y-%m-%d}", data.folder / "range.parquet"),
        )
        reading = project.run("tidepost", before=project.forget, env=[("BENCH_SOURCE", url)])
        rows = f"{data.sizes.a_day * days:,} rows in day cuts"
        yield Case(f"Reading {what} from PostgreSQL, {rows}", (bare, reading), base=bare.name)


def last_day(data: Data) -> AbstractContextManager[Case]:
    return _reading(data, "the last day of a table", days=1)


def table(data: Data) -> AbstractContextManager[Case]:
    return _reading(data, "a whole table", days=data.sizes.days)


def _load(database: Path, url: str, file: Path) -> None:
    """Copy the table, with an index on its cursor."""
    with duckdb.connect(str(database), read_only=True) as source, psycopg.connect(url, autocommit=True) as target:
        source.execute("SET TimeZone = 'UTC'")
        columns = source.execute("DESCRIBE inferences").fetchall()
        made = ", ".join(f"{name} {TYPES[of]}" for name, of, *_ in columns)
        target.execute(f"CREATE TABLE inferences ({made})")
        source.execute(f"COPY inferences TO '{file}' (FORMAT csv, HEADER false)")
        with file.open("rb") as rows, target.cursor().copy("COPY inferences FROM STDIN (FORMAT csv)") as copy:
            while block := rows.read(1 << 20):
                copy.write(block)
        file.unlink()
        target.execute("CREATE INDEX ON inferences (logged_at)")
        target.execute("VACUUM ANALYZE inferences")
