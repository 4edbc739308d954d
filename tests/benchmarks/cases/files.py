"""A log of hourly files, beside the same rows in few files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tests.benchmarks.data import CUTS, Data, day
from tests.benchmarks.measure import Case, Contender
from tests.benchmarks.project import Project


@contextmanager
def year(data: Data) -> Iterator[Case]:
    """Everything, in 24 cuts: from hourly files, and from a file a cut."""
    log = data.log()
    # A cut ends with the day on which it is half full.
    cut_rows = 2 * log.days_a_cut * 24 * log.an_hour
    files = len(list(log.hourly.glob("*/*.parquet")))
    few = _run(data, f"{CUTS} files", log.coarse / "*.parquet", day(0), cut_rows)
    many = _run(data, f"{files:,} hourly files", log.hourly / "*/*.parquet", day(0), cut_rows)
    yield Case(f"{CUTS} cuts over all of an hourly log", (few, many), base=few.name)


@contextmanager
def last_day(data: Data) -> Iterator[Case]:
    """The last day, in 24 cuts: from a log of hourly files, and from that day's alone."""
    log = data.log()
    start = day(log.hours // 24 - 1)
    files = len(list(log.hourly.glob("*/*.parquet")))
    alone = _run(data, "24 hourly files", log.hourly / f"{start:%Y-%m-%d}" / "*.parquet", start, log.an_hour)
    among = _run(data, f"24 of {files:,} hourly files", log.hourly / "*/*.parquet", start, log.an_hour)
    yield Case(f"{CUTS} cuts over the last day of an hourly log", (alone, among), base=alone.name)


def _run(data: Data, name: str, files: Path, start: datetime, cut_rows: int) -> Contender:
    root = data.folder / name.replace(" ", "-").replace(",", "")
    project = Project.make(root, str(files), start=start, cut_rows=cut_rows)
    return project.run(name, before=project.forget)
