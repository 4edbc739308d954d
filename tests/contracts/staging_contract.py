"""What every staging keeps. A subclass says how one is made: `staging`, and `again`, the same one from elsewhere."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidepost.errors import Retryable, Vanished
from tidepost.model import Part, Stream, StreamName

STREAM = Stream(1, "flights", StreamName.INFERENCES)
OTHER = Stream(2, "trains", StreamName.INFERENCES)
Staged = Any
"""Something that is both `ports.Staging` and `ports.Records`."""


def part_of(file: Path, *, number: int = 0, sequence: int = 7, day: str = "2024-05-01") -> Part:
    """The part that a finished file is to become."""
    data = file.read_bytes()
    return Part(
        number=number,
        path=f"data/event_day={day}/{sequence:08d}-{number:05d}.parquet",
        rows=pq.read_metadata(file).num_rows,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        event_min=0,
        event_max=1,
        hours={0: 1},
    )


def finished(staging: Staged, *, cut: int = 1, fence: int = 1, number: int = 0, **columns: list[Any]) -> Part:
    """A part that is prepared and not yet visible."""
    folder = staging.scratch(STREAM, cut, fence) if number == 0 else scratch_of(staging, cut, fence)
    file = folder / f"{number:05d}.parquet"
    pq.write_table(pa.table(columns or {"partner_inference_id": [f"r{number}"], "score": [0.5]}), file)
    part: Part = staging.prepare(STREAM, part_of(file, number=number), file)
    return part


def scratch_of(staging: Staged, cut: int, fence: int) -> Path:
    """The scratch folder of a cut that has one."""
    (found,) = (path for path in staging.root.rglob(f"scratch/{cut:08d}-{fence}"))
    folder: Path = found
    return folder


def rows_of(staging: Staged, *parts: Part) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        relation = staging.relation(connection, STREAM, parts)
        return connection.execute(
            f"SELECT * FROM ({relation.sql}) ORDER BY _part, _row", dict(relation.values)
        ).fetchall()


class StagingContract:
    """The ports `Staging` and `Records`."""

    @pytest.fixture
    def staging(self) -> Staged:
        raise NotImplementedError

    @pytest.fixture
    def again(self, staging: Staged) -> Callable[[], Staged]:
        """The same staging, as another process or host sees it."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------------- parts

    def test_a_scratch_folder_is_empty(self, staging: Staged) -> None:
        assert list(staging.scratch(STREAM, 1, 1).iterdir()) == []

    def test_what_an_earlier_attempt_left_is_removed(self, staging: Staged) -> None:
        old = staging.scratch(STREAM, 1, 1)
        (old / "00000.parquet").write_bytes(b"half a file")
        staging.scratch(STREAM, 1, 2)
        assert not old.exists()

    def test_a_later_attempt_is_not_disturbed_by_one_that_slept(self, staging: Staged) -> None:
        new = staging.scratch(STREAM, 1, 3)
        staging.clear(STREAM, 1, 2)
        assert new.exists()

    def test_other_cuts_are_left_alone(self, staging: Staged) -> None:
        other = staging.scratch(STREAM, 11, 1)
        staging.scratch(STREAM, 1, 1)
        staging.clear(STREAM, 1, 1)
        assert other.exists()

    def test_clearing_where_there_is_nothing_is_harmless(self, staging: Staged) -> None:
        staging.clear(STREAM, 99, 1)

    def test_what_is_left_over_is_listed_by_cut(self, staging: Staged) -> None:
        assert list(staging.leftovers(STREAM)) == []
        for cut in (12, 3):
            staging.scratch(STREAM, cut, 1)
        staging.scratch(STREAM, 3, 2)
        assert list(staging.leftovers(STREAM)) == [3, 12]
        staging.clear(STREAM, 3)
        assert list(staging.leftovers(STREAM)) == [12]

    def test_what_was_prepared_elsewhere_is_listed_and_removed(
        self, staging: Staged, again: Callable[[], Staged]
    ) -> None:
        part = finished(staging)
        assert list(again().leftovers(STREAM)) == [1]
        again().clear(STREAM, 1, 1)
        assert again().get(f"{STREAM.prefix}/{part.path}") is None
        with pytest.raises(Vanished):
            again().reveal(STREAM, part)

    def test_preparing_again_takes_the_file_as_it_is_now(
        self, staging: Staged, again: Callable[[], Staged], tmp_path: Path
    ) -> None:
        folder = staging.scratch(STREAM, 1, 1)
        for name in ("first", "first", "second, after a repeat was found"):
            pq.write_table(pa.table({"partner_inference_id": [name]}), folder / "00000.parquet")
            part = staging.prepare(STREAM, part_of(folder / "00000.parquet"), folder / "00000.parquet")
        again().reveal(STREAM, part)
        assert rows_of(staging, part) == [("second, after a repeat was found", part.path, 0)]

    def test_a_key_is_told_as_people_find_it(self, staging: Staged) -> None:
        assert staging.where("flights/inferences/a.parquet").endswith("/flights/inferences/a.parquet")

    def test_a_part_can_be_read_in_any_order(self, staging: Staged) -> None:
        part = finished(staging, partner_inference_id=[f"r{n}" for n in range(50_000)])
        staging.reveal(STREAM, part)
        with staging.open(STREAM, part) as file:
            assert pq.ParquetFile(file).read().column(0)[49_999].as_py() == "r49999"
            file.seek(0)
            content = bytearray(part.size + 10)
            assert file.readinto(content) == part.size
            assert hashlib.sha256(content[: part.size]).hexdigest() == part.sha256
            file.seek(-4, 2)
            assert (file.read(), file.read(1), file.tell()) == (b"PAR1", b"", part.size)

    def test_a_prepared_part_is_not_visible(self, staging: Staged) -> None:
        part = finished(staging)
        with pytest.raises(Retryable):
            staging.open(STREAM, part)

    def test_a_revealed_part_is_there_whole(self, staging: Staged, again: Callable[[], Staged]) -> None:
        part = finished(staging)
        staging.reveal(STREAM, part)
        with again().open(STREAM, part) as file:
            assert hashlib.sha256(file.read()).hexdigest() == part.sha256

    def test_another_process_can_reveal_what_one_prepared(self, staging: Staged, again: Callable[[], Staged]) -> None:
        part = finished(staging)
        again().reveal(STREAM, part)
        with staging.open(STREAM, part) as file:
            assert len(file.read()) == part.size

    def test_revealing_again_is_harmless(self, staging: Staged) -> None:
        part = finished(staging)
        staging.reveal(STREAM, part)
        staging.reveal(STREAM, part)
        with staging.open(STREAM, part) as file:
            assert hashlib.sha256(file.read()).hexdigest() == part.sha256

    def test_two_processes_may_reveal_at_once(self, staging: Staged, again: Callable[[], Staged]) -> None:
        parts = [finished(staging, cut=cut) for cut in range(1, 9)]
        for cut, part in enumerate(parts):
            with ThreadPoolExecutor(4) as pool:
                target = Part(**{**vars_of(part), "path": part.path.replace("00000007", f"{cut:08d}")})
                for future in [pool.submit(again().reveal, STREAM, target) for _ in range(4)]:
                    future.result()
            with staging.open(STREAM, target) as file:
                assert len(file.read()) == part.size

    def test_a_part_whose_file_is_gone_has_vanished(self, staging: Staged) -> None:
        part = finished(staging)
        staging.clear(STREAM, 1, 1)
        with pytest.raises(Vanished, match="gone before it was made visible"):
            staging.reveal(STREAM, part)

    def test_clearing_up_leaves_what_is_visible(self, staging: Staged) -> None:
        part = finished(staging)
        staging.reveal(STREAM, part)
        staging.clear(STREAM, 1, 1)
        assert len(rows_of(staging, part)) == 1

    def test_a_withdrawn_part_is_gone_and_withdrawing_again_is_harmless(self, staging: Staged) -> None:
        part = finished(staging)
        staging.reveal(STREAM, part)
        staging.withdraw(STREAM, part)
        staging.withdraw(STREAM, part)
        with pytest.raises(Retryable):
            rows_of(staging, part)

    def test_rows_are_told_with_their_part_and_number(self, staging: Staged) -> None:
        one = finished(staging, partner_inference_id=["a", "b"])
        two = finished(staging, number=1, partner_inference_id=["c"])
        for part in (one, two):
            staging.reveal(STREAM, part)
        assert rows_of(staging, one, two) == [("a", one.path, 0), ("b", one.path, 1), ("c", two.path, 0)]
        assert rows_of(staging, two) == [("c", two.path, 0)]

    def test_the_folders_of_partitions_are_no_columns(self, staging: Staged) -> None:
        part = finished(staging, partner_inference_id=["a"])
        staging.reveal(STREAM, part)
        with duckdb.connect() as connection:
            relation = staging.relation(connection, STREAM, [part])
            described = connection.execute(f"DESCRIBE {relation.sql}", dict(relation.values)).fetchall()
        assert [one[0] for one in described] == ["partner_inference_id", "_part", "_row"]

    def test_a_part_that_should_be_there_and_is_not_is_never_taken_for_one_without_rows(
        self, staging: Staged
    ) -> None:
        part = finished(staging)
        with pytest.raises(Retryable, match="should be there and is not") as error:
            rows_of(staging, part)
        assert "never taken for a file without ids" in error.value.safe

    # -------------------------------------------------------------------------------------------------- records

    def test_a_record_is_read_as_it_was_written(self, staging: Staged, again: Callable[[], Staged]) -> None:
        assert staging.put("flights/inferences/_tidepost/head.json", b"one")
        assert again().get("flights/inferences/_tidepost/head.json") == b"one"

    def test_a_record_that_is_not_there_is_none(self, staging: Staged) -> None:
        assert staging.get("no/such/record") is None

    def test_a_record_is_replaced(self, staging: Staged) -> None:
        staging.put("a/b", b"one")
        staging.put("a/b", b"two")
        assert staging.get("a/b") == b"two"

    def test_a_record_that_must_be_new_never_replaces_another(self, staging: Staged) -> None:
        assert staging.put("a/b", b"one", absent=True)
        assert not staging.put("a/b", b"two", absent=True)
        assert staging.get("a/b") == b"one"

    def test_of_many_that_write_a_new_record_one_wins(self, staging: Staged, again: Callable[[], Staged]) -> None:
        for number in range(20):
            ready = threading.Barrier(8)

            def write(name: str, key: str = f"race/{number}", ready: threading.Barrier = ready) -> bool:
                other = again()
                ready.wait()
                won: bool = other.put(key, name.encode() * 1000, absent=True)
                return won

            with ThreadPoolExecutor(8) as pool:
                names = [f"writer {n}" for n in range(8)]
                won = list(pool.map(write, names))
            assert sum(won) == 1
            assert staging.get(f"race/{number}") == names[won.index(True)].encode() * 1000

    def test_a_record_is_never_seen_half_written(self, staging: Staged, again: Callable[[], Staged]) -> None:
        contents = [bytes([n]) * 200_000 for n in range(30)]
        done = threading.Event()
        seen: list[bytes | None] = []

        def read() -> None:
            reader = again()
            while not done.is_set():
                seen.append(reader.get("a/b"))

        thread = threading.Thread(target=read)
        thread.start()
        try:
            for content in contents:
                staging.put("a/b", content)
        finally:
            done.set()
            thread.join()
        assert set(seen) <= {None, *contents}

    def test_keys_below_a_prefix_are_listed_in_order(self, staging: Staged) -> None:
        for key in ("p/b/2", "p/a", "p/b/1", "q/c"):
            staging.put(key, b"")
        assert list(staging.list("p")) == ["p/a", "p/b/1", "p/b/2"]
        assert list(staging.list("none")) == []

    def test_removing_is_harmless_where_there_is_nothing(self, staging: Staged) -> None:
        staging.put("a/b", b"one")
        staging.remove("a/b")
        staging.remove("a/b")
        assert staging.get("a/b") is None

    def test_a_larger_record_appears_when_its_block_ends(self, staging: Staged) -> None:
        with staging.file("a/large") as path:
            path.write_bytes(b"x" * 1_000_000)
            assert staging.get("a/large") is None
            assert list(staging.list("a")) == []
        assert staging.get("a/large") == b"x" * 1_000_000

    def test_a_larger_record_that_failed_does_not_appear(self, staging: Staged) -> None:
        with pytest.raises(RuntimeError), staging.file("a/large") as path:  # noqa: PT012
            path.write_bytes(b"half")
            raise RuntimeError
        assert staging.get("a/large") is None
        assert list(staging.list("")) == []

    def test_streams_are_apart(self, staging: Staged) -> None:
        part = finished(staging)
        staging.clear(OTHER, 1, 1)
        staging.reveal(STREAM, part)
        with pytest.raises(Retryable):
            staging.open(OTHER, part)


def vars_of(part: Part) -> dict[str, Any]:
    return {name: getattr(part, name) for name in Part.__dataclass_fields__}
