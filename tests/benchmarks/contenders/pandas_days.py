"""What a script with pandas does: read, drop repeated ids, write a file a day. Arguments: the database, the target
folder, the first day."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb
import pandas as pd  # type: ignore[import-untyped]


def main(database: str, target: Path, first: str) -> None:
    connection = duckdb.connect(database, read_only=True)
    connection.execute("SET TimeZone = 'UTC'")
    frame: pd.DataFrame = connection.sql(
        f"SELECT * FROM inferences WHERE logged_at >= TIMESTAMPTZ '{first} 00:00:00Z'"
    ).df()
    frame = frame.drop_duplicates("id")
    for day, rows in frame.groupby(frame["at"].dt.date):
        folder = target / f"event_day={day}"
        folder.mkdir()
        rows.to_parquet(folder / "0.parquet", compression="zstd", index=False)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
