"""One COPY statement a day, and nothing else. Arguments: the database, the target folder, the first day, the number
of days, DuckDB's memory limit and threads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import duckdb


def main(database: str, target: Path, days: Sequence[date], memory: str, threads: str) -> None:
    connection = duckdb.connect(config={"memory_limit": memory, "threads": threads, "temp_directory": str(target)})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"ATTACH '{database}' AS source (READ_ONLY)")
    for day in days:
        folder = target / f"event_day={day}"
        folder.mkdir()
        connection.execute(
            'COPY (SELECT id AS partner_inference_id, "at" AS inference_timestamp, * EXCLUDE (id, "at") '
            f"FROM source.inferences WHERE logged_at >= TIMESTAMPTZ '{day} 00:00:00Z' "
            f"AND logged_at < TIMESTAMPTZ '{day + timedelta(days=1)} 00:00:00Z') "
            f"TO '{folder}/0.parquet' (FORMAT parquet, COMPRESSION zstd)"
        )
    connection.close()


if __name__ == "__main__":
    first = date.fromisoformat(sys.argv[3])
    days = [first + timedelta(days=n) for n in range(int(sys.argv[4]))]
    main(sys.argv[1], Path(sys.argv[2]), days, *sys.argv[5:7])
