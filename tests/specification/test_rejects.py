"""Rows that could not be sent are kept, once, and do not keep a corrected row from being sent."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tidepost.model import RowAnswer, Stream, StreamName
from tidepost.rows.rejects import (
    ID,
    NO_REJECTS,
    read_rejects,
    read_tombstones,
    refused_key,
    rejects_key,
    write_refused,
    write_rejects,
)
from tidepost.staging.local import LocalStaging

STREAM = Stream(1, "flights", StreamName.INFERENCES)


@pytest.fixture
def records(tmp_path: Path) -> LocalStaging:
    return LocalStaging(tmp_path / "staging")


def some(*ids: str | None) -> pa.Table:
    columns = {"reason": ["null_id"] * len(ids), ID: list(ids), "row": ["{}"] * len(ids)}
    return pa.table(columns, schema=NO_REJECTS.schema)


def refused(*ids: str) -> list[tuple[RowAnswer, str]]:
    return [(RowAnswer(id_, accepted=False, message="probability above 1"), f'{{"id": "{id_}"}}') for id_ in ids]


def test_what_was_set_aside_is_kept_by_cut(records: LocalStaging) -> None:
    write_rejects(records, STREAM, 7, some("a", None))
    assert read_rejects(records, rejects_key(STREAM, 7)).equals(some("a", None))
    assert rejects_key(STREAM, 7) == "flights/inferences/_tidepost/rejects/00000007.parquet"


def test_nothing_set_aside_makes_no_file(records: LocalStaging) -> None:
    write_rejects(records, STREAM, 7, NO_REJECTS)
    assert list(records.list("")) == []


def test_a_cut_that_is_staged_again_keeps_only_what_is_set_aside_then(records: LocalStaging) -> None:
    write_rejects(records, STREAM, 7, some("a", "b"))
    write_rejects(records, STREAM, 7, some("b"))
    assert read_rejects(records, rejects_key(STREAM, 7)).column(ID).to_pylist() == ["b"]
    write_rejects(records, STREAM, 7, NO_REJECTS)
    assert list(records.list("")) == []


def test_no_file_is_no_rejects(records: LocalStaging) -> None:
    assert read_rejects(records, rejects_key(STREAM, 7)).equals(NO_REJECTS)


def test_what_a_destination_refused_is_kept_with_its_words(records: LocalStaging) -> None:
    write_refused(records, STREAM, 3, "arthur", refused("a"))
    (kept,) = read_rejects(records, refused_key(STREAM, 3, "arthur")).to_pylist()
    assert kept == {"reason": "refused by arthur: probability above 1", ID: "a", "row": '{"id": "a"}'}


def test_a_row_that_is_refused_again_stays_once(records: LocalStaging) -> None:
    write_refused(records, STREAM, 3, "arthur", refused("a", "b"))
    write_refused(records, STREAM, 3, "arthur", refused("b", "c"))
    found = read_rejects(records, refused_key(STREAM, 3, "arthur"))
    assert found.column(ID).to_pylist() == ["a", "b", "c"]


def test_refused_ids_are_told_by_slice_over_all_destinations(records: LocalStaging) -> None:
    write_refused(records, STREAM, 3, "arthur", refused("a"))
    write_refused(records, STREAM, 3, "other", refused("b"))
    write_refused(records, STREAM, 4, "arthur", refused("c"))
    write_refused(records, STREAM, 5, "arthur", refused("d"))
    found = read_tombstones(records, STREAM, {3, 4})
    assert {sequence: sorted(ids) for sequence, ids in found.items()} == {3: ["a", "b"], 4: ["c"]}


def test_an_id_that_one_of_several_destinations_took_is_no_tombstone(records: LocalStaging) -> None:
    write_refused(records, STREAM, 3, "arthur", refused("a", "b"))
    write_refused(records, STREAM, 3, "other", refused("b", "c"))
    write_refused(records, STREAM, 4, "gone", refused("d"))
    assert read_tombstones(records, STREAM, {3, 4}, ["arthur", "other"]) == {3: ["b"]}
    assert read_tombstones(records, STREAM, {3, 4}, ["arthur"]) == {3: ["a", "b"]}


def test_no_refusals_are_no_tombstones(records: LocalStaging) -> None:
    assert read_tombstones(records, STREAM, {1, 2}) == {}
