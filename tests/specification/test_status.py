"""What a status derives from what the ledger holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.world import World, after, row, rows

from tidepost.cursor import to_nanoseconds
from tidepost.definition.job import Job
from tidepost.ledger.summary import DestinationSummary, OpenSlice, StreamSummary
from tidepost.model import Delivery, DeliveryState, ScanKind, StreamName
from tidepost.ranges import Range, Ranges
from tidepost.sandbox.settings import Fault
from tidepost.status import DestinationStatus, StreamStatus, cursor_kind, job_status, read_status

START = datetime(2024, 5, 1, tzinfo=UTC)
AT_ARTHUR = DestinationSummary("arthur", {}, {}, 0, 0, {}, (), None)
PLAIN = StreamSummary(
    job="flights",
    name=StreamName.INFERENCES,
    scanned={},
    open_cuts=0,
    slices=0,
    rows=0,
    size=0,
    duplicates=0,
    rejected={},
    late_rows=0,
    late=0.0,
    null_cursors=0,
    publishing=None,
    last_published_at=None,
    last_run_at=None,
    destinations=(AT_ARTHUR,),
)


def job(**cursor: Any) -> Job:
    return Job.model_validate(
        {
            "version": 1,
            "name": "flights",
            "source": "log/*.parquet",
            "cursor": {"column": "logged_at", "start": "2024-05-01", **cursor},
            "mapping": {
                "partner_inference_id": "id",
                "inference_timestamp": "at",
                "inputs": ["distance"],
                "predictions": ["score"],
            },
            "destination": {"type": "arthur", "url": "http://localhost", "api_key": "${KEY}", "model": "delays"},
        }
    )


def at(hours: float) -> int:
    """A position some hours after the job's start."""
    return to_nanoseconds(START + timedelta(hours=hours))


def scanned(*ranges: tuple[float, float]) -> dict[str, Ranges]:
    return {"": Ranges.of(Range(at(start), at(end)) for start, end in ranges)}


def stream(summary: StreamSummary, *waiting: Delivery, now: float = 24, of: Job | None = None) -> StreamStatus:
    """The status of a stream, `now` hours after the job's start."""
    seconds = (START + timedelta(hours=now)).timestamp()
    (found,) = job_status(of or job(), [summary], {StreamName.INFERENCES: waiting}, seconds).streams
    return found


def there(summary: StreamSummary, *waiting: Delivery, now: float = 24) -> DestinationStatus:
    (found,) = stream(summary, *waiting, now=now).destinations
    return found


def test_a_job_without_streams_never_ran() -> None:
    assert not job_status(job(), [], {}, 0).ran


def test_the_mark_is_where_the_unbroken_scanned_range_ends() -> None:
    found = there(replace(PLAIN, scanned=scanned((0, 3), (5, 6))))
    assert found.mark == "2024-05-01T03:00:00Z"


def test_there_is_no_mark_before_the_start_was_scanned() -> None:
    found = stream(replace(PLAIN, scanned=scanned((5, 6))))
    assert found.frontier is None
    assert found.destinations[0].mark is None
    assert found.destinations[0].lag is None


def test_the_oldest_open_slice_caps_the_mark_of_its_destination_alone() -> None:
    behind = replace(AT_ARTHUR, destination="arize", oldest={"": at(1)})
    found = stream(replace(PLAIN, scanned=scanned((0, 3)), destinations=(AT_ARTHUR, behind)))
    assert found.frontier == "2024-05-01T03:00:00Z"
    assert [one.mark for one in found.destinations] == ["2024-05-01T03:00:00Z", "2024-05-01T01:00:00Z"]


def test_the_lag_is_from_the_mark_to_now_in_seconds() -> None:
    assert there(replace(PLAIN, scanned=scanned((0, 3))), now=5).lag == 7200


def test_open_slices_of_other_scans_are_below_the_mark_where_they_begin_there() -> None:
    others = tuple(
        OpenSlice(sequence, ScanKind.BACKFILL, Range(at(start), at(start) + 1), "", DeliveryState.TODO)
        for sequence, start in ((4, 1), (5, 3))
    )
    found = there(replace(PLAIN, scanned=scanned((0, 3)), destinations=(replace(AT_ARTHUR, others=others),)))
    assert found.mark == "2024-05-01T03:00:00Z"
    assert found.below == (4,)


def test_deliveries_are_open_or_held_or_neither() -> None:
    states = {DeliveryState.TODO: 1, DeliveryState.UNKNOWN: 2, DeliveryState.HELD: 3, DeliveryState.CLOSED: 4}
    found = stream(replace(PLAIN, open_cuts=5, destinations=(replace(AT_ARTHUR, deliveries=states),)))
    assert (found.destinations[0].open, found.destinations[0].held) == (3, 3)
    assert (found.open, found.held) == (8, 3)


