"""What the page shows, as values: every job of the project with its status, or with what keeps that from being read.

It reads the ledger and the definitions, never a source or a platform, and writes nothing: a ledger that would have to
be migrated first is left as it is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tidepost.airflow.place import the_project
from tidepost.definition.job import Job
from tidepost.definition.project import Project
from tidepost.errors import TidepostError
from tidepost.ledger.sql import SqlLedger
from tidepost.status import JobStatus, read_status
from tidepost.wire import existing_ledger_of

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something could not be read, as the error said it."""

    message: str
    safe: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A job: either its status, or why there is none."""

    name: str
    status: JobStatus | None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """A job file that is wrong; `file` is relative to the project's root."""

    file: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class Reading:
    """A project as it was read at an instant, in seconds since 1970.

    folder: where its job files are; None where no project was found
    fault:  what concerns all of it: there is no project, or its ledger cannot be read
    """

    at: float
    folder: str | None
    jobs: tuple[Found, ...]
    broken: tuple[Broken, ...]
    fault: Fault | None = None


def read(clock: Callable[[], float] = time.time) -> Reading:
    """The project, as Airflow's processes find it. Raises nothing: what is wrong is part of the reading."""
    at = clock()
    try:
        project = the_project()
    except TidepostError as error:
        return Reading(at, None, (), (), _fault(error))
    definitions = project.definitions()
    broken = tuple(
        Broken(path.relative_to(project.root).as_posix(), _fault(error)) for path, error in definitions.broken.items()
    )
    jobs, fault = _jobs(project, definitions.jobs, at)
    return Reading(at, str(project.root / "jobs"), jobs, broken, fault)


def _jobs(project: Project, jobs: tuple[Job, ...], at: float) -> tuple[tuple[Found, ...], Fault | None]:
    """All jobs from one ledger, which is opened once: where it does not answer, it is not waited for once a job."""
    from tidepost.airflow.connections import environment  # noqa: PLC0415 - Airflow is imported where it is asked

    try:
        ledger = existing_ledger_of(project, environment(project), migrate=False)
    except Exception as error:
        fault = _fault(error)
        return tuple(Found(job.name, None, fault) for job in jobs), fault
    try:
        return tuple(_job(job, ledger, at) for job in jobs), None
    finally:
        if ledger is not None:
            ledger.close()


def _job(job: Job, ledger: SqlLedger | None, at: float) -> Found:
    try:
        return Found(job.name, read_status(job, ledger, at))
    except Exception as error:
        return Found(job.name, None, _fault(error))


def _fault(error: Exception) -> Fault:
    if isinstance(error, TidepostError):
        return Fault(error.message, error.safe, error.hint)
    # Its text is for the log: nothing is known of what it holds.
    log.error("a job's status could not be read", exc_info=error)
    return Fault(f"an error that tidepost did not expect: {type(error).__name__}", hint="See the api-server's log.")


class Recent(Generic[T]):
    """A value that is read again when it is asked for and so many seconds old, by one caller at a time; the others
    get the one before, so that a ledger which does not answer keeps one thread of the server waiting, not all."""

    def __init__(self, read: Callable[[], T], seconds: float) -> None:
        self._read, self._seconds = read, seconds
        self._lock = threading.Lock()
        self._found: tuple[float, T] | None = None

    def __call__(self) -> T:
        known = self._found
        if known is None:
            with self._lock:
                return self._renewed()
        if self._is_fresh() or not self._lock.acquire(blocking=False):
            return known[1]
        try:
            return self._renewed()
        finally:
            self._lock.release()

    def _renewed(self) -> T:
        """With the lock held: the value, read unless somebody else just did."""
        if self._found is None or not self._is_fresh():
            self._found = (time.monotonic(), self._read())
        return self._found[1]

    def _is_fresh(self) -> bool:
        return self._found is not None and time.monotonic() - self._found[0] < self._seconds
