"""What was measured, as Markdown."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.measure import Case, Result

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
LOCKS = Path(__file__).resolve().parents[2] / "locks"


def heading(repetitions: int, seconds: float) -> str:
    """Where and how it was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    installed = [f"{name} {version(name.lower())}" for name in ("DuckDB", "pyarrow")]
    locked = [
        f"{name} {_locked(lock, name)}"
        for lock, name in (("bench", "dlt"), ("bench", "pandas"), ("arthur-sdk", "arthurai"), ("arize-8", "arize"))
    ]
    python = f"Python {platform.python_version()}"
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, {platform.system()}; "
        f"{', '.join([python, *installed, *locked])}. Runs of each contender: {repetitions}, in turn with the "
        f"others of its table; all took {seconds / 60:.0f} minutes."
    )


def section(case: Case, results: Mapping[str, Result]) -> str:
    """A case's table: medians, the shortest and longest run, and ratios to the case's base."""
    base = results[case.base]
    lines = [
        f"### {case.title}",
        "",
        "| | seconds | CPU seconds | memory, MB | × seconds | × CPU | × memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in results.values():
        shortest, longest = one.spread
        lines.append(
            f"| {one.name} | {_short(one.wall)} ({_short(shortest)}–{_short(longest)}) | {_short(one.cpu)} "
            f"| {one.memory / 1e6:.0f} | {one.wall / base.wall:.2f} | {one.cpu / base.cpu:.2f} "
            f"| {one.memory / base.memory:.2f} |"
        )
    return "\n".join(lines)


def written(text: str, table: str) -> str:
    """A page with the table between its marks. ValueError: it has none."""
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:begin]}\n{table}\n{text[end:]}"


def _short(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 10 else f"{seconds:.2f}"


def _locked(lock: str, name: str) -> str:
    found = re.search(rf"^{name}==(\S+)", (LOCKS / f"{lock}.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]
