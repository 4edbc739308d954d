"""Staging: how long it takes beside other ways, how much memory, and what looking back costs beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests.benchmarks.data import EARLIER, Data, day
from tests.benchmarks.measure import Case, Contender
from tests.benchmarks.project import MEMORY, PYTHON, THREADS, Project
from tests.environment import environment


def staged(data: Data, name: str, *, first: int = 0, lookback: str = "0s") -> Project:
    """A project that stages the days, from a first one on."""
    source = {"table": "inferences", "database": str(data.days())}
    return Project.make(data.folder / name, source, start=day(first), cut_rows=data.sizes.a_day, lookback=lookback)


def template(data: Data) -> Project:
    """A project whose days are staged, and of which nothing was sent; to be copied."""
    data.made("staged", lambda _: staged(data, "staged").done(data.folder))
    return Project(data.folder / "staged")


@contextmanager
def staging(data: Data) -> Iterator[Case]:
    """Day cuts beside the same COPY statements in bare DuckDB, beside dlt and pandas."""
    sizes, first = data.sizes, f"{day(0):%Y-%m-%d}"
    empty = staged(data, "empty-index")
    earlier = staged(data, "three-days-before", first=-EARLIER, lookback=f"{EARLIER}d")
    earlier.done(data.folder, now=day(0))
    full = Project(data.folder / "three-day-index")
    others = environment("bench") / "python"

    def other(name: str, script: str, *more: object) -> Contender:
        python = PYTHON if script == "duckdb_copy.py" else others
        target = data.folder / "other"
        arguments = (data.days(), target, first, *more)
        settings = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(target)}
        return Contender(name, python, script, arguments, lambda: (data.fresh("other"), None)[1], settings)

    yield Case(
        f"Staging {sizes.rows:,} rows of 17 columns in {sizes.days} day cuts",
        (
            other("bare DuckDB, a COPY a day", "duckdb_copy.py", sizes.days, MEMORY, THREADS),
            empty.run("tidepost, empty index", before=empty.forget),
            full.run("tidepost, three-day index", before=partial(earlier.copied, full.root)),
            other("dlt, with a cursor", "dlt_load.py"),
            other("pandas", "pandas_days.py"),
        ),
        base="bare DuckDB, a COPY a day",
    )


@contextmanager
def memory(data: Data) -> Iterator[Case]:
    """The peak of a run's memory at few rows and at many."""

    def of(rows: int) -> Contender:
        source = {"table": "inferences", "database": str(data.of(rows))}
        project = Project.make(data.folder / f"memory-{rows}", source, start=day(0), cut_rows=data.sizes.a_day)
        return project.run(f"{rows:,} rows", before=project.forget)

    few, some, many = (of(rows) for rows in (data.sizes.small, data.sizes.rows, data.sizes.large))
    yield Case("Memory of a run", (few, some, many), base=few.name)


@contextmanager
def lookback(data: Data) -> Iterator[Case]:
    """A run that looks back over everything and finds that nothing is late, beside the run that staged it."""
    whole = staged(data, "whole")
    before = template(data)
    again = Project(data.folder / "looking-back")
    yield Case(
        f"Looking back over {data.sizes.rows:,} rows, of which none is late",
        (
            whole.run("staging them", before=whole.forget),
            again.run(
                "looking back over them",
                before=lambda: before.copied(again.root).change("cursor", lookback="1000d"),
            ),
        ),
        base="staging them",
    )
