"""A batch of staged rows to Arize, beside Arize's own SDKs, which are given the same rows as a frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests.benchmarks.cases.delivery import sink
from tests.benchmarks.data import NON_INPUTS, START, Data, day, make_table
from tests.benchmarks.measure import Case, Contender
from tests.benchmarks.project import Project
from tests.environment import environment

TAGS = [name for name in NON_INPUTS if name != "logged_at"]
"""Without the timestamp, which Arize takes in no tag."""
SEEN = day(30)
"""A clock by which the rows are neither too old nor in the future."""


def staged(data: Data) -> Project:
    """A project whose rows, all of one day, are staged as one file."""
    rows = data.sizes.small
    table = data.made("arize.duckdb", partial(make_table, count=rows, first=START, a_day=rows))
    project = Project.make(
        data.folder / "arize", {"table": "inferences", "database": str(table)}, start=day(0), cut_rows=rows
    )
    project.change("mapping", non_inputs=TAGS)
    project.put(
        "destination",
        type="arize",
        url="http://127.0.0.1:9",
        api_key="${BENCH_KEY}",
        space_id="bench",
        model="uploads",
        version="1",
        model_type="regression",
        request_rows=rows,
        request_bytes="1GB",
    )
    project.put("staging", file_rows=rows, file_bytes="1GB")
    return project.done(data.folder, now=SEEN)


@contextmanager
def arize(data: Data) -> Iterator[Case]:
    """One batch, with nothing to wait for."""
    before = staged(data)
    (file,) = sorted((before.staged / "data").rglob("*.parquet"))
    again = Project(data.folder / "delivering-to-arize")
    with sink(data, 0.0) as url:

        def prepare() -> None:
            before.copied(again.root).change("destination", url=f"{url}/v1")

        def sdk(name: str) -> Contender:
            arguments = (url, file, ",".join(TAGS))
            return Contender(f"{name}, its SDK", environment(name) / "python", "arize_batch.py", arguments)

        yield Case(
            f"A batch of {data.sizes.small:,} rows to Arize",
            (
                sdk("arize-8"),
                sdk("arize-7"),
                again.run("tidepost, with its receipt", what="deliver", now=SEEN, before=prepare),
            ),
            base="arize-8, its SDK",
        )
