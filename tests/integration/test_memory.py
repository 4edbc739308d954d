"""A run's memory does not grow with what there is to upload."""

from __future__ import annotations

import duckdb
from tests.world import NOW, World

ROWS = 5_000_000
LARGEST = 700_000_000
COLUMNS = 11
"""Beside id, times, two inputs, prediction and note: 17 in all."""


def test_five_million_rows_of_17_columns_are_uploaded_in_700_megabytes(world: World) -> None:
    world.define(limits={"cut_rows": None, "memory": None, "threads": None}, destination={"loading": "5m"})
    wide = ", ".join(f"(i * {n + 7} % 1000003) / 7.0 AS extra_{n}" for n in range(COLUMNS - 1))
    attributes = [
        ("distance", "INTEGER", "PIPELINE_INPUT"),
        ("carrier", "STRING", "PIPELINE_INPUT"),
        ("score", "FLOAT", "PREDICTED_VALUE"),
        ("note", "STRING", "NON_INPUT_DATA"),
        ("late", "INTEGER", "GROUND_TRUTH"),
        *((f"extra_{n}", "FLOAT", "NON_INPUT_DATA") for n in range(COLUMNS - 1)),
    ]
    world.model, world.model_id = world.platform.register(attributes)
    world.define(
        mapping={"non_inputs": ["note", *(f"extra_{n}" for n in range(COLUMNS - 1))]},
        destination={"model": world.model},
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = false")
        for part in range(4):
            first = part * ROWS // 4
            connection.execute(
                f"COPY (SELECT 'inference-' || i AS id, t AS at, t AS logged_at, i % 900 AS distance, "
                f"['UA', 'AA', 'DL'][i % 3 + 1] AS carrier, i % 101 / 100 AS score, 'note ' || i % 5000 AS note, "
                f"{wide} "
                f"FROM (SELECT i, TIMESTAMPTZ '2024-05-01 00:00:00Z' + INTERVAL (i * 17) MILLISECONDS AS t "
                f"FROM range({first}, {first + ROWS // 4}) AS r(i))) TO '{world.root}/log/{part}.parquet'"
            )
    with world.spawned("large", anew=True) as process:
        found = process.told()
    assert found["errors"] == []
    assert found["published"] == ROWS
    assert found["peak"] < LARGEST
    assert world.now == NOW
    assert world.everything_arrived_once(ROWS)
