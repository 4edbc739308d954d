"""What tasks measure, through Airflow's own metrics: StatsD, Datadog or OpenTelemetry, as its `[metrics]` says.

Each number goes out under two names, as Airflow's own do: `tidepost.rows` with the tags `job` and `stream`, and
`tidepost.flights.rows` for those who keep no tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow.sdk.observability import stats

if TYPE_CHECKING:
    from tidepost.steps import Uploaded

PREFIX: Final = "tidepost"


def of_cut(job: str, done: Uploaded, *, stream: str = "inferences") -> None:
    """What one cut did. Nothing for one that was done before, or is another's."""
    if done.before or done.elsewhere is not None:
        return
    _count(job, stream, "rows", done.rows)
    _count(job, stream, "bytes", done.size)
    _count(job, stream, "rejects", sum(done.rejected.values()))
    _time(job, stream, "seconds", done.seconds)


def of_run(
    job: str, *, arrived: int, refused: int, retries: int, lag: float | None, stream: str = "inferences"
) -> None:
    """What a run came to: rows that arrived, rows that the platform refused, requests that were made again, and
    seconds from the mark to now, where the mark is a time."""
    _count(job, stream, "arrived", arrived)
    _count(job, stream, "rejects", refused)
    _count(job, stream, "retries", retries)
    for name, tags in _names(job, stream, "lag") if lag is not None else ():
        stats.gauge(name, lag, tags=tags)


def _count(job: str, stream: str, what: str, number: int) -> None:
    for name, tags in _names(job, stream, what) if number else ():
        stats.incr(name, number, tags=tags)


def _time(job: str, stream: str, what: str, seconds: float) -> None:
    for name, tags in _names(job, stream, what):
        stats.timing(name, seconds * 1000, tags=tags)  # backends take milliseconds


def _names(job: str, stream: str, what: str) -> tuple[tuple[str, dict[str, Any]], ...]:
    return (
        (f"{PREFIX}.{what}", {"job": job, "stream": stream}),
        (f"{PREFIX}.{stats.normalize_name_for_stats(job)}.{what}", {"stream": stream}),
    )
