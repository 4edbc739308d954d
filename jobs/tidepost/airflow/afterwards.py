"""What Airflow is told once work is done: metrics, lineage, and what arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidepost.airflow import metrics
from tidepost.airflow.assets import announce
from tidepost.airflow.lineage import Dataset, Flow, counted, model, sources, staging
from tidepost.model import DeliveryState, SendForm
from tidepost.reference import resolve
from tidepost.status import read_status

if TYPE_CHECKING:
    from tidepost.airflow.world import Opened
    from tidepost.steps import Standing, Uploaded


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What the ledger knows of some cuts' closed deliveries.

    rows:    that arrived; `refused` by the platform
    hours:   rows by hour of event time, refused ones among them
    size:    bytes of the files that hold them
    retries: files that were sent again
    """

    rows: int = 0
    refused: int = 0
    hours: Mapping[int, int] | None = None
    size: int = 0
    files: int = 0
    retries: int = 0


def after_cut(it: Opened, done: Uploaded) -> Flow | None:
    """Count one cut, and return where its rows went; None where they were not this task's."""
    metrics.of_cut(it.job.name, done)
    if done.before or done.elsewhere is not None:
        return None
    return Flow(_sources(it, done.scanned), (counted(_staging(it), rows=done.rows, size=done.size),))


def after_run(
    context: Mapping[str, Any], it: Opened, standing: Standing, cuts: Sequence[int], *, whole: bool
) -> Flow:
    """Count what arrived, announce it, and return where it went.

    whole: the task read the source too
    """
    found = arrivals(it, cuts)
    status = read_status(it.job, it.ledger, it.world.clock())
    there = next((one for stream in status.streams for one in stream.destinations), None)
    metrics.of_run(
        it.job.name,
        arrived=found.rows,
        refused=found.refused,
        retries=found.retries,
        lag=None if there is None else there.lag,
    )
    announce(
        context,
        job=it.job.name,
        partition=it.job.staging.partition,
        rows=found.rows,
        hours=found.hours or {},
        mark=None if there is None else there.mark,
    )
    staged = counted(_staging(it), rows=found.rows + found.refused, size=found.size, files=found.files)
    sent = counted(model(it.world.job), rows=found.rows, size=found.size, files=found.files)
    return Flow(_sources(it, standing.tally.scanned), (staged, sent)) if whole else Flow((staged,), (sent,))


def arrivals(it: Opened, cuts: Sequence[int]) -> Arrivals:
    """What arrived of some cuts, at all destinations."""
    stream = it.stream
    if stream is None:
        return Arrivals(hours={})
    deliveries = it.ledger.deliveries
    closed = [one for one in deliveries.of(stream, cuts) if one.state is DeliveryState.CLOSED]
    hours: dict[int, int] = {}
    size = files = retries = 0
    for one in closed:
        slice_, sends = deliveries.contents(one)
        if one.arrived:
            for hour, rows in slice_.hours.items():
                hours[hour] = hours.get(hour, 0) + rows
        size += slice_.size
        files += len(slice_.parts)
        sent = [send.part for send in sends if send.form is SendForm.FILE]
        retries += len(sent) - len(set(sent))
    return Arrivals(
        sum(one.arrived for one in closed), sum(one.refused for one in closed), hours, size, files, retries
    )


def _sources(it: Opened, rows: int) -> tuple[Dataset, ...]:
    """What the job reads; the rows are known of a single source only."""
    reference = it.job.source.postgres
    found = sources(it.world.job, None if reference is None else resolve(str(reference), it.env))
    return (counted(found[0], rows=rows),) if len(found) == 1 else found


def _staging(it: Opened) -> Dataset:
    stream = it.stream
    return staging(it.world.staging.where("" if stream is None else f"{stream.prefix}/data"))
