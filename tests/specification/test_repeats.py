"""An id is published once: what repeats one is dropped if it is equal, and set aside if it is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidepost.model import MICROSECONDS_AN_HOUR
from tidepost.ports import CURSOR, Relation
from tidepost.rows.index import Index
from tidepost.rows.repeats import Resolved, resolve
from tidepost.rows.shape import EVENT, HASH, HOUR, ID, TIMESTAMP
from tidepost.rows.writer import Draft, Writer, staged_schema

NAN, NULL = float("nan"), None
Row = tuple[str, Any, int]
"""An id, a value, a cursor."""


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def hashed(id_: str) -> int:
    return int.from_bytes(hashlib.md5(id_.encode()).digest()[:8], "little")


def drafts_of(
    folder: Path, of: Sequence[Row], *, file_rows: int = 1000, days: int = 1, name: str = "value"
) -> tuple[Draft, ...]:
    """Rows written as staging does; row n lies in day n modulo `days`."""
    folder.mkdir(parents=True, exist_ok=True)
    events = [(n % days) * 24 * MICROSECONDS_AN_HOUR + n for n in range(len(of))]
    given_ = pa.record_batch(
        {
            ID: [one[0] for one in of],
            TIMESTAMP: pa.array(events, pa.timestamp("us", "UTC")),
            name: pa.array([one[1] for one in of], pa.float64()),
            CURSOR: pa.array([one[2] for one in of], pa.int64()),
            EVENT: pa.array(events, pa.int64()),
            HOUR: pa.array([event // MICROSECONDS_AN_HOUR for event in events], pa.int64()),
            HASH: pa.array([hashed(one[0]) for one in of], pa.uint64()),
        }
    )
    schema = staged_schema(given_.schema, [ID, TIMESTAMP, name])
    with Writer(folder, schema, partition="day", rows=file_rows, size=10**9) as writer:
        writer.add(given_)
        return writer.finish()


def before(name: str) -> Index:
    """The index over the registered table `before`, of one part."""
    sql = f"SELECT id AS {ID}, value AS \"{name}\", NULL::TIMESTAMPTZ AS {TIMESTAMP}, '' AS _part FROM before"
    return Index(Relation(sql, {}))


def resolved(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    of: Sequence[Row],
    sent: Sequence[tuple[str, Any]] | None = None,
    **options: Any,
) -> Resolved:
    name = options.get("name", "value")
    index = None
    if sent is not None:
        table = pa.table({"id": [one[0] for one in sent], "value": pa.array([one[1] for one in sent], pa.float64())})
        connection.register("before", table)
        # Event times do not differ here, or nothing would be equal.
        index = before(name)
    columns = [ID, name]
    return resolve(connection, drafts_of(folder, of, **options), columns=columns, index=index, inside=True)


def left(result: Resolved, name: str = "value") -> list[tuple[str, Any]]:
    tables = [pq.read_table(draft.file) for draft in result.drafts]
    return sorted(
        (pair for table in tables for pair in zip(*(table.column(n).to_pylist() for n in (ID, name)), strict=True)),
        key=str,
    )


def verdicts(result: Resolved) -> list[tuple[str, str]]:
    return sorted(
        zip(result.rejects.column(ID).to_pylist(), result.rejects.column("reason").to_pylist(), strict=True)
    )


# ------------------------------------------------------------------------------------------------------- within a cut


def test_rows_without_repeats_stay_as_they_are(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    result = resolved(connection, tmp_path, [("a", 1, 0), ("b", 2, 1)])
    assert (left(result), result.duplicates, verdicts(result)) == ([("a", 1), ("b", 2)], 0, [])


def test_equal_rows_are_one(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    result = resolved(connection, tmp_path, [("a", 1, 0), ("a", 1, 5), ("a", 1, 3)])
    assert (left(result), result.duplicates, verdicts(result)) == ([("a", 1)], 2, [])


def test_of_unequal_rows_the_smallest_cursor_wins(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    result = resolved(connection, tmp_path, [("a", 1, 9), ("a", 2, 3), ("a", 3, 5)])
    assert left(result) == [("a", 2)]
    assert verdicts(result) == [("a", "conflicting_id")] * 2


def test_of_unequal_rows_with_one_cursor_the_same_wins_in_any_order(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    one = resolved(connection, tmp_path / "1", [("a", 1, 0), ("a", 2, 0)])
    other = resolved(connection, tmp_path / "2", [("a", 2, 0), ("a", 1, 0)])
    assert left(one) == left(other)


@pytest.mark.parametrize("value", [NAN, NULL])
def test_rows_that_lack_the_same_value_are_equal(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, value: float | None
) -> None:
    result = resolved(connection, tmp_path, [("a", value, 0), ("a", value, 1)])
    assert (result.duplicates, verdicts(result)) == (1, [])


def test_nan_is_not_null(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    assert verdicts(resolved(connection, tmp_path, [("a", NAN, 0), ("a", NULL, 1)])) == [("a", "conflicting_id")]


def test_minus_zero_is_not_zero_as_it_was_logged_otherwise(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    assert verdicts(resolved(connection, tmp_path, [("a", 0.0, 0), ("a", -0.0, 1)])) == [("a", "conflicting_id")]


def test_repeats_are_found_in_other_files_of_the_cut(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    rows = [(f"r{n % 30}", 1.0, n) for n in range(90)]
    result = resolved(connection, tmp_path, rows, days=7, file_rows=5)
    assert result.duplicates == 60
    assert [one[0] for one in left(result)] == sorted(f"r{n}" for n in range(30))


def test_a_collision_of_hashes_is_no_repeat(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.specification.test_repeats.hashed", lambda _: 7)
    monkeypatch.setitem(globals(), "hashed", lambda _: 7)
    result = resolved(connection, tmp_path, [("a", 1, 0), ("b", 1, 1), ("a", 1, 2)])
    assert (left(result), result.duplicates) == ([("a", 1), ("b", 1)], 1)


# -------------------------------------------------------------------------------------------------- against the index


def test_a_row_that_was_published_equal_is_a_duplicate(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    result = resolved(connection, tmp_path, [("a", 1, 0), ("b", 2, 1)], sent=[("a", 1)])
    assert (left(result), result.duplicates, verdicts(result)) == ([("b", 2)], 1, [])


def test_a_row_that_was_published_otherwise_is_set_aside(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    result = resolved(connection, tmp_path, [("a", 2, 0)], sent=[("a", 1)])
    assert (result.drafts, verdicts(result)) == ((), [("a", "changed_after_sent")])
    assert json.loads(result.rejects.column("row").to_pylist()[0]) == {ID: "a", "value": 2.0}


def test_repeats_of_a_published_id_are_each_looked_at(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    rows = [("a", 1, 0), ("a", 2, 1), ("a", 1, 2), ("b", 5, 3), ("b", 5, 4)]
    result = resolved(connection, tmp_path, rows, sent=[("a", 1), ("c", 9)])
    assert left(result) == [("b", 5)]
    assert result.duplicates == 3
    assert verdicts(result) == [("a", "changed_after_sent")]


@pytest.mark.parametrize("value", [NAN, NULL, 0.1, 1e300, 5e-324])
def test_what_is_published_compares_as_what_is_staged(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, value: float | None
) -> None:
    result = resolved(connection, tmp_path, [("a", value, 0)], sent=[("a", value)])
    assert (result.drafts, result.duplicates) == ((), 1)


def test_when_every_row_is_a_duplicate_nothing_is_left(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    rows = [(f"r{n}", float(n), n) for n in range(100)]
    result = resolved(connection, tmp_path, rows, sent=[one[:2] for one in rows], days=3)
    assert (result.drafts, result.duplicates, result.rejects.num_rows) == ((), 100, 0)


@pytest.mark.parametrize(
    "name", ["row", "content", "cursor", "verdict", "id", "first", "place", "part", "hash", "r", 's "s"', "größe"]
)
def test_any_name_of_an_attribute_compares(connection: duckdb.DuckDBPyConnection, tmp_path: Path, name: str) -> None:
    quoted = name.replace('"', '""')
    rows = [("a", 1, 0), ("a", 2, 1), ("b", 1, 2), ("b", 1, 3), ("c", 3, 4)]
    table = pa.table({"id": ["c"], "value": [4.0]})
    connection.register("before", table)
    index = before(quoted)
    drafts = drafts_of(tmp_path, rows, name=name)
    result = resolve(connection, drafts, columns=[ID, name], index=index, inside=True)
    assert left(result, name) == [("a", 1), ("b", 1)]
    assert verdicts(result) == [("a", "conflicting_id"), ("c", "changed_after_sent")]


# -------------------------------------------------------------------------------------------------- what is rewritten


def test_a_file_that_loses_rows_is_counted_and_hashed_anew(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    rows = [(f"r{n % 40}", 1.0, n) for n in range(60)]
    result = resolved(connection, tmp_path, rows, days=3, file_rows=7)
    for draft in result.drafts:
        data = draft.file.read_bytes()
        events = pq.read_table(draft.file).column(TIMESTAMP).cast(pa.int64()).to_pylist()
        assert (draft.part.size, draft.part.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert draft.part.rows == len(events) == sum(draft.part.hours.values())
        assert set(draft.part.hours) == {event // MICROSECONDS_AN_HOUR for event in events}
        assert (draft.part.event_min, draft.part.event_max) == (min(events), max(events))


def test_a_file_that_loses_nothing_is_not_touched(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    drafts = drafts_of(tmp_path, [("a", 1, 0), ("b", 1, 1), ("c", 1, 2), ("c", 1, 3)], file_rows=2)
    before = drafts[0].file.stat()
    result = resolve(connection, drafts, columns=[ID, "value"], index=None, inside=True)
    assert result.drafts[0].file.stat().st_mtime_ns == before.st_mtime_ns
    assert [draft.part.rows for draft in result.drafts] == [2, 1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from([0.0, 1.0, NULL]), st.integers(0, 3)), max_size=25
    ),
    sent=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([0.0, 1.0, NULL]), max_size=4),
    days=st.integers(1, 4),
    file_rows=st.integers(1, 6),
)
def test_every_row_is_published_or_accounted_for(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    sent: dict[str, Any],
    days: int,
    file_rows: int,
) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        folder = tmp_path_factory.mktemp("cut")
        result = resolved(connection, folder, rows, sent=list(sent.items()), days=days, file_rows=file_rows)
    kept = left(result)
    assert len(kept) + result.duplicates + result.rejects.num_rows == len(rows)
    assert sorted(one[0] for one in kept) == sorted({one[0] for one in rows} - set(sent))
    firsts: dict[str, int] = {}
    for id_, _, cursor in rows:
        firsts[id_] = min(cursor, firsts.get(id_, cursor))
    assert all((id_, value, firsts[id_]) in rows for id_, value in kept)
    changed = sum(1 for id_, value, _ in rows if id_ in sent and sent[id_] != value)
    assert sum(1 for _, reason in verdicts(result) if reason == "changed_after_sent") == changed
