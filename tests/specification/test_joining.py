"""Joining compares rows by equal values: what it costs grows with the rows, not with their square."""

from __future__ import annotations

import duckdb

from tidepost.labels.joining import farther


def test_inferences_are_looked_for_without_comparing_each_row_with_each() -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE tidepost_read AS SELECT 0 AS part, i AS row, 'r' || i AS id, i AS label_at "
            "FROM range(5000) AS r(i)"
        )
        connection.execute(
            "CREATE TABLE tidepost_sent AS SELECT 'r' || i AS id, 1 AS sequence, i * 2 AS event "
            "FROM range(5000) AS r(i)"
        )
        sql = farther(100)
        ((_, plan),) = connection.execute(f"EXPLAIN {sql}").fetchall()
        assert "HASH_JOIN" in plan
        for each_with_each in ("NL_JOIN", "NESTED_LOOP", "CROSS_PRODUCT", "PIECEWISE"):
            assert each_with_each not in plan
        assert {id_ for (id_,) in connection.execute(sql).fetchall()} == {f"r{n}" for n in range(101, 5000)}
