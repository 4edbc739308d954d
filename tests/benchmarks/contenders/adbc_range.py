"""ADBC's batches of one range of a PostgreSQL table, written to a parquet file as they come. Arguments: the
database's URL, the first day, the day after the last, the file."""

from __future__ import annotations

import sys

import pyarrow.parquet as pq
from adbc_driver_postgresql import dbapi


def main(url: str, start: str, end: str, file: str) -> None:
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT * FROM inferences "
            "WHERE logged_at >= CAST($1 AS timestamptz) AND logged_at < CAST($2 AS timestamptz)",
            (f"{start}T00:00:00Z", f"{end}T00:00:00Z"),
        )
        batches = cursor.fetch_record_batch()
        with pq.ParquetWriter(file, batches.schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)


if __name__ == "__main__":
    main(*sys.argv[1:])
