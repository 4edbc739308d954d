"""How much longer 24 cuts take over a year's 8,760 hourly files than over the same rows in 24 files.

    python -m tests.benchmarks.many_files --rows 876000 --folder /tmp/many

prints seconds of CPU and ratios: of a first run, which reads every footer, and of later ones, which find them kept;
without and with a path template. Each run is a new process: it describes the columns, surveys the year and reads
24 cuts.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from tidepost.cursor import DAY, HOUR, to_nanoseconds
from tidepost.engine import Engine
from tidepost.ranges import Range
from tidepost.sources.duckdb import DuckDBSource, Origin

START = datetime(2023, 1, 1, tzinfo=UTC)
FILES = 8760
CUTS = 24


def make(folder: Path, rows: int) -> None:
    """The same rows twice, in `few` and `many` files, about 17 columns wide."""
    each = rows // FILES
    plain = ", ".join(f"(v * {n} + i) % 1000 AS number{n}" for n in range(7))
    texts = ", ".join(f"'text ' || (v * {n} + i) % 50 AS text{n}" for n in range(6))
    sql = (
        f"SELECT 'a' || (v * {each} + i) AS id, TIMESTAMPTZ '{START:%Y-%m-%d} 00:00:00Z' + to_hours(v) "
        f"+ to_seconds(i * 3600.0 / {each}) AS c, {plain}, {texts}, random() AS score "
        f"FROM range({{first}}, {{end}}) AS a(v), range({each}) AS b(i) ORDER BY v, i"
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, count in (("few", CUTS), ("many", FILES)):
            for n in range(count):
                start = START + timedelta(hours=n * FILES // count)
                path = folder / name / f"{start:%Y/%m/%d}" / f"{start:%H}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                select = sql.replace("{first}", str(n * FILES // count)).replace(
                    "{end}", str((n + 1) * FILES // count)
                )
                connection.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")


def look(folder: Path, pattern: str) -> None:
    """Describe, survey and read once, as a run does."""
    engine = Engine(memory=256_000_000, threads=2, scratch=folder / "spill")
    source = DuckDBSource(Origin(files=(pattern,), cache=folder / "cache"), engine, column="c")
    began = time.process_time()
    columns = list(source.columns())
    first, length = to_nanoseconds(START), FILES * HOUR // CUTS
    source.survey(Range(first, first + FILES * HOUR + DAY))
    surveyed, rows = time.process_time(), 0
    connection = engine.connect()
    for n in range(CUTS):
        window = Range(first + n * length, first + (n + 1) * length)
        with source.read(connection, window, columns) as relation:
            for batch in connection.execute(relation.sql, dict(relation.values)).to_arrow_reader(100_000):
                rows += batch.num_rows
    print(surveyed - began, time.process_time() - surveyed, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the files are made, and kept")
    parser.add_argument("--rows", type=int, default=876_000)
    parser.add_argument("--look", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.look:
        look(asked.folder, asked.look)
        return
    if not (asked.folder / "many").exists():
        make(asked.folder, asked.rows)
    shutil.rmtree(asked.folder / "cache", ignore_errors=True)
    (asked.folder / "cache").mkdir()
    for name, kinds in (("glob", "**/*.parquet"), ("template", "{start:%Y/%m/%d}/*.parquet")):
        few = f"{asked.folder}/few/**/*.parquet"
        for when in ("first", "second", "third"):
            took = {}
            for log, pattern in (("few", few), ("many", f"{asked.folder}/many/{kinds}")):
                command = [sys.executable, "-m", "tests.benchmarks.many_files", "--folder", str(asked.folder)]
                done = subprocess.run([*command, "--look", pattern], check=True, capture_output=True, text=True)
                took[log] = [float(text) for text in done.stdout.split()]
            many, once = took["many"], took["few"]
            print(
                f"{name:8} {when:6}: plan {once[0]:5.2f} s → {many[0]:5.2f} s; "
                f"24 cuts {once[1]:5.2f} s → {many[1]:5.2f} s, {many[1] / once[1]:.2f} times; "
                f"together {sum(many[:2]) / sum(once[:2]):.2f} times; {many[2]:,.0f} of {once[2]:,.0f} rows"
            )


if __name__ == "__main__":
    main()
