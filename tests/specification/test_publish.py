"""Publishing is one compare-and-set, and can be finished by anybody from wherever it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from tests.world import NOW, START, World, after, between, noting, rows

from tidepost.errors import HeldElsewhere, Misconfigured, Outdated
from tidepost.leases import Keeper
from tidepost.model import Cut, CutState, Lease, Request, ScanKind, Slice, Stream, StreamName
from tidepost.planning.prospect import plan_request
from tidepost.publishing.publish import Done, Publisher, head_key, manifest_key, move_head
from tidepost.publishing.stage import Stage, Staged
from tidepost.world import World as Wired


@dataclass
class Desk:
    """What staging and publishing need, as a run has it; nothing is delivered."""

    world: Wired
    stage: Stage
    publisher: Publisher
    keeper: Keeper

    def stream(self) -> Stream:
        return self.world.ledger.plans.stream(self.world.job.name, StreamName.INFERENCES, {})

    def planned(self, key: str = "all") -> Cut:
        """A cut over everything."""
        request = Request(key, ScanKind.BACKFILL, between(START, NOW))
        cuts, _ = plan_request(self.world, self.stream(), request)
        return cuts[0]

    def staged(self, cut: Cut) -> tuple[Lease, Staged]:
        lease = self.keeper.take("cut", cut.id)
        return lease, self.stage.stage(lease, self.stream(), cut)

    def begun(self, cut: Cut) -> Slice:
        """A slice that is half-way: its publisher is gone."""
        lease, staged = self.staged(cut)
        stream = self.stream()
        parts = tuple(self.world.staging.prepare(stream, draft.part, draft.file) for draft in staged.drafts)
        draft = Slice(0, cut.id, cut.kind, cut.range, parts, staged.tally)
        begun = self.world.ledger.slices.begin(lease, stream, draft, staged.version, staged.columns)
        self.keeper.release(lease)
        return begun

    def publish(self, cut: Cut, lease: Lease, staged: Staged) -> Done:
        try:
            return self.publisher.publish(self.stage, lease, self.stream(), cut, staged)
        finally:
            self.keeper.release(lease)


@contextmanager
def desk(world: World) -> Iterator[Desk]:
    with world.wired() as wired, Keeper(wired.ledger, wired.owner) as keeper:
        connection = wired.engine.connect()
        try:
            stage = Stage(wired.job, wired.source, wired.staging, wired.records, wired.ledger, connection)
            publisher = Publisher(wired.job, wired.staging, wired.records, wired.ledger, keeper, ["arthur"])
            yield Desk(wired, stage, publisher, keeper)
        finally:
            connection.close()


@pytest.fixture
def one(world: World) -> Iterator[Desk]:
    """A desk over a log of 20 rows."""
    world.log("monday", rows(20))
    with desk(world) as one:
        yield one


def test_a_published_slice_is_visible_recorded_and_to_be_delivered(one: Desk, world: World) -> None:
    cut = one.planned()
    done = one.publish(cut, *one.staged(cut))
    assert done.slice is not None
    assert [delivery.rows for delivery in done.deliveries] == [20]
    assert len(world.files()) == 1
    assert one.world.ledger.plans.cut(one.stream(), cut.id).state is CutState.DONE
    stored = one.world.records.get(manifest_key(one.stream(), 1))
    assert stored is not None
    assert json.loads(stored)["parts"][0]["sha256"] == done.slice.parts[0].sha256


def test_the_manifest_is_written_after_every_file_is_visible(one: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    staging, slices = one.world.staging, one.world.ledger.slices
    monkeypatch.setattr(staging, "put", noting(done, lambda key, data: key, one.world.records.put))
    monkeypatch.setattr(staging, "reveal", noting(done, lambda *args: "reveal", staging.reveal))
    monkeypatch.setattr(slices, "finish", noting(done, lambda *args: "finish", slices.finish))
    cut = one.planned()
    one.publish(cut, *one.staged(cut))
    stream = one.stream()
    assert done == [head_key(stream), "reveal", manifest_key(stream, 1), "finish"]


def test_rows_that_another_published_meanwhile_are_looked_up_again(one: Desk, world: World) -> None:
    first, second = one.planned("first"), one.planned("second")
    lease, staged = one.staged(second)
    assert staged.tally.published == 20
    one.publish(first, *one.staged(first))
    done = one.publish(second, lease, staged)
    assert (done.slice, done.tally.known, done.tally.published) == (None, 20, 0)
    assert sum(1 for _ in world.files()) == 1


def test_only_what_another_did_not_publish_goes(one: Desk, world: World) -> None:
    first = one.planned("first")
    lease_of_first, staged_first = one.staged(first)
    world.log("tuesday", rows(30, first=10, at=after(minutes=10)))
    with desk(world) as other:
        second = other.planned("second")
        done = other.publish(second, *other.staged(second))
        assert (done.tally.published, done.tally.duplicates) == (40, 10)
    mine = one.publish(first, lease_of_first, staged_first)
    assert (mine.slice, mine.tally.known) == (None, 20)


def test_the_ledger_refuses_what_was_looked_up_too_early(one: Desk) -> None:
    first, second = one.planned("first"), one.planned("second")
    lease, staged = one.staged(second)
    one.publish(first, *one.staged(first))
    draft = Slice(0, second.id, second.kind, second.range, (), staged.tally)
    with pytest.raises((Outdated, ValueError)):
        one.world.ledger.slices.begin(lease, one.stream(), draft, staged.version, staged.columns)


def test_a_slice_whose_publisher_died_is_finished_by_whoever_finds_it(one: Desk, world: World) -> None:
    cut = one.planned()
    begun = one.begun(cut)
    assert world.files() == []
    one.publisher.recover(one.stream())
    assert len(world.files()) == 1
    assert one.world.ledger.slices.publishing(one.stream()) is None
    assert one.stream().published == begun.sequence


@pytest.mark.parametrize("visible", [0, 1])
def test_it_is_finished_however_far_it_had_come(world: World, visible: int) -> None:
    world.define(staging={"file_rows": 10})
    world.log("monday", rows(20))
    with desk(world) as one:
        begun = one.begun(one.planned())
        for part in begun.parts[:visible]:
            one.world.staging.reveal(one.stream(), part)
        one.publisher.recover(one.stream())
        assert len(world.files()) == 2
    world.run()
    assert world.everything_arrived_once(20)


def test_a_slice_whose_files_are_gone_is_given_up_and_its_cut_staged_again(world: World) -> None:
    world.define(staging={"file_rows": 10})
    world.log("monday", rows(20))
    with desk(world) as one:
        cut = one.planned()
        begun = one.begun(cut)
        one.world.staging.reveal(one.stream(), begun.parts[0])
        one.world.staging.clear(one.stream(), cut.id)
        one.publisher.recover(one.stream())
        assert world.files() == []
        assert one.world.ledger.plans.cut(one.stream(), cut.id).state is CutState.PLANNED
    world.run()
    assert world.everything_arrived_once(20)


def test_a_slice_whose_publisher_lives_is_left_to_it(one: Desk) -> None:
    begun = one.begun(one.planned())
    with Keeper(one.world.ledger, "somebody else") as other:
        other.take("cut", begun.cut)
        with pytest.raises(HeldElsewhere):
            one.publisher.recover(one.stream())


def test_a_cut_that_waits_for_another_publisher_finishes_it_where_it_died(one: Desk, world: World) -> None:
    first, second = one.planned("first"), one.planned("second")
    lease, staged = one.staged(second)
    one.begun(first)
    done = one.publish(second, lease, staged)
    assert (done.slice, done.tally.known) == (None, 20)
    assert [delivery.sequence for delivery in done.deliveries] == [1], "they are this run's to see through"
    assert len(world.files()) == 1


def test_a_cut_without_new_rows_is_done_without_a_slice(one: Desk) -> None:
    first, second = one.planned("first"), one.planned("second")
    one.publish(first, *one.staged(first))
    done = one.publish(second, *one.staged(second))
    assert (done.slice, done.deliveries) == (None, ())
    assert one.world.ledger.plans.cut(one.stream(), second.id).state is CutState.DONE


def test_nothing_is_left_in_scratch_folders(one: Desk) -> None:
    cut = one.planned()
    one.publish(cut, *one.staged(cut))
    assert list(one.world.staging.leftovers(one.stream())) == []


def test_a_staging_of_another_ledger_is_not_written_to(one: Desk) -> None:
    one.world.records.put(head_key(one.stream()), json.dumps({"ledger": "another", "newest": 0}).encode())
    with pytest.raises(Misconfigured, match="written by another ledger") as error:
        one.publisher.agree(one.stream())
    assert "Nothing was sent" in error.value.safe


def test_a_slice_that_the_ledger_does_not_know_stops_the_job(one: Desk) -> None:
    head = {"ledger": one.world.ledger.id, "newest": 9}
    one.world.records.put(head_key(one.stream()), json.dumps(head).encode())
    with pytest.raises(Misconfigured, match="holds slice 9, and the ledger knows none after 0"):
        one.publisher.agree(one.stream())


def test_a_head_that_is_written_late_does_not_go_back(world: World) -> None:
    head_of = world.staging.root / "flights" / "inferences" / "_tidepost" / "head.json"
    for day in range(2):
        world.log(f"day-{day}", rows(10, first=10 * day, at=after(hours=day)))
        world.run()
    with world.wired() as wired:
        # Whoever published the first slice slept before it wrote, and wakes now.
        move_head(wired.ledger, wired.records, world.stream(), 1)
    assert json.loads(head_of.read_text())["newest"] == 2


def test_a_head_whose_late_writer_died_is_moved_by_the_next_run(world: World) -> None:
    head_of = world.staging.root / "flights" / "inferences" / "_tidepost" / "head.json"
    for day in range(2):
        world.log(f"day-{day}", rows(10, first=10 * day, at=after(hours=day)))
        world.run()
    head_of.write_text(head_of.read_text().replace('"newest": 2', '"newest": 1'))
    world.run()
    assert json.loads(head_of.read_text())["newest"] == 2


def test_a_new_staging_agrees(one: Desk) -> None:
    one.publisher.agree(one.stream())
