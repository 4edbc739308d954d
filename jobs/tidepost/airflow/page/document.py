"""A reading as JSON values: what a job's `tidepost status --json` says, its DAG, and what could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tidepost.airflow.page.reading import Fault, Found, Reading
from tidepost.airflow.page.shown import Dag
from tidepost.status import document as status_document
from tidepost.texts import instant


def document(reading: Reading, dags: Mapping[str, Dag]) -> dict[str, Any]:
    """A reading as JSON values; `dags` by job.

    at:     when it was read
    error:  {message, safe, hint} of what concerns all of it, or null
    jobs:   each `job`, its `dag` ({id, paused}, or null), its `error` or null, `ran` and `streams`
    broken: each `file` that is wrong, and its `error`
    """
    return {
        "at": instant(reading.at),
        "error": _error(reading.fault),
        "jobs": [_job(found, dags.get(found.name)) for found in reading.jobs],
        "broken": [{"file": one.file, "error": _error(one.fault)} for one in reading.broken],
    }


def _job(of: Found, dag: Dag | None) -> dict[str, Any]:
    status = {"ran": None, "streams": []} if of.status is None else status_document(of.status)
    return {**status, "job": of.name, "dag": None if dag is None else asdict(dag), "error": _error(of.fault)}


def _error(fault: Fault | None) -> dict[str, str] | None:
    return None if fault is None else asdict(fault)
