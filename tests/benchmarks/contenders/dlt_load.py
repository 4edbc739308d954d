"""A dlt pipeline with an incremental cursor, which drops repeats at its boundary by id, into parquet files.
Arguments: the database, the target folder, the first day."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dlt  # type: ignore[import-not-found]
import duckdb

BATCH_ROWS = 122_880


def main(database: str, target: Path, first: str) -> None:
    start = datetime.fromisoformat(first).replace(tzinfo=timezone.utc)  # noqa: UP017  # as users of dlt write it
    cursor = dlt.sources.incremental("logged_at", initial_value=start)

    @dlt.resource(primary_key="id", write_disposition="append")  # type: ignore[untyped-decorator]
    def inferences(logged_at: Any = cursor) -> Iterator[Any]:
        connection = duckdb.connect(database, read_only=True)
        connection.execute("SET TimeZone = 'UTC'")
        sql = "SELECT * FROM inferences WHERE logged_at >= $since"
        yield from connection.execute(sql, {"since": logged_at.last_value}).to_arrow_reader(BATCH_ROWS)

    pipeline = dlt.pipeline(
        "uploads",
        pipelines_dir=str(target / "pipelines"),
        destination=dlt.destinations.filesystem(bucket_url=(target / "data").as_uri()),
        dataset_name="staged",
    )
    print(pipeline.run(inferences(), loader_file_format="parquet"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
