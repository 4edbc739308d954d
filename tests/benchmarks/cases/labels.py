"""Labels: what staging them costs beside their inferences, and the last hour's beside few and many slices of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

from tests.benchmarks.data import START, Data, make_table
from tests.benchmarks.measure import Case, Contender
from tests.benchmarks.project import Project

AN_HOUR = 50
"""Rows, of which an hour is a slice, where slices are counted."""


def _project(data: Data, name: str, database: str, *, cut_rows: int) -> Project:
    """A project that stages inferences and, of each, a label from the same row."""
    source = {"table": "inferences", "database": database}
    project = Project.make(data.folder / name, source, start=START, cut_rows=cut_rows)
    return project.put(
        "ground_truth",
        source=source,
        cursor={"column": "logged_at", "start": START.isoformat(), "settle": "0s", "lookback": "0s"},
        ground_truth_timestamp="at",
        attributes={"late": {"column": "distance"}},
    )


@contextmanager
def labels(data: Data) -> Iterator[Case]:
    """The labels of many rows, in day cuts, beside their inferences."""
    rows = data.sizes.small
    whole = _project(data, "labels-none", str(data.of(rows)), cut_rows=data.sizes.a_day)
    whole.done(data.folder)
    again = Project(data.folder / "labels-again")
    yield Case(
        f"Staging {rows:,} inferences in day cuts, and their labels",
        (
            again.run("inferences", before=lambda: whole.copied(again.root).forget()),
            again.run("labels", what="label", before=partial(whole.copied, again.root)),
        ),
        base="inferences",
    )


@contextmanager
def last_labels(data: Data) -> Iterator[Case]:
    """The labels of an hour, beside few slices of labels and beside many."""
    few, many = (_beside(data, slices) for slices in data.sizes.labelled)
    yield Case("The last hour's labels", (few, many), base=few.name)


def _beside(data: Data, slices: int) -> Contender:
    database = data.folder / f"labels-{slices}.duckdb"
    make_table(database, count=AN_HOUR * (slices + 1), first=START, a_day=24 * AN_HOUR)
    whole = _project(data, f"labels-{slices}", str(database), cut_rows=AN_HOUR)
    before = START + timedelta(hours=slices)
    whole.done(data.folder).done(data.folder, what="label", now=before)
    again = Project(data.folder / f"labels-{slices}-again")
    after = before + timedelta(hours=1)
    return again.run(f"beside {slices:,} slices", what="label", now=after, before=partial(whole.copied, again.root))
