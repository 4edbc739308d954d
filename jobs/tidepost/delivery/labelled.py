"""What a destination shows of labels: by their values, as the id of a label that was replaced is there all along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidepost.delivery.deliver import Courier
from tidepost.labels.versions import load_versions
from tidepost.model import MICROSECONDS_AN_HOUR, Part, Slice
from tidepost.ranges import Range, Ranges
from tidepost.rows.shape import ID
from tidepost.sql import quote_identifier

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def replaced(connection: DuckDBPyConnection, courier: Courier, of: Slice) -> set[str]:
    """The ids of a slice's labels of which a later slice holds a newer one. Raises Retryable."""
    _, cuts = courier.ledger.slices.cuts(courier.stream, frozenset(of.joined))
    load_versions(connection, courier.staging, courier.records, courier.stream, cuts)
    rows = connection.execute(
        "SELECT id FROM tidepost_versions WHERE sent AND NOT refused GROUP BY id "
        "HAVING max(sequence) > $this AND max(sequence) FILTER (sequence = $this) IS NOT NULL",
        {"this": of.sequence},
    )
    return {row[0] for row in rows.fetchall()}


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
            equal = " AND ".join(equal_to(name, types[name]) for name in names)
            connection.execute(
                f"INSERT INTO tidepost_there SELECT p.{ID} FROM tidepost_part AS p "
                f"JOIN tidepost_shown AS s ON p.{ID} = s.{ID} AND {equal}"
            )
    rows = connection.execute(f"SELECT {ID} FROM tidepost_part WHERE {ID} NOT IN (SELECT id FROM tidepost_there)")
    return {row[0] for row in rows.fetchall()}


def equal_to(name: str, shown: str) -> str:
    """SQL of whether a value of a staged row `p` is that of `s`, shown in a type that may not hold all of it."""
    column = quote_identifier(name)
    staged = f"CAST(p.{column} AS {shown})"
    if shown.startswith("TIMESTAMP"):
        return f"date_trunc('millisecond', {staged}) IS NOT DISTINCT FROM date_trunc('millisecond', s.{column})"
    return f"{staged} IS NOT DISTINCT FROM s.{column}"
