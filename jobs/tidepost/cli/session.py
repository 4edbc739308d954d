"""What every command is given: the options that all share, and the way from them to project, ledger and world."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidepost.cli.log import LogFormat
from tidepost.cli.output import rendered, write, write_json
from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tidepost.definition.job import Job
    from tidepost.definition.project import Project
    from tidepost.ledger.sql import SqlLedger
    from tidepost.ports import Destination
    from tidepost.recovery.acts import Word
    from tidepost.world import World


@dataclass(frozen=True, slots=True)
class Session:
    """The options that every command has."""

    folder: Path | None = None
    as_json: bool = False
    log_format: LogFormat = LogFormat.TEXT
    verbose: bool = False

    def project(self) -> Project:
        """The project of `--project`, else of the working directory. Raises Misconfigured."""
        from tidepost.definition.project import find_project  # noqa: PLC0415 - help does not need it

        if self.folder is None:
            return find_project()
        if not self.folder.is_dir():
            raise Misconfigured(f"--project {self.folder}: there is no such folder")
        # What was typed wins over the environment.
        env = {name: value for name, value in os.environ.items() if name != "TIDEPOST_PROJECT"}
        return find_project(self.folder, env)

    def answer(self, document: Mapping[str, Any], *text: RenderableType) -> None:
        """Write a command's result to standard output: the document with `--json`, else the text."""
        if self.as_json:
            write_json(document)
        elif text:
            write(rendered(*text))


def clock_at(now: str | None) -> Callable[[], float]:
    """The clock of a run: the system's, or one that stands still at `--now`. Raises Misconfigured."""
    if now is None:
        return time.time
    from tidepost.cursor import SECOND, parse_instant  # noqa: PLC0415

    try:
        at = parse_instant(now) / SECOND
    except ValueError as error:
        raise Misconfigured(f"--now {now}: {error}") from None
    return lambda: at


@contextmanager
def existing_ledger(project: Project) -> Iterator[SqlLedger | None]:
    """The project's ledger to read from; None where its file does not exist, which this does not create."""
    from tidepost.wire import existing_ledger_of  # noqa: PLC0415

    ledger = existing_ledger_of(project)
    with nullcontext() if ledger is None else ledger:
        yield ledger


@contextmanager
def world_of(
    project: Project,
    job: Job,
    ledger: SqlLedger,
    *,
    clock: Callable[[], float],
    env: Mapping[str, str] | None = None,
    accept_loss: Word | None = None,
) -> Iterator[World]:
    """A job's world; its connections are closed at the end. Raises as `wire` does."""
    from tidepost.wire import wire  # noqa: PLC0415

    with ExitStack() as stack:
        world = wire(project, job, ledger, env=env, clock=clock, accept_loss=accept_loss)
        for destination in world.destinations:
            stack.enter_context(closing_destination(destination))
        with job.placed():
            yield world


@contextmanager
def closing_destination(destination: Destination) -> Iterator[Destination]:
    """A destination whose connections, where it has any, are closed when the block ends."""
    try:
        yield destination
    finally:
        close = getattr(destination, "close", None)
        if close is not None:
            close()
