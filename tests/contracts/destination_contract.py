"""What every destination must satisfy, on a real platform: `class TestX(DestinationContract)` with a fixture `world`.

A world is a platform that runs, with a registered model of its own for each test, and its faults.
"""

from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import IO, Any, Protocol

import pytest

from tidepost.errors import LeaseLost, Misconfigured, Refused, Retryable, TidepostError, Unknown
from tidepost.model import Proof, StreamName
from tidepost.ports import Destination, Upload, unguarded
from tidepost.ranges import Range

INFERENCES, LABELS = StreamName.INFERENCES, StreamName.GROUND_TRUTH
START = datetime(2013, 1, 3, 5, tzinfo=UTC)
HOUR = int(START.timestamp()) // 3600
HOUR_US = 3_600_000_000

LARGE = 500_000_000
_SEND_LARGE = """
import json, pathlib, sys
from tidepost.errors import Refused
from tidepost.model import StreamName
from tidepost.ports import Upload, unguarded

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024

{recipe}
path = pathlib.Path(sys.argv[1])
small = Upload("small.parquet", 1, 10, lambda: __import__("io").BytesIO(b"PAR1123456"), unguarded)
large = Upload("large.parquet", 1, path.stat().st_size, lambda: path.open("rb"), unguarded)
for upload in (small, large):
    try:
        destination.send(StreamName.INFERENCES, upload)
    except Refused:
        pass
    print(peak(), flush=True)
"""


class World(Protocol):
    """A platform and one model of it: inputs `distance` (INTEGER) and `carrier` (STRING), a prediction
    `probability` (FLOAT), a `note` (STRING) that may be absent, and a label `late` (BOOLEAN).

    key:    of the account
    waits:  what destinations from here waited between attempts; none of it was waited in truth
    recipe: Python source that makes `destination`, for a process of its own
    """

    key: str
    waits: list[float]

    @property
    def recipe(self) -> str: ...

    def destination(self, **options: Any) -> Destination:
        """A destination for the model; `key`, `model`, `url`, `retries` and `timeout` may be given."""

    def write(self, path: Path, rows: Sequence[Mapping[str, object]], stream: StreamName = INFERENCES) -> None:
        """A file of rows as they are staged."""

    def throttle(self, times: int, seconds: float) -> None:
        """Too many requests, for the next files."""

    def fail_after_accepting(self) -> None:
        """The next file is accepted, and answered with a server error."""

    def lose_reply(self) -> None:
        """The next file or rows are accepted, and the connection closes without an answer."""

    def reset_early(self) -> None:
        """The connection of the next file is reset long before its end."""

    def stored(self) -> int:
        """The rows that the platform says it holds for the model, once it has loaded everything."""


def inference(number: int, at: datetime | None = None, **changes: object) -> dict[str, object]:
    """A row of inferences; row n is n seconds after the start."""
    row: dict[str, object] = {
        "partner_inference_id": f"flight-{number:06}",
        "inference_timestamp": at or START + timedelta(seconds=number),
        "distance": number,
        "carrier": "AA",
        "probability": 0.25,
    }
    return row | changes


def label(number: int, *, late: object, hours: float = 1, **more: object) -> dict[str, object]:
    """The label of an inference, known some hours after the start."""
    known_at = START + timedelta(hours=hours)
    row = {"partner_inference_id": f"flight-{number:06}", "ground_truth_timestamp": known_at, "late": late}
    return row | more


