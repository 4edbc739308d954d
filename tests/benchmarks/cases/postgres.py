"""Reading a day of a table in PostgreSQL, beside bare ADBC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
def postgres(data: Data) -> Iterator[Case]:
    with server() as started:
        name = started.new_database()
        url = started.url(name)
        _load(data.days(), url, data.folder / "copy.csv")
        last = data.sizes.days - 1
        source = {"postgres": "${BENCH_SOURCE}", "table": "inferences"}
        project = Project.make(data.folder / "postgres", source, start=day(last), cut_rows=data.sizes.a_day)
        bare = Contender(
            "bare ADBC to a parquet file",
            PYTHON,
            "adbc_day.py",
            (url, f"{day(last):%Y-%m-%d}", f"{day(last + 1):%Y-%m-%d}", data.folder / "day.parquet"),
        )
        reading = project.run("tidepost", before=project.forget, env=[("BENCH_SOURCE", url)])
        rows = f"{data.sizes.a_day:,} of {data.sizes.rows:,} rows"
        yield Case(f"Reading a day from PostgreSQL, {rows}", (bare, reading), base=bare.name)


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
