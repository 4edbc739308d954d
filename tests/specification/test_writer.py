"""Files that hold what was given, with counts, hours and hashes that are right."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidepost.model import MICROSECONDS_AN_HOUR
from tidepost.ports import CURSOR
from tidepost.rows.shape import BATCH, EVENT, HASH, HOUR, ID, TIMESTAMP
from tidepost.rows.writer import KEYS, MOST_OPEN_FILES, Draft, HashedFile, Writer, partition_path, staged_schema

DAY_HOURS = 24
FIRST = 476_000  # a whole number of hours since 1970, in 2024; not the first of its day


def batch(hours: Sequence[int], *, first: int = 0, batches: Sequence[str] | None = None) -> pa.RecordBatch:
    """One row an hour given: its id is its number, its cursor too."""
    events = [hour * MICROSECONDS_AN_HOUR + first + n for n, hour in enumerate(hours)]
    columns = {
        ID: pa.array([f"r{first + n}" for n in range(len(hours))], pa.string()),
        TIMESTAMP: pa.array(events, pa.timestamp("us", "UTC")),
        **({BATCH: list(batches)} if batches is not None else {}),
        "score": pa.array([n / 7 for n in range(len(hours))], pa.float64()),
        CURSOR: pa.array(range(first, first + len(hours)), pa.int64()),
        EVENT: pa.array(events, pa.int64()),
        HOUR: pa.array(hours, pa.int64()),
        HASH: pa.array([hash(f"r{first + n}") % 2**64 for n in range(len(hours))], pa.uint64()),
    }
    return pa.record_batch(columns)


def written(
    folder: Path, *of: pa.RecordBatch, partition: str = "day", rows: int = 1_000_000, size: int = 10**9
) -> tuple[Draft, ...]:
    names = [name for name in of[0].schema.names if name in (ID, TIMESTAMP, BATCH, "score")]
    with Writer(
        folder,
        staged_schema(of[0].schema, names),
        partition="day" if partition == "day" else "hour",
        rows=rows,
        size=size,
    ) as writer:
        for one in of:
            writer.add(one)
        return writer.finish()


def assert_true(drafts: Sequence[Draft], hours: Sequence[int]) -> None:
    """Everything that the parts claim is what the files hold, and together they hold the rows of `hours`."""
    seen: Counter[int] = Counter()
    ids: list[str] = []
    for draft in drafts:
        part, data = draft.part, draft.file.read_bytes()
        assert part.size == len(data)
        assert part.sha256 == hashlib.sha256(data).hexdigest()
        table = pq.read_table(draft.file)
        events = table.column(TIMESTAMP).cast(pa.int64()).to_pylist()
        counted = Counter(event // MICROSECONDS_AN_HOUR for event in events)
        assert part.rows == table.num_rows > 0
        assert part.hours == counted
        assert (part.event_min, part.event_max) == (min(events), max(events))
        seen += counted
        ids += table.column(ID).to_pylist()
    assert seen == Counter(hours)
    assert len(ids) == len(set(ids)) == len(hours)
    assert [draft.part.number for draft in drafts] == sorted({draft.part.number for draft in drafts})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    hours=st.lists(st.lists(st.integers(-50, 50), max_size=30), min_size=1, max_size=5),
    partition=st.sampled_from(["day", "hour"]),
    rows=st.integers(1, 40),
)
def test_whatever_is_given_is_written_once_and_counted_right(
    tmp_path_factory: pytest.TempPathFactory, hours: list[list[int]], partition: str, rows: int
) -> None:
    first, batches = 0, []
    for some in hours:
        batches.append(batch(some, first=first))
        first += len(some)
    drafts = written(tmp_path_factory.mktemp("drafts"), *batches, partition=partition, rows=rows)
    assert_true(drafts, [hour for some in hours for hour in some])
    assert all(draft.part.rows <= rows for draft in drafts)
    for draft in drafts:
        assert len({partition_path(hour, "hour" if partition == "hour" else "day") for hour in draft.part.hours}) == 1


def test_nothing_makes_no_files(tmp_path: Path) -> None:
    assert written(tmp_path, batch([])) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_file_lies_in_the_folder_of_its_day(tmp_path: Path) -> None:
    (draft,) = written(tmp_path, batch([FIRST]))
    assert draft.part.path == "data/event_day=2024-04-20/{sequence}-00000.parquet"


def test_a_file_lies_in_the_folder_of_its_hour(tmp_path: Path) -> None:
    drafts = written(tmp_path, batch([FIRST, FIRST + 1]), partition="hour")
    assert [draft.part.path for draft in drafts] == [
        "data/event_day=2024-04-20/event_hour=08/{sequence}-00000.parquet",
        "data/event_day=2024-04-20/event_hour=09/{sequence}-00001.parquet",
    ]


def test_a_file_ends_after_the_rows_it_may_hold(tmp_path: Path) -> None:
    drafts = written(tmp_path, batch([FIRST] * 25), rows=10)
    assert [draft.part.rows for draft in drafts] == [10, 10, 5]


def test_a_file_ends_after_the_row_group_that_made_it_large_enough(tmp_path: Path) -> None:
    many = [batch([FIRST] * 100_000, first=n * 100_000) for n in range(5)]
    drafts = written(tmp_path, *many, size=1_000_000)
    assert len(drafts) > 1
    assert all(draft.part.size > 1_000_000 for draft in drafts[:-1])
    assert_true(drafts, [FIRST] * 500_000)


def test_more_partitions_than_files_may_be_open_are_written(tmp_path: Path) -> None:
    hours = [FIRST + n * DAY_HOURS for n in range(3 * MOST_OPEN_FILES)] * 2
    assert_true(written(tmp_path, batch(hours)), hours)


def test_each_batch_id_has_files_of_its_own(tmp_path: Path) -> None:
    names = ["a", "b", "a", "ü/=", "b"]
    drafts = written(tmp_path, batch([FIRST] * 5, batches=names))
    assert [(draft.part.batch_id, draft.part.rows) for draft in drafts] == [("a", 2), ("b", 2), ("ü/=", 1)]
    for draft in drafts:
        assert set(pq.read_table(draft.file).column(BATCH).to_pylist()) == {draft.part.batch_id}


def test_the_order_of_rows_stays_within_a_file(tmp_path: Path) -> None:
    hours = [FIRST + n % 3 for n in range(1000)]
    (draft,) = written(tmp_path, *(batch(hours[at : at + 100], first=at) for at in range(0, 1000, 100)))
    assert pq.read_table(draft.file).column(ID).to_pylist() == [f"r{n}" for n in range(1000)]


def test_the_keys_say_where_each_row_was_put(tmp_path: Path) -> None:
    hours = [FIRST + n % 5 * DAY_HOURS for n in range(1000)]
    drafts = {draft.part.number: draft for draft in written(tmp_path, batch(hours), rows=70)}
    with pa.memory_map(str(tmp_path / KEYS)) as file:
        keys = pa.ipc.open_file(file).read_all().to_pylist()
    ids = {number: pq.read_table(draft.file).column(ID).to_pylist() for number, draft in drafts.items()}
    assert len(keys) == 1000
    assert all(ids[key["part"]][key["row"]] == f"r{key['cursor']}" for key in keys)


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (one,) = written(tmp_path / "one", batch([FIRST] * 100))
    (two,) = written(tmp_path / "two", batch([FIRST] * 100))
    assert one.part.sha256 == two.part.sha256


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "00000.parquet").write_bytes(b"somebody's")
    with pytest.raises(FileExistsError):
        written(tmp_path, batch([FIRST]))


def test_what_is_hashed_is_what_is_in_the_file(tmp_path: Path) -> None:
    file = HashedFile(tmp_path / "file")
    assert file.write(b"one ") == 4
    assert file.write(pa.py_buffer(b"two")) == 3
    file.close()
    assert (tmp_path / "file").read_bytes() == b"one two"
    assert (file.size, file.sha256) == (7, hashlib.sha256(b"one two").hexdigest())


GROWS = """
import sys
from pathlib import Path
import pyarrow as pa
sys.path.insert(0, sys.argv[1])
from tests.specification.test_writer import FIRST, batch
from tidepost.rows.shape import ID, TIMESTAMP
from tidepost.rows.writer import Writer, staged_schema
folder, batches = Path(sys.argv[2]), int(sys.argv[3])
one = batch([FIRST + n % 480 for n in range(50_000)])
schema = staged_schema(one.schema, [ID, TIMESTAMP, "score"])
with Writer(folder, schema, partition="day", rows=10**6, size=10**9) as w:
    for _ in range(batches):
        w.add(one)
    w.finish()
# Not getrusage: its peak is that of the process before exec too, so the tests' own would be measured.
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024)
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for batches in (10, 40):
        (tmp_path / str(batches)).mkdir()
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", GROWS, str(root), str(tmp_path / str(batches)), str(batches)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    few, many = peaks
    assert many < few + 60_000_000
