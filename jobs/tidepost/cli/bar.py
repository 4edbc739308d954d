"""The progress bar of a run on a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from tidepost.cli.output import size


class _Amounts(ProgressColumn):
    """Rows of how many, bytes, rows a second, rows arrived."""

    def render(self, task: Task) -> Text:
        rate = f"  {task.speed:,.0f} rows/s" if task.speed else ""
        total = f"/{task.total:,.0f}" if task.total else ""
        amounts = f"{task.completed:,.0f}{total} rows  {size(task.fields['size'])}{rate}"
        return Text(f"{amounts}  {task.fields['arrived']:,} arrived")


class ProgressBar:
    """Satisfies `progress.Bar`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("planning", total=None, size=0, arrived=0)
        self._size = self._arrived = 0

    def expect(self, rows: int) -> None:
        self._progress.update(self._task, total=rows or None, description="staging")

    def advance(self, what: str, rows: int, size: int) -> None:
        self._size += size
        self._progress.update(self._task, advance=rows, description=what, size=self._size)

    def arrived(self, rows: int) -> None:
        self._arrived += rows
        self._progress.update(self._task, arrived=self._arrived)


@contextmanager
def progress_bar() -> Iterator[ProgressBar]:
    """A bar on standard error, gone when the block ends; lines of the log scroll above it."""
    console = Console(file=sys.stderr, highlight=False, emoji=False, markup=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        _Amounts(),
        TimeRemainingColumn(compact=True),
    )
    root = logging.getLogger("tidepost")
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        streams = [
            (handler, handler.stream) for handler in root.handlers if isinstance(handler, logging.StreamHandler)
        ]
        for handler, _ in streams:
            handler.setStream(sys.stderr)  # Rich's own, which keeps the bar below what is written
        try:
            yield ProgressBar(progress)
        finally:
            for handler, stream in streams:
                handler.setStream(stream)
