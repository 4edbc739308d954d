"""Each stream as assets of Airflow, so that DAGs can be scheduled on what arrived.

A stream is two assets, for Airflow triggers by an event either DAGs that ask for partitions or those that do not:

| asset                             | its event                     | to schedule on                             |
|-----------------------------------|-------------------------------|--------------------------------------------|
| `asset("flights")`                | one a run that brought rows   | `schedule=[asset("flights")]`              |
| `partitions("flights")`           | one a day or hour with rows   | `PartitionedAssetTimetable(assets=…)`      |

An event may come again where a task is cleared. Airflow keeps a copy of the mark for people to read, in the first
asset's state store; nothing here reads it back, for that store has no compare-and-set.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowRuntimeError

KEY_FORMAT: Final = "%Y-%m-%dT%H:%M:%S"
"""How Airflow's own mappers of partitions read their keys: the beginning of a day or an hour, in UTC."""
MARK: Final = "high_water_mark"
_SCHEME: Final = "tidepost://"
_log = logging.getLogger(__name__)
_HOUR: Final = 3600
_HOURS_A_DAY: Final = 24


def asset(job: str, stream: str = "inferences") -> Asset:
    """A stream. Its name and URI are the job's and the stream's: no host, no folder and no platform is part of
    them, as another URI would be another asset, with an empty state store and nobody scheduled on it."""
    return Asset(name=f"{job}/{stream}", uri=f"{_SCHEME}{job}/{stream}")


def partitions(job: str, stream: str = "inferences") -> Asset:
    """A stream by the days or hours, as its staging is partitioned, of its inferences' own time."""
    return Asset(name=f"{job}/{stream}/partitions", uri=f"{_SCHEME}{job}/{stream}/partitions")


def outlets(job: str, stream: str = "inferences") -> list[Asset]:
    """What a task declares that announces a stream."""
    return [asset(job, stream), partitions(job, stream)]


def announce(
    context: Mapping[str, Any],
    *,
    job: str,
    partition: str,
    rows: int,
    hours: Collection[int],
    mark: str | None,
    stream: str = "inferences",
) -> None:
    """Tell Airflow what arrived, as far as the task declares the stream's assets. Without rows there is no event.

    partition: day or hour
    rows:      that arrived
    hours:     the hours of event time that got rows, since 1970
    mark:      the least of the destinations' high-water marks
    """
    whole, parts = outlets(job, stream)
    task, events = context["task"], context["outlet_events"]
    if whole in task.outlets and mark is not None:
        _mirror(context, whole, mark)
    if not (rows and hours):
        silence(context)
        return
    told = {
        "job": job,
        "stream": stream,
        "rows": rows,
        "mark": mark,
        "from": _key(min(hours)),
        "to": _key(max(hours) + 1),
    }
    if whole in task.outlets:
        events[whole].extra = told
    if parts in task.outlets:
        events[parts].extra = told
        events[parts].add_partitions(keys(hours, partition))


def silence(context: Mapping[str, Any]) -> None:
    """End without an event, as nothing arrived: Airflow makes one of every outlet of a task that succeeds."""
    task = context["task"]
    task.outlets = [one for one in task.outlets if not getattr(one, "uri", "").startswith(_SCHEME)]


def _mirror(context: Mapping[str, Any], of: Asset, mark: str) -> None:
    try:
        context["asset_state_store"][of].set(MARK, mark)
    except AirflowRuntimeError as error:
        _log.warning("Airflow took no copy of the mark: %s", error)


def keys(hours: Collection[int], partition: str) -> list[str]:
    """The partitions that hold hours since 1970, in order."""
    step = _HOURS_A_DAY if partition == "day" else 1
    return [_key(first) for first in sorted({hour - hour % step for hour in hours})]


def _key(hour: int) -> str:
    return datetime.fromtimestamp(hour * _HOUR, UTC).strftime(KEY_FORMAT)