class Files:
    """Uploads of files written for one test."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world = world
        self._folder = folder

    def upload(
        self,
        rows: Iterable[Mapping[str, object]],
        *,
        stream: StreamName = INFERENCES,
        guard: Callable[[], float] = unguarded,
        opened: list[IO[bytes]] | None = None,
    ) -> Upload:
        listed = list(rows)
        path = self._folder / f"{len(list(self._folder.iterdir())):08}-00000.parquet"
        self._world.write(path, listed, stream)

        def open_() -> IO[bytes]:
            file = path.open("rb")
            if opened is not None:
                opened.append(file)
            return file

        return Upload(f"data/event_day=2013-01-03/{path.name}", len(listed), path.stat().st_size, open_, guard)


def all_ids(destination: Destination, window: Range, stream: StreamName = INFERENCES) -> list[str]:
    return [one for batch in destination.ids(stream, window) for one in batch]


def all_labels(destination: Destination, window: Range) -> dict[str, tuple[datetime, object]]:
    """Ground-truth timestamp and value of `late`, by id."""
    rows = [row for table in destination.labels(window) for row in table.to_pylist()]
    found = {row["partner_inference_id"]: (row["ground_truth_timestamp"], row["late"]) for row in rows}
    assert len(found) == len(rows), "an id has one label"
    return found


DAY_US = Range(HOUR * HOUR_US, (HOUR + 24) * HOUR_US)


class ReceiptContract:
    """What holds of every destination, also of one that can be asked nothing. Inherit, and give a fixture `world`.

    looks:   how often it opens a part before it sends it
    growth, most: megabytes that a process may need for a large file beyond a small one, and in all
    wrong:   what it says of columns: a misspelt prediction, a decimal for an integer, and no time
    """

    looks = 0
    growth, most = 12, 64
    wrong: tuple[str, ...] = (
        "probabilty is not an attribute of the model; did you mean probability?",
        'distance is DECIMAL(18,3), which is no INTEGER; write CAST("distance" AS BIGINT)',
        "inference_timestamp is missing",
    )
    columns: Mapping[str, str] = {
        "partner_inference_id": "VARCHAR",
        "inference_timestamp": "TIMESTAMP WITH TIME ZONE",
        "distance": "INTEGER",
        "carrier": "VARCHAR",
        "probability": "DOUBLE",
    }

    @pytest.fixture
    def files(self, world: World, tmp_path: Path) -> Files:
        folder = tmp_path / "staged"
        folder.mkdir()
        return Files(world, folder)

    def questions(self, destination: Destination) -> list[Callable[[], object]]:
        """All that it may be asked."""
        return []

    def shown(self, destination: Destination, ids: Sequence[str]) -> bool:
        """Whether it shows these ids, if it shows any."""
        return True

    # -- sending files

    def test_a_file_arrives_whole(self, world: World, files: Files) -> None:
        destination = world.destination()
        receipt = destination.send(INFERENCES, files.upload(map(inference, range(5000))))
        assert (receipt.accepted, receipt.failed) == (5000, 0)
        assert world.stored() == 5000
        assert self.shown(destination, [f"flight-{number:06}" for number in range(5000)])

    def test_an_empty_note_and_text_of_any_script_arrive(self, world: World, files: Files) -> None:
        rows = [inference(1, note=None), inference(2, note="später — 遅い ✈"), inference(3, carrier='"A"\r\n--')]
        assert world.destination().send(INFERENCES, files.upload(rows)).accepted == 3
        assert world.stored() == 3

    def test_each_attempt_sends_the_whole_body_again(self, world: World, files: Files) -> None:
        opened: list[IO[bytes]] = []
        world.throttle(2, 3.0)
        upload = files.upload(map(inference, range(2000)), opened=opened)
        assert world.destination().send(INFERENCES, upload).accepted == 2000
        assert world.stored() == 2000
        assert len(opened) == 3 + self.looks
        assert all(file.closed for file in opened)
        assert [wait >= 3.0 for wait in world.waits] == [True, True]

    def test_a_reset_before_the_end_is_tried_again(self, world: World, files: Files) -> None:
        world.reset_early()
        noise = Random(1)
        # More than the buffers on the way hold, so that the end has not left when the reset comes.
        rows = [inference(number, note=noise.randbytes(600).hex()) for number in range(20_000)]
        assert world.destination().send(INFERENCES, files.upload(rows)).accepted == 20_000
        assert world.stored() == 20_000
        assert len(world.waits) == 1

    def test_too_many_requests_for_too_long_are_retryable(self, world: World, files: Files) -> None:
        world.throttle(9, 7.0)
        with pytest.raises(Retryable) as raised:
            world.destination(retries=2).send(INFERENCES, files.upload([inference(1)]))
        assert raised.value.retry_after == 7.0
        assert len(world.waits) == 2
        assert world.stored() == 0

    def test_a_guard_that_raises_keeps_the_last_bytes_back(self, world: World, files: Files) -> None:
        calls: list[None] = []

        def guard() -> float:
            calls.append(None)
            if len(calls) == 2:
                raise LeaseLost("another process took over")
            return unguarded()

        with pytest.raises(LeaseLost):
            world.destination().send(INFERENCES, files.upload(map(inference, range(1000)), guard=guard))
        assert len(calls) == 2
        assert world.stored() == 0

    def test_the_guard_is_asked_before_each_attempt_and_before_the_last_bytes(
        self, world: World, files: Files
    ) -> None:
        calls: list[None] = []
        world.throttle(1, 0.0)

        def guard() -> float:
            calls.append(None)
            return unguarded()

        upload = files.upload([inference(1)], guard=guard)
        world.destination().send(INFERENCES, upload)
        assert len(calls) == 4

    def test_a_lost_reply_is_unknown(self, world: World, files: Files) -> None:
        destination = world.destination()
        world.lose_reply()
        with pytest.raises(Unknown):
            destination.send(INFERENCES, files.upload(map(inference, range(300))))
        assert world.waits == []
        assert world.stored() == 300
        assert self.shown(destination, [f"flight-{number:06}" for number in range(300)])

    def test_a_server_error_after_the_file_is_unknown(self, world: World, files: Files) -> None:
        destination = world.destination()
        world.fail_after_accepting()
        with pytest.raises(Unknown):
            destination.send(INFERENCES, files.upload(map(inference, range(300))))
        assert world.waits == []
        assert world.stored() == 300
        assert self.shown(destination, [f"flight-{number:06}" for number in range(300)])

    def test_a_file_that_is_none_is_refused_and_the_next_one_goes(self, world: World, files: Files) -> None:
        destination = world.destination()
        with pytest.raises(Refused):
            destination.send(INFERENCES, Upload("a.parquet", 3, 8, lambda: io.BytesIO(b"PAR1none"), unguarded))
        assert destination.send(INFERENCES, files.upload([inference(1)])).accepted == 1
        assert world.stored() == 1

    def test_a_file_with_other_rows_than_it_says_is_not_believed(self, world: World, files: Files) -> None:
        upload = files.upload(map(inference, range(10)))
        lying = Upload(upload.name, 9, upload.size, upload.open, upload.guard)
        with pytest.raises((Unknown, Refused)):
            world.destination().send(INFERENCES, lying)

    def test_rows_that_failed_are_counted(self, world: World, files: Files) -> None:
        rows = [inference(1), inference(2, probability=None), inference(3)]
        receipt = world.destination().send(INFERENCES, files.upload(rows))
        assert (receipt.accepted, receipt.failed) == (2, 1)
        assert receipt.messages
        assert world.stored() == 2

    def test_memory_stays_flat_for_a_large_file(self, world: World, tmp_path: Path) -> None:
        large = tmp_path / "large.parquet"
        with large.open("wb") as file:
            file.truncate(LARGE)
        program = _SEND_LARGE.format(recipe=world.recipe)
        done = subprocess.run(
            [sys.executable, "-c", program, str(large)], capture_output=True, text=True, check=True, timeout=120
        )
        before, after = (int(line) for line in done.stdout.split())
        assert after - before < self.growth, "megabytes beyond what a small file needs"
        assert after < self.most, "megabytes in all, most of it the interpreter and its modules"

    # -- before anything is sent

    def test_columns_that_fit_pass(self, world: World) -> None:
        world.destination().check(INFERENCES, self.columns)
        world.destination().check(INFERENCES, {**self.columns, "note": "VARCHAR", "distance": "TINYINT"})

    def test_everything_wrong_with_columns_is_listed_at_once(self, world: World) -> None:
        columns = {**self.columns, "probabilty": "DOUBLE", "distance": "DECIMAL(18,3)"}
        del columns["probability"], columns["inference_timestamp"]
        with pytest.raises(Misconfigured) as raised:
            world.destination().check(INFERENCES, columns)
        text = str(raised.value)
        for part in self.wrong:
            assert part in text

    def test_a_wrong_key_is_misconfigured_and_never_shown(
        self, world: World, files: Files, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        destination = world.destination(key="wrong-and-still-secret")
        attempts: list[Callable[[], object]] = [
            lambda: destination.check(INFERENCES, self.columns),
            lambda: destination.send(INFERENCES, files.upload([inference(1)])),
            *self.questions(destination),
        ]
        for attempt in attempts:
            with pytest.raises(Misconfigured) as raised:
                attempt()
            assert "wrong-and-still-secret" not in repr(raised.value) + str(raised.value)
        assert "wrong-and-still-secret" not in caplog.text + repr(destination)

    def test_a_refused_connection_is_retryable(self, world: World, files: Files) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))  # and never listens
            destination = world.destination(url=f"http://127.0.0.1:{bound.getsockname()[1]}", retries=3)
            attempts: list[Callable[[], object]] = [
                lambda: destination.check(INFERENCES, self.columns),
                lambda: destination.send(INFERENCES, files.upload([inference(1)])),
                *self.questions(destination)[:1],
            ]
            for attempt in attempts:
                with pytest.raises(Retryable, match="refused"):
                    attempt()
        assert len(world.waits) == 3 * len(attempts)

    def test_every_error_of_a_destination_is_one_of_ours(self, world: World, files: Files) -> None:
        destination = world.destination(timeout=0.000001, retries=0)
        with pytest.raises(TidepostError):
            destination.send(INFERENCES, files.upload([inference(1)]))

    def test_it_says_what_it_can_show(self, world: World) -> None:
        destination = world.destination()
        assert destination.name
        assert destination.proof in Proof
        assert destination.loading >= 0


class DestinationContract(ReceiptContract):
    """What holds of a destination that shows rows. Inherit, and give a fixture `world`."""

    def questions(self, destination: Destination) -> list[Callable[[], object]]:
        return [
            lambda: destination.counts(INFERENCES, Range(HOUR, HOUR + 1)),
            lambda: list(destination.ids(INFERENCES, DAY_US)),
            lambda: list(destination.labels(DAY_US)),
            lambda: destination.send_rows(INFERENCES, [inference(1)]),
        ]

    def shown(self, destination: Destination, ids: Sequence[str]) -> bool:
        return all_ids(destination, DAY_US) == list(ids)

    def test_an_unknown_model_is_misconfigured(self, world: World, files: Files) -> None:
        destination = world.destination(model="nobody-registered-it")
        with pytest.raises(Misconfigured, match="nobody-registered-it"):
            destination.check(INFERENCES, self.columns)
        with pytest.raises(Misconfigured, match="nobody-registered-it"):
            destination.send(INFERENCES, files.upload([inference(1)]))

    # -- sending files

    def test_labels_arrive_by_file_and_by_rows(self, world: World, files: Files) -> None:
        destination = world.destination()
        destination.send(INFERENCES, files.upload(map(inference, range(4))))
        assert world.stored() == 4
        labels = [label(n, late=n > 1, hours=n) for n in range(4)]
        assert destination.send(LABELS, files.upload(labels[:2], stream=LABELS)).accepted == 2
        assert [answer.accepted for answer in destination.send_rows(LABELS, labels[2:])] == [True, True]
        world.stored()
        assert destination.counts(LABELS, Range(HOUR, HOUR + 24)) == {HOUR + n: 1 for n in range(4)}
        assert sorted(all_ids(destination, DAY_US, LABELS)) == [f"flight-{n:06}" for n in range(4)]
        assert all_labels(destination, DAY_US) == {
            f"flight-{n:06}": (START + timedelta(hours=n), n > 1) for n in range(4)
        }

    def test_labels_show_which_value_is_there(self, world: World, files: Files) -> None:
        destination = world.destination()
        destination.send(INFERENCES, files.upload(map(inference, range(3))))
        assert world.stored() == 3
        destination.send(LABELS, files.upload([label(n, late=False) for n in range(3)], stream=LABELS))
        world.stored()
        ids = sorted(all_ids(destination, DAY_US, LABELS))
        changed = [label(1, late=True), label(2, late=True, hours=5)]
        destination.send(LABELS, files.upload(changed[:1], stream=LABELS))
        assert [answer.accepted for answer in destination.send_rows(LABELS, changed[1:])] == [True]
        world.stored()
        assert sorted(all_ids(destination, DAY_US, LABELS)) == ids
        at, later = START + timedelta(hours=1), START + timedelta(hours=5)
        everything = {"flight-000000": (at, False), "flight-000001": (at, True), "flight-000002": (later, True)}
        assert all_labels(destination, DAY_US) == everything
        hours = [Range((HOUR + n) * HOUR_US, (HOUR + n + 1) * HOUR_US) for n in (1, 2, 5)]
        assert [sorted(all_labels(destination, hour)) for hour in hours] == [ids[:2], [], ids[2:]]
        assert destination.counts(LABELS, Range(HOUR, HOUR + 24)) == {HOUR + 1: 2, HOUR + 5: 1}

    def test_a_label_sent_again_changes_nothing(self, world: World, files: Files) -> None:
        destination = world.destination()
        destination.send(INFERENCES, files.upload(map(inference, range(2))))
        world.stored()
        labels = [label(n, late=True) for n in range(2)]
        for _ in range(2):
            assert destination.send(LABELS, files.upload(labels, stream=LABELS)).accepted == 2
            assert all(one.accepted or one.already_there for one in destination.send_rows(LABELS, labels))
        world.stored()
        assert sorted(all_ids(destination, DAY_US, LABELS)) == ["flight-000000", "flight-000001"]
        assert destination.counts(LABELS, Range(HOUR, HOUR + 24)) == {HOUR + 1: 2}

    def test_a_label_without_its_inference_is_refused_by_its_id(self, world: World, files: Files) -> None:
        destination = world.destination()
        destination.send(INFERENCES, files.upload([inference(1)]))
        world.stored()
        labels = [label(0, late=True), label(1, late=True), label(1, late=None)]
        answers = destination.send_rows(LABELS, labels)
        assert [answer.partner_inference_id for answer in answers] == [row["partner_inference_id"] for row in labels]
        assert [(one.accepted, one.already_there, one.no_inference) for one in answers] == [
            (False, False, True),
            (True, False, False),
            (False, False, False),
        ]
        assert "late" in answers[2].message
        receipt = destination.send(LABELS, files.upload(labels[:2], stream=LABELS))
        assert receipt.accepted + receipt.failed == 2
        world.stored()
        assert list(all_labels(destination, DAY_US)) == ["flight-000001"]

    def test_a_lost_reply_to_labels_is_unknown_and_their_values_tell(self, world: World, files: Files) -> None:
        destination = world.destination()
        destination.send(INFERENCES, files.upload(map(inference, range(2))))
        world.stored()
        world.lose_reply()
        with pytest.raises(Unknown):
            destination.send(LABELS, files.upload([label(0, late=True)], stream=LABELS))
        with pytest.raises(Unknown):
            destination.send_rows(LABELS, [label(1, late=False)])
        world.stored()
        at = START + timedelta(hours=1)
        assert all_labels(destination, DAY_US) == {"flight-000000": (at, True), "flight-000001": (at, False)}

    # -- sending rows

    def test_each_row_is_answered_in_order(self, world: World, files: Files) -> None:
        destination = world.destination()
        destination.send(INFERENCES, files.upload([inference(1)]))
        assert world.stored() == 1
        rows = [inference(0), inference(1), inference(2, probability=None), inference(3)]
        answers = destination.send_rows(INFERENCES, rows)
        assert [answer.partner_inference_id for answer in answers] == [row["partner_inference_id"] for row in rows]
        assert [answer.accepted for answer in answers] == [True, False, False, True]
        assert [answer.already_there for answer in answers] == [False, True, False, False]
        assert "probability" in answers[2].message
        assert world.stored() == 3

    def test_any_number_of_rows_may_be_given(self, world: World) -> None:
        destination = world.destination()
        assert list(destination.send_rows(INFERENCES, [])) == []
        answers = destination.send_rows(INFERENCES, [inference(number) for number in range(2500)])
        assert [answer.partner_inference_id for answer in answers] == [f"flight-{n:06}" for n in range(2500)]
        assert all(answer.accepted for answer in answers)
        assert world.stored() == 2500

    def test_a_row_that_cannot_be_written_down_is_refused_alone(self, world: World) -> None:
        rows = [
            inference(0),
            inference(1, probability=float("nan")),
            inference(2, at=datetime(2013, 1, 3, 5)),  # noqa: DTZ001 - a naive time is the point
            inference(3, carrier="\udcff"),
        ]
        answers = world.destination().send_rows(INFERENCES, rows)
        assert [answer.accepted for answer in answers] == [True, False, False, False]
        assert "probability" in answers[1].message
        assert "inference_timestamp" in answers[2].message
        assert world.stored() == 1

    def test_a_lost_reply_to_rows_is_unknown(self, world: World) -> None:
        destination = world.destination()
        world.lose_reply()
        with pytest.raises(Unknown):
            destination.send_rows(INFERENCES, [inference(number) for number in range(5)])
        assert world.stored() == 5
        assert len(all_ids(destination, DAY_US)) == 5

    # -- what arrived

    def test_rows_are_counted_by_hour(self, world: World, files: Files) -> None:
        destination = world.destination()
        rows = [
            inference(hour * 10 + n, START + timedelta(hours=hour, minutes=n)) for hour in range(3) for n in range(4)
        ]
        destination.send(INFERENCES, files.upload(rows))
        world.stored()
        assert destination.counts(INFERENCES, Range(HOUR, HOUR + 3)) == {HOUR: 4, HOUR + 1: 4, HOUR + 2: 4}
        assert destination.counts(INFERENCES, Range(HOUR + 1, HOUR + 2)) == {HOUR + 1: 4}
        assert destination.counts(INFERENCES, Range(HOUR - 9, HOUR)) == {}

    def test_no_event_falls_between_two_windows(self, world: World, files: Files) -> None:
        destination = world.destination()
        start = HOUR * HOUR_US
        rows = [inference(n, START + timedelta(microseconds=n * 250)) for n in range(40)]
        destination.send(INFERENCES, files.upload(rows))
        world.stored()
        for width, step in ((1, 2_250), (999, 999), (1000, 1000), (1500, 1500)):
            found: set[str] = set()
            for at in range(start, start + 10_000, step):
                expected = {f"flight-{n:06}" for n in range(40) if at <= start + n * 250 < at + width}
                inside = set(all_ids(destination, Range(at, at + width)))
                assert expected <= inside
                found |= inside
            assert len(found) == 40 or width == 1

    def test_a_window_without_rows_has_no_ids_and_no_labels(self, world: World) -> None:
        assert all_ids(world.destination(), DAY_US) == []
        assert all_labels(world.destination(), DAY_US) == {}


def as_source(options: Mapping[str, object]) -> str:
    """Options as a Python expression, for a recipe."""
    return f"json.loads({json.dumps(json.dumps(options))})"
