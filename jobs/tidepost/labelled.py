"""What a destination shows of labels: by their values, as the id of a label that was replaced is there all along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidepost.deliver import Courier
from tidepost.model import MICROSECONDS_AN_HOUR, Part
from tidepost.ranges import Range, Ranges
from tidepost.shape import ID
from tidepost.sql import quote_identifier

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def unequal(connection: DuckDBPyConnection, courier: Courier, part: Part) -> set[str]:
    """The ids of a part's labels that the destination does not hold with the part's values. Raises Retryable,
    Misconfigured."""
    time = courier.stream.name.time
    staged = courier.staging.relation(connection, courier.stream, [part])
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE tidepost_part AS SELECT * EXCLUDE (_part, _row) FROM ({staged.sql})",
        dict(staged.values),
    )
    connection.execute("CREATE OR REPLACE TEMP TABLE tidepost_there (id VARCHAR)")
    names = [row[0] for row in connection.execute("DESCRIBE tidepost_part").fetchall() if row[0] not in (ID, time)]
    for window in Ranges.of(Range(hour, hour + 1) for hour in part.hours):
        micros = Range(window.start * MICROSECONDS_AN_HOUR, window.end * MICROSECONDS_AN_HOUR)
        for table in courier.destination.labels(micros):
            connection.register("tidepost_shown", table)
            types = {row[0]: row[1] for row in connection.execute("DESCRIBE tidepost_shown").fetchall()}
            equal = " AND ".join(_equal(name, types[name]) for name in names)
            connection.execute(
                f"INSERT INTO tidepost_there SELECT p.{ID} FROM tidepost_part AS p "
                f"JOIN tidepost_shown AS s ON p.{ID} = s.{ID} AND {equal}"
            )
    rows = connection.execute(f"SELECT {ID} FROM tidepost_part WHERE {ID} NOT IN (SELECT id FROM tidepost_there)")
    return {row[0] for row in rows.fetchall()}


def _equal(name: str, shown: str) -> str:
    """SQL of whether a staged value is the one that is shown, which may have lost what its type does not hold."""
    column = quote_identifier(name)
    staged = f"CAST(p.{column} AS {shown})"
    if shown.startswith("TIMESTAMP"):
        return f"date_trunc('millisecond', {staged}) IS NOT DISTINCT FROM date_trunc('millisecond', s.{column})"
    return f"{staged} IS NOT DISTINCT FROM s.{column}"
