"""The ground_truth section of a job, and that its rows get the ids of their inferences."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from tests.specification.test_template import templates

from tidepost.definition.job import GroundTruthDefinition, Job, MappingDefinition, load_job
from tidepost.definition.project import load_project
from tidepost.errors import Misconfigured
from tidepost.model import StreamName
from tidepost.planning.lookback import labelled
from tidepost.ports import CURSOR
from tidepost.rows.shape import ID, shape
from tidepost.sql import quote_identifier

SECTION: dict[str, Any] = {
    "source": "labels/*.parquet",
    "cursor": {"column": "known_at", "start": "2024-05-01T00:00:00Z"},
    "ground_truth_timestamp": "landed_at",
    "attributes": ["late"],
}
BOUND = {"TIMESTAMP WITH TIME ZONE", "HUGEINT", "UHUGEINT"}


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Kolkata'")
        yield connection


@given(templates())
@settings(max_examples=100, deadline=None)
def test_a_label_gets_the_id_of_its_inference_whatever_the_template(
    connection: duckdb.DuckDBPyConnection, found: tuple[str, dict[str, str], dict[str, object]]
) -> None:
    template, types, values = found
    plain = {"partner_inference_id": template, "inference_timestamp": "at", "inputs": [], "predictions": ["score"]}
    of_inferences = MappingDefinition.model_validate(plain)
    of_labels = GroundTruthDefinition.model_validate(SECTION).mapping(of_inferences.partner_inference_id)
    columns = {**types, "at": "TIMESTAMPTZ", "landed_at": "TIMESTAMPTZ", "score": "DOUBLE", "late": "BIGINT"}
    given = [str(v) if types[n] in BOUND and v is not None else v for n, v in values.items()]
    texts = ", ".join(
        f"CAST(CAST(? AS {'VARCHAR' if k in BOUND else k}) AS {k}) AS {quote_identifier(n)}" for n, k in types.items()
    )
    rest = "TIMESTAMPTZ '2024-05-01Z' AS at, TIMESTAMPTZ '2024-05-02Z' AS landed_at, 1.0::DOUBLE AS score, 1 AS late"
    relation = f'SELECT {texts}, {rest}, 1 AS "{CURSOR}"'
    ids = []
    for mapping, stream in ((of_inferences, StreamName.INFERENCES), (of_labels, StreamName.GROUND_TRUTH)):
        known = {name: kind.replace("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE") for name, kind in columns.items()}
        target = shape(mapping, known, pinned={}, finite_only=True, stream=stream)
        row = connection.execute(f"SELECT {quote_identifier(ID)} FROM ({target.sql(relation)})", given).fetchone()
        assert row is not None
        ids.append(row[0])
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attributes": []}, "ground_truth.attributes: is empty"),
        ({"attributes": ["late", "LATE"]}, 'attributes[1]: "LATE" is there twice'),
        ({"attributes": ["score"]}, '"score" is in the mapping already'),
        ({"attributes": ["batch_id"]}, "is a name of tidepost's own"),
        ({"cursor": {"column": "c", "start": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "type": "uuid"}}, "UUID"),
        ({"cursor": {"column": "n", "start": 0}, "files": "drops/*.csv"}, "need a cursor that is a time"),
        ({"orphans": "3d"}, "ground_truth.orphans: no such key"),
        ({"source": None}, "ground_truth.source: is missing; name it, or `files` that labels come by"),
        ({"cursor": None}, "ground_truth.cursor: is missing: it says when a label of the source became known"),
        ({"source": None, "files": "drops/*.csv"}, "ground_truth.cursor: belongs to a source"),
    ],
)
def test_what_is_wrong_with_the_section_is_told_with_its_key(
    define: Callable[..., Job], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(Misconfigured) as error:
        define(**changes)
    assert told in str(error.value)


def test_labels_are_seen_through_the_jobs_own_eyes(define: Callable[..., Job]) -> None:
    seen = define(limits={"rejects": "5%"}).of_labels()
    assert seen is not None
    assert (seen.stream, seen.cursor.column, [one.name for one in seen.labels]) == (
        StreamName.GROUND_TRUTH,
        "known_at",
        ["late"],
    )
    assert seen.mapping.partner_inference_id.text == "{carrier}{flight}"
    assert str(seen.limits.rejects) == "5%"
    assert seen.whole.stream is StreamName.INFERENCES
    assert "ground_truth.source" in seen.where("source", "files")


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        (["a", "b"], [1]),
        ([{"name": "a", "optional": True}, "b"], [1, 2]),
        ([{"name": "a", "optional": True}, {"name": "b", "optional": True}], [1, 2, 3]),
    ],
)
def test_a_row_has_its_label_once_nothing_is_null_that_is_not_optional(
    connection: duckdb.DuckDBPyConnection, attributes: list[Any], found: list[int]
) -> None:
    of = GroundTruthDefinition.model_validate(SECTION | {"attributes": attributes}).attributes
    rows = "SELECT * FROM (VALUES (1, 0, ''), (2, NULL, ''), (3, 0, NULL), (4, NULL, NULL)) AS t(n, a, b)"
    assert [
        row[0] for row in connection.execute(f"SELECT n FROM ({labelled(rows, of)}) ORDER BY n").fetchall()
    ] == found


@pytest.fixture
def define(tmp_path: Path) -> Callable[..., Job]:
    """A job with a ground_truth section, which the arguments change."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "tidepost.yaml").write_text("version: 1\n")

    def define(**changes: Any) -> Job:
        job = {
            "version": 1,
            "name": "flights",
            "source": "log/*.parquet",
            "cursor": {"column": "logged_at", "start": "2024-05-01T00:00:00Z"},
            "mapping": {
                "partner_inference_id": "{carrier}{flight}",
                "inference_timestamp": "at",
                "inputs": ["distance"],
                "predictions": ["score"],
            },
            "destination": {"type": "arthur", "url": "http://h", "api_key": "${KEY}", "model": "m"},
            "ground_truth": SECTION | changes,
        }
        (tmp_path / "jobs" / "flights.yaml").write_text(json.dumps(job))
        return load_job(Path("jobs/flights.yaml"), load_project(tmp_path))

    return define