def test_what_waits_comes_by_sequence_with_what_to_type() -> None:
    held = Delivery(1, 9, "arthur", DeliveryState.HELD, 10, reason="too many rejects")
    open_ = Delivery(2, 8, "arthur", DeliveryState.UNKNOWN, 20)
    elsewhere = Delivery(3, 8, "arize", DeliveryState.TODO, 20)
    found = there(PLAIN, held, open_, elsewhere)
    assert [(one.sequence, one.reason, one.remedy) for one in found.waiting] == [
        (8, "", "tidepost run flights"),
        (9, "too many rejects", 'tidepost release flights 9 --why "…"'),
    ]


def test_the_jobs_destination_is_shown_before_anything_was_published() -> None:
    found = there(replace(PLAIN, scanned=scanned((0, 3)), destinations=()))
    assert (found.name, found.mark, found.arrived) == ("arthur", "2024-05-01T03:00:00Z", 0)


def test_rejects_are_the_sum_of_their_reasons() -> None:
    assert stream(replace(PLAIN, rejected={"null_id": 2, "conflict": 3})).rejects == 5


@pytest.mark.parametrize(
    ("cursor", "reach", "mark", "lag"),
    [
        ({"start": 0, "type": "integer"}, (0, 4711), "4711", None),
        ({"start": f"{UUID(int=0)}"}, (0, 4711), f"{UUID(int=4711)}", None),
        ({"start": 0}, (0, 4711), "4711", None),
        ({"type": "date"}, (19_844, 19_845), "2024-05-02", 86_400),
        ({}, (19_844, 19_845), "2024-05-02", 86_400),
        ({}, (at(0), at(24)), "2024-05-02T00:00:00Z", 86_400),
        ({"start": "2024-05-01T00:00:00Z"}, (at(0), at(24)), "2024-05-02T00:00:00Z", 86_400),
        ({"timezone": "America/New_York"}, (at(4), at(24)), "2024-05-02T00:00:00Z", 86_400),
    ],
)
def test_a_mark_is_written_as_its_cursor_is(
    cursor: dict[str, Any], reach: tuple[int, int], mark: str, lag: float | None
) -> None:
    summary = replace(PLAIN, scanned={"": Ranges((Range(*reach),))})
    (found,) = stream(summary, now=48, of=job(**cursor)).destinations
    assert (found.mark, found.lag) == (mark, lag)


def test_a_date_means_midnight_in_the_cursors_zone() -> None:
    of = job(timezone="America/New_York", start="2024-05-01T00:00:00")
    summary = replace(PLAIN, scanned={"": Ranges((Range(at(4), at(5)),))})
    assert stream(summary, of=of).frontier == "2024-05-01T05:00:00Z"


def test_the_type_that_a_job_declares_needs_no_look_at_what_was_scanned() -> None:
    assert cursor_kind(job(type="date"), {}).type == "date"
    assert cursor_kind(job(), {}).type == "timestamp"
    assert cursor_kind(job(start="00000000-0000-0000-0000-000000000000"), {}).type == "uuid"


def test_lanes_are_named_where_there_are_several() -> None:
    of = job(start=0)
    lanes = {"log/0": Ranges((Range(0, 5),)), "log/1": Ranges((Range(0, 7),))}
    assert stream(replace(PLAIN, scanned=lanes), of=of).frontier == "log/0 5, log/1 7"


def status(world: World) -> StreamStatus:
    with world.ledger() as ledger:
        (found,) = read_status(world.project.job("flights"), ledger, world.now.timestamp()).streams
    return found


def test_the_numbers_are_those_of_the_ledger(world: World) -> None:
    world.log("monday", [*rows(500), row(3, after(minutes=3)), row(500, after(hours=1), score=None)])
    world.run()
    found = status(world)
    assert (found.rows, found.slices, found.duplicates, dict(found.rejected)) == (
        500,
        1,
        1,
        {"null_prediction:score": 1},
    )
    (arthur,) = found.destinations
    assert (arthur.arrived, arthur.open, arthur.held, arthur.mark) == (500, 0, 0, world.mark())
    assert found.last_run_at is not None


def test_a_held_slice_says_why(world: World) -> None:
    world.log("monday", [row(n, after(minutes=n), score=None) for n in range(3)])
    world.run()
    (held,) = status(world).destinations[0].waiting
    assert held.state is DeliveryState.HELD
    assert "3 of 3 rows rejected" in held.reason


def test_a_slice_that_the_destination_refused_says_what_it_said(world: World) -> None:
    world.log("monday", rows(3))
    world.platform.process.fault(Fault("fail", kind="file", status=400))
    world.run()
    (held,) = status(world).destinations[0].waiting
    assert "400" in held.reason
