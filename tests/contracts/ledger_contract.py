"""What every ledger keeps, whatever database it is on. A subclass says where new ledgers are: `new_url`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tidepost.errors import HeldElsewhere, LeaseLost, Misconfigured, Outdated
from tidepost.ledger import open_ledger
from tidepost.ledger.comparing import SliceAt, SqlComparing
from tidepost.ledger.owner import gone, this_process
from tidepost.ledger.purging import SqlPurging
from tidepost.ledger.restore import SqlRestore
from tidepost.ledger.sql import SqlLedger
from tidepost.ledger.summary import AuditEntry
from tidepost.model import (
    MICROSECONDS_AN_HOUR,
    Cut,
    CutState,
    Delivery,
    DeliveryState,
    Lease,
    Part,
    Pause,
    Proof,
    Request,
    ScanKind,
    SendForm,
    SendState,
    Slice,
    Stream,
    StreamName,
    Tally,
)
from tidepost.ports import Deliveries, Leases, Plans, Reports, Slices
from tidepost.ranges import Range, Ranges

HOUR = MICROSECONDS_AN_HOUR
INCREMENTAL, LOOKBACK, BACKFILL = ScanKind.INCREMENTAL, ScanKind.LOOKBACK, ScanKind.BACKFILL
COLUMNS = {"partner_inference_id": "VARCHAR", "score": "DOUBLE"}
IDENTITY = {"cursor": "visible_at", "destination arthur": "org/model"}


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


NewUrl = Callable[[], str]


# ------------------------------------------------------------------------------------------------- shorthands


def stream_of(ledger: SqlLedger, job: str = "flights") -> Stream:
    return ledger.plans.stream(job, StreamName.INFERENCES, {})


def cut(start: int, end: int, kind: ScanKind = INCREMENTAL, lane: str = "") -> Cut:
    return Cut(0, kind, Range(start, end), lane, estimated=end - start)


def plan(ledger: SqlLedger, *cuts: Cut, key: str | None = None) -> tuple[Cut, ...]:
    stream = stream_of(ledger)
    kind = cuts[0].kind if cuts else INCREMENTAL
    request = Request(key or f"request {stream.planned}", kind, None)
    return ledger.plans.write(stream, request, cuts, stream.planned)


def part(number: int, hours: dict[int, int]) -> Part:
    rows = sum(hours.values())
    return Part(
        number,
        f"data/event_day=2013-01-03/{{sequence}}-{number:05d}.parquet",
        rows,
        size=100 * rows,
        sha256=f"sha of {number}",
        event_min=min(hours) * HOUR,
        event_max=max(hours) * HOUR + 5,
        hours=hours,
        token=f"scratch/{number}",
    )


def draft(of: Cut, *parts: Part, held: str | None = None, joined: tuple[int, ...] = (), **tally: Any) -> Slice:
    rows = sum(one.rows for one in parts)
    rejected = tally.get("rejected", {})
    dropped = sum(tally.get(name, 0) for name in ("duplicates", "known", "superseded", "waiting"))
    counted = Tally(rows + dropped + sum(rejected.values()), rows, **tally)
    return Slice(0, of.id, of.kind, of.range, parts, counted, of.lane, held, joined)


def seen(rows: int) -> Tally:
    """What a scan saw that found `rows` rows, all of them known."""
    return Tally(scanned=rows, known=rows, ids=f"sum {rows}")


def lease_cut(ledger: SqlLedger, of: Cut, owner: str = "worker") -> Lease:
    return ledger.leases.take("cut", of.id, owner, 60)


def begin(ledger: SqlLedger, of: Cut, *parts: Part, **more: Any) -> Slice:
    stream, lease = stream_of(ledger), lease_cut(ledger, of)
    try:
        return ledger.slices.begin(lease, stream, draft(of, *parts, **more), stream.published, COLUMNS)
    finally:
        ledger.leases.release(lease)


def publish(ledger: SqlLedger, of: Cut, *parts: Part, to: Sequence[str] = ("arthur",), **more: Any) -> Delivery:
    """Publish a slice of a cut and return its first delivery."""
    begun = begin(ledger, of, *(parts or (part(0, {7: 3}),)), **more)
    return ledger.slices.finish(stream_of(ledger), begun, to)[0]


def lease_delivery(ledger: SqlLedger, of: Delivery, owner: str = "worker") -> Lease:
    return ledger.leases.take("delivery", of.id, owner, 60)


def move(ledger: SqlLedger, of: Delivery, *states: DeliveryState, **settled: Any) -> Delivery:
    lease = lease_delivery(ledger, of)
    try:
        for state in states:
            if state is DeliveryState.SENDING:
                ledger.deliveries.intend(lease, of, 0, SendForm.FILE, of.rows)
            else:
                of = ledger.deliveries.settle(lease, of, state, **settled)
    finally:
        ledger.leases.release(lease)
    return of


def together(*calls: Callable[[], object]) -> list[Any]:
    """What threads that start at the same time get: a value or an error each."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        gate.wait()
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


PRELUDE = """
import json, os, signal, sys
from tidepost.errors import *
from tidepost.ledger import open_ledger
from tidepost.ledger.owner import this_process
from tidepost.model import *
from tidepost.ranges import Range
url = sys.argv[1]
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def ready():
    print("ready", flush=True)
    sys.stdin.readline()
def answer(value):
    print(json.dumps(value), flush=True)
"""


@contextmanager
def process(script: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process of its own at work on a ledger; gone when the block ends."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + dedent(script), url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def processes_together(script: str, url: str, number: int) -> list[Any]:
    """What processes answer that wait in `ready()` for one another and then go on at the same time."""
    with ExitStack() as stack:
        running = [stack.enter_context(process(script, url)) for _ in range(number)]
        for one in running:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in running:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        return [json.loads(one.communicate(timeout=60)[0]) for one in running]


class LedgerContract:
    """The contract. Override `new_url`; the rest follows from it."""

    @pytest.fixture
    def new_url(self) -> NewUrl:
        """Gives the URL of a ledger that does not exist yet, each time another one's."""
        raise NotImplementedError

    @pytest.fixture
    def url(self, new_url: NewUrl) -> str:
        return new_url()

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def ledger(self, url: str, clock: Clock) -> Iterator[SqlLedger]:
        with open_ledger(url, clock=clock) as ledger:
            ledger.plans.stream("flights", StreamName.INFERENCES, IDENTITY)
            yield ledger

    @pytest.fixture
    def another_connection_to_the_same_ledger(self, url: str, clock: Clock, ledger: SqlLedger) -> Iterator[SqlLedger]:
        with open_ledger(url, clock=clock) as other:
            yield other

    # -------------------------------------------------------------------------------------------- the ledger

    def test_every_port_is_there(self, ledger: SqlLedger) -> None:
        ports: tuple[Plans, Leases, Slices, Deliveries, Reports] = (
            ledger.plans,
            ledger.leases,
            ledger.slices,
            ledger.deliveries,
            ledger.reports,
        )
        assert len(ports) == 5

    def test_its_id_is_drawn_once(self, ledger: SqlLedger, url: str, new_url: NewUrl) -> None:
        with open_ledger(url) as again, open_ledger(new_url()) as different:
            assert again.id == ledger.id
            assert different.id != ledger.id

    def test_processes_that_open_a_new_ledger_at_once_all_get_the_same_one(self, url: str) -> None:
        script = """
        ready()
        with open_ledger(url) as ledger:
            answer([ledger.id, ledger.plans.stream("flights", StreamName.INFERENCES, {"cursor": "at"}).id])
        """
        answers = processes_together(script, url, 4)
        assert answers == [answers[0]] * 4

    def test_threads_that_open_a_new_ledger_at_once_all_get_the_same_one(self, url: str) -> None:
        def opened() -> str:
            with open_ledger(url) as ledger:
                return ledger.id

        answers = together(*[opened] * 4)
        assert answers == [answers[0]] * 4
        assert isinstance(answers[0], str)

    def test_threads_that_open_different_ledgers_at_once_do_not_disturb_each_other(self, new_url: NewUrl) -> None:
        def opened() -> int:
            with open_ledger(new_url()) as ledger:
                return stream_of(ledger).id

        assert together(*[opened] * 4) == [1] * 4

    # --------------------------------------------------------------------------------------------- streams

    def test_a_stream_is_registered_at_first_sight(self, ledger: SqlLedger) -> None:
        first = ledger.plans.stream("trains", StreamName.INFERENCES, {"cursor": "at"})
        assert ledger.plans.stream("trains", StreamName.INFERENCES, {"cursor": "at"}) == first
        assert (first.published, first.planned, first.pinned) == (0, 0, {})

    def test_a_jobs_two_flows_are_two_streams(self, ledger: SqlLedger) -> None:
        labels = ledger.plans.stream("flights", StreamName.GROUND_TRUTH, {})
        assert labels.id != stream_of(ledger).id

    def test_looking_for_a_stream_does_not_register_it(self, ledger: SqlLedger) -> None:
        assert ledger.plans.find("trains", StreamName.INFERENCES) is None
        assert ledger.reports.summary("trains") == ()
        assert ledger.plans.find("flights", StreamName.INFERENCES) == stream_of(ledger)

    @pytest.mark.parametrize("entry", list(IDENTITY))
    def test_a_changed_identity_is_refused_by_name_with_old_and_new(self, ledger: SqlLedger, entry: str) -> None:
        with pytest.raises(Misconfigured) as refused:
            ledger.plans.stream("flights", StreamName.INFERENCES, {**IDENTITY, entry: "changed"})
        assert f"{entry} of flights/inferences was {IDENTITY[entry]!r} and is now 'changed'" in str(refused.value)
        assert f"Put {entry} back to {IDENTITY[entry]!r}" in refused.value.hint

    def test_a_refused_identity_leaves_the_old_one(self, ledger: SqlLedger) -> None:
        with pytest.raises(Misconfigured):
            ledger.plans.stream("flights", StreamName.INFERENCES, {"new entry": "1", "cursor": "changed"})
        ledger.plans.stream("flights", StreamName.INFERENCES, {**IDENTITY, "new entry": "2"})

    def test_a_new_entry_of_an_identity_is_added_and_then_binds(self, ledger: SqlLedger) -> None:
        ledger.plans.stream("flights", StreamName.INFERENCES, {"destination arize": "space/model"})
        with pytest.raises(Misconfigured):
            ledger.plans.stream("flights", StreamName.INFERENCES, {"destination arize": "another"})

    def test_of_two_identities_at_once_one_is_refused(
        self, ledger: SqlLedger, another_connection_to_the_same_ledger: SqlLedger
    ) -> None:
        answers = together(
            lambda: ledger.plans.stream("trains", StreamName.INFERENCES, {"cursor": "a"}),
            lambda: another_connection_to_the_same_ledger.plans.stream(
                "trains", StreamName.INFERENCES, {"cursor": "b"}
            ),
        )
        assert sorted(type(one).__name__ for one in answers) == ["Misconfigured", "Stream"]

    # ------------------------------------------------------------------------------------------------ plans

    def test_a_plan_returns_its_cuts_in_order_with_their_ids(self, ledger: SqlLedger) -> None:
        asked = [cut(20, 30), cut(0, 10, lane="topic/1"), cut(-5, 0)]
        written = plan(ledger, *asked)
        assert [replace(one, id=0) for one in written] == asked
        assert len({one.id for one in written} - {0}) == 3

    def test_positions_of_39_digits_come_back_exactly(self, ledger: SqlLedger) -> None:
        huge = replace(cut(-(10**39) + 1, 10**39 - 1), estimated=None)
        (written,) = plan(ledger, huge)
        assert written.range == huge.range
        assert ledger.plans.coverage(stream_of(ledger)).planned == {"": Ranges((huge.range,))}

    def test_a_written_cut_is_promised_until_it_is_done(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        assert ledger.plans.coverage(stream_of(ledger)).planned == {"": Ranges((Range(0, 10),))}
        publish(ledger, one)
        coverage = ledger.plans.coverage(stream_of(ledger))
        assert (coverage.scanned, coverage.planned) == ({"": Ranges((Range(0, 10),))}, {})

    def test_what_is_left_is_open_and_of_a_request_that_nobody_worked_on_for_long(
        self, ledger: SqlLedger, clock: Clock
    ) -> None:
        first = plan(ledger, cut(0, 10), cut(10, 20))
        clock.now += 50
        second = plan(ledger, cut(20, 30))
        stream = stream_of(ledger)
        assert ledger.plans.left(stream, 51) == ()
        assert ledger.plans.left(stream, 50) == first
        publish(ledger, first[0])
        assert ledger.plans.left(stream, 50) == (), "one of its cuts was done just now"
        clock.now += 60
        assert ledger.plans.left(stream, 50) == (first[1], *second)

    def test_tallies_and_deliveries_are_those_of_the_cuts_that_were_asked_about(self, ledger: SqlLedger) -> None:
        first, second, third = plan(ledger, cut(0, 10), cut(10, 20), cut(20, 30))
        stream = stream_of(ledger)
        one = publish(ledger, first, to=("arthur", "arize"), duplicates=2, rejected={"bad": 1})
        other = publish(ledger, second)
        assert [each.destination for each in ledger.deliveries.of(stream, [first.id])] == ["arthur", "arize"]
        assert ledger.deliveries.of(stream, [first.id, second.id, third.id])[0] == one
        assert ledger.deliveries.of(stream, [second.id, third.id]) == (other,)
        assert ledger.deliveries.of(stream, []) == ()
        assert ledger.plans.tallies(stream, [first.id, third.id]) == {
            first.id: Tally(6, 3, duplicates=2, rejected={"bad": 1})
        }

    def test_since_when_a_delivery_is_unknown_stays_until_it_changes(self, ledger: SqlLedger, clock: Clock) -> None:
        (one,) = plan(ledger, cut(0, 10))
        delivery = publish(ledger, one)
        assert delivery.unknown is None
        delivery = move(ledger, delivery, DeliveryState.SENDING, DeliveryState.UNKNOWN)
        clock.now += 100
        assert ledger.deliveries.current(delivery).unknown == clock.now - 100
        assert move(ledger, delivery, DeliveryState.SENT).unknown is None

    def test_a_cut_that_is_done_leaves_a_bucket_in_place_of_those_it_meets(self, ledger: SqlLedger) -> None:
        ends = [(-10, 0), (0, 10), (10, 20), (20, 30)]
        for number, one in enumerate(plan(ledger, *[cut(*between) for between in ends])):
            ledger.slices.empty(lease_cut(ledger, one), stream_of(ledger), one, seen(number))
        whole = Range(-(10**38), 10**38)
        assert [(one.range, one.rows, one.ids) for one in ledger.plans.buckets(stream_of(ledger), whole)] == [
            (Range(*between), number, f"sum {number}") for number, between in enumerate(ends)
        ]
        (again,) = plan(ledger, replace(cut(5, 20), kind=ScanKind.BACKFILL))
        publish(ledger, again, ids="sum of all")
        left = ledger.plans.buckets(stream_of(ledger), whole)
        assert [one.range for one in left] == [Range(-10, 0), Range(5, 20), Range(20, 30)]
        assert left[1].ids == "sum of all"

    @pytest.mark.parametrize(
        ("window", "met"), [((0, 1), [0]), ((9, 11), [0, 10]), ((19, 25), [10]), ((20, 30), []), ((30, 99), [30])]
    )
    def test_a_window_meets_the_buckets_that_reach_into_it(
        self, ledger: SqlLedger, window: tuple[int, int], met: list[int]
    ) -> None:
        for one in plan(ledger, cut(0, 10), cut(10, 20), cut(30, 40)):
            ledger.slices.empty(lease_cut(ledger, one), stream_of(ledger), one, seen(0))
        found = ledger.plans.buckets(stream_of(ledger), Range(*window))
        assert [one.range.start for one in found] == met

    def test_cuts_that_set_rows_aside_are_found_by_their_ranges(self, ledger: SqlLedger) -> None:
        one, two, three = plan(ledger, cut(0, 10), cut(10, 20), cut(20, 30))
        for of in (one, three):
            publish(ledger, of, rejected={"no id": 2})
        publish(ledger, two)
        assert ledger.plans.rejected(stream_of(ledger), Range(9, 20)) == (one.id,)
        assert ledger.plans.rejected(stream_of(ledger), Range(9, 21)) == (one.id, three.id)

    def test_a_position_is_first_seen_when_one_as_great_was(self, ledger: SqlLedger) -> None:
        stream = stream_of(ledger)
        for at, highest in ((100.0, -5), (200.0, 7), (300.0, 10**20)):
            ledger.reports.seen(stream, at, highest)
        asked = (-6, -5, -4, 7, 8, 10**20, 10**20 + 1)
        answers = [ledger.reports.first_seen(stream, position) for position in asked]
        assert answers == [100.0, 100.0, 200.0, 200.0, 300.0, 300.0, None]

    def test_coverage_is_kept_by_lane(self, ledger: SqlLedger) -> None:
        plan(ledger, cut(0, 10, lane="t/0"), cut(0, 5, lane="t/1"), cut(5, 7, lane="t/1"))
        planned = ledger.plans.coverage(stream_of(ledger)).planned
        assert planned == {"t/0": Ranges((Range(0, 10),)), "t/1": Ranges((Range(0, 7),))}

    def test_a_plan_on_coverage_that_is_outdated_is_refused(self, ledger: SqlLedger) -> None:
        stream = stream_of(ledger)
        plan(ledger, cut(0, 10))
        with pytest.raises(Outdated):
            ledger.plans.write(stream, Request("late", INCREMENTAL), [cut(0, 10)], stream.planned)
        assert ledger.plans.asked(stream, "late") is None

    def test_a_request_that_is_asked_again_gets_the_same_cuts(self, ledger: SqlLedger) -> None:
        stream = stream_of(ledger)
        first = ledger.plans.write(stream, Request("run 1", BACKFILL, Range(0, 20)), [cut(0, 10), cut(10, 20)], 0)
        again = ledger.plans.write(stream, Request("run 1", BACKFILL, Range(0, 20)), [cut(0, 20)], 0)
        assert again == first == ledger.plans.asked(stream, "run 1")

    def test_a_request_for_nothing_is_remembered(self, ledger: SqlLedger) -> None:
        assert plan(ledger, key="empty") == ()
        assert ledger.plans.asked(stream_of(ledger), "empty") == ()
        assert ledger.plans.asked(stream_of(ledger), "never asked") is None

    def test_a_request_that_is_asked_again_shows_what_became_of_its_cuts(self, ledger: SqlLedger) -> None:
        one, two = plan(ledger, cut(0, 10), cut(10, 20), key="run 1")
        publish(ledger, one)
        asked = ledger.plans.asked(stream_of(ledger), "run 1")
        assert asked == (replace(one, state=CutState.DONE), two)
        assert ledger.plans.cut(stream_of(ledger), one.id).state is CutState.DONE

    def test_the_same_key_of_another_stream_is_another_request(self, ledger: SqlLedger) -> None:
        plan(ledger, cut(0, 10), key="run 1")
        other = ledger.plans.stream("trains", StreamName.INFERENCES, {})
        assert ledger.plans.asked(other, "run 1") is None
        with pytest.raises(Misconfigured):
            ledger.plans.cut(other, 1)

    def test_of_plans_written_at_once_one_holds(
        self, ledger: SqlLedger, another_connection_to_the_same_ledger: SqlLedger
    ) -> None:
        stream = stream_of(ledger)
        for version in range(5):
            asked = [cut(version, version + 1)]
            requests = [Request(f"{version}.{number}", INCREMENTAL) for number in range(4)]
            answers = together(
                *[
                    partial(to.plans.write, stream, request, asked, version)
                    for to, request in zip((ledger, another_connection_to_the_same_ledger) * 2, requests, strict=True)
                ]
            )
            assert sorted(type(one).__name__ for one in answers) == ["Outdated"] * 3 + ["tuple"]
        assert stream_of(ledger).planned == len(ledger.plans.open_cuts(stream)) == 5

    def test_processes_that_plan_the_same_request_at_once_get_the_same_cuts(
        self, ledger: SqlLedger, url: str
    ) -> None:
        script = """
        with open_ledger(url) as ledger:
            stream = ledger.plans.stream("flights", StreamName.INFERENCES, {})
            ready()
            mine = Cut(0, ScanKind.INCREMENTAL, Range(0, 10 + os.getpid()))
            cuts = ledger.plans.write(stream, Request("run 1", ScanKind.INCREMENTAL), [mine], stream.planned)
            answer([[cut.id, cut.range.end] for cut in cuts])
        """
        answers = processes_together(script, url, 3)
        assert answers == [answers[0]] * 3
        assert len(ledger.plans.open_cuts(stream_of(ledger))) == 1

    # ----------------------------------------------------------------------------------------------- leases

    def test_a_lease_that_is_held_names_its_holder_and_its_end(self, ledger: SqlLedger) -> None:
        ledger.leases.take("cut", 1, "somebody", 60)
        with pytest.raises(HeldElsewhere, match=r"cut 1 is held by somebody .*until 1970-01-12T13:47:40Z"):
            ledger.leases.take("cut", 1, "another", 60)

    def test_the_same_owner_may_not_take_a_live_lease_twice(self, ledger: SqlLedger) -> None:
        ledger.leases.take("cut", 1, this_process(), 60)
        with pytest.raises(HeldElsewhere):
            ledger.leases.take("cut", 1, this_process(), 60)

    def test_a_cut_and_a_delivery_of_one_number_are_leased_apart(self, ledger: SqlLedger) -> None:
        ledger.leases.take("cut", 1, "a", 60)
        assert ledger.leases.take("delivery", 1, "b", 60).fence == 1

    def test_a_lease_is_free_when_it_lapses(self, ledger: SqlLedger, clock: Clock) -> None:
        lease = ledger.leases.take("cut", 1, "a", 60)
        clock.now = lease.until
        assert ledger.leases.take("cut", 1, "b", 60).fence == lease.fence + 1

    def test_the_fence_grows_also_after_a_release(self, ledger: SqlLedger) -> None:
        fences = []
        for _ in range(3):
            lease = ledger.leases.take("cut", 1, "a", 60)
            fences.append(lease.fence)
            ledger.leases.release(lease)
        assert fences == [1, 2, 3]

    def test_renewing_moves_a_leases_end(self, ledger: SqlLedger, clock: Clock) -> None:
        lease = ledger.leases.take("cut", 1, "a", 60)
        clock.now += 59
        renewed = ledger.leases.renew(lease, 60)
        assert renewed == replace(lease, until=clock.now + 60)
        clock.now += 59
        with pytest.raises(HeldElsewhere):
            ledger.leases.take("cut", 1, "b", 60)

    def test_a_lease_that_was_taken_over_cannot_be_renewed(self, ledger: SqlLedger, clock: Clock) -> None:
        lease = ledger.leases.take("cut", 1, "a", 60)
        clock.now += 61
        ledger.leases.take("cut", 1, "a", 60)
        with pytest.raises(LeaseLost):
            ledger.leases.renew(lease, 60)

    def test_a_released_lease_cannot_be_renewed(self, ledger: SqlLedger) -> None:
        lease = ledger.leases.take("cut", 1, "a", 60)
        ledger.leases.release(lease)
        with pytest.raises(LeaseLost):
            ledger.leases.renew(lease, 60)

    def test_releasing_a_lost_lease_leaves_the_new_holder_alone(self, ledger: SqlLedger, clock: Clock) -> None:
        lost = ledger.leases.take("cut", 1, "a", 60)
        clock.now += 61
        ledger.leases.take("cut", 1, "b", 60)
        ledger.leases.release(lost)
        with pytest.raises(HeldElsewhere):
            ledger.leases.take("cut", 1, "c", 60)

    def test_of_threads_that_take_a_lease_at_once_one_gets_it(
        self, ledger: SqlLedger, another_connection_to_the_same_ledger: SqlLedger
    ) -> None:
        for ref in range(5):
            answers = together(
                *[
                    partial(to.leases.take, "cut", ref, this_process(), 60)
                    for to in (ledger, another_connection_to_the_same_ledger) * 2
                ]
            )
            assert sorted(type(one).__name__ for one in answers) == ["HeldElsewhere"] * 3 + ["Lease"]

    def test_of_processes_that_take_a_lease_at_once_one_gets_it(self, ledger: SqlLedger, url: str) -> None:
        script = """
        with open_ledger(url) as ledger:
            ready()
            try:
                answer(ledger.leases.take("cut", 1, this_process(), 600).fence)
            except HeldElsewhere:
                answer(0)
            sys.stdin.readline()  # a process that ended would leave its lease free
        """
        with ExitStack() as stack:
            running = [stack.enter_context(process(script, url)) for _ in range(3)]
            answers = []
            for step in ("ready", "go"):
                for one in running:
                    assert one.stdin is not None
                    assert one.stdout is not None
                    if step == "ready":
                        assert one.stdout.readline() == "ready\n"
                    else:
                        one.stdin.write("go\n")
                        one.stdin.flush()
            for one in running:
                assert one.stdout is not None
                answers.append(json.loads(one.stdout.readline()))
        assert sorted(answers) == [0, 0, 1]

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows that a process is gone for good")
    def test_a_lease_is_free_at_once_when_its_process_is_killed(self, ledger: SqlLedger, url: str) -> None:
        script = """
        with open_ledger(url) as ledger:
            answer(ledger.leases.take("cut", 1, this_process(), 1e9).owner)
            sys.stdin.readline()
        """
        with process(script, url) as running:
            assert running.stdout is not None
            owner = json.loads(running.stdout.readline())
            assert not gone(owner)
            with pytest.raises(HeldElsewhere):
                ledger.leases.take("cut", 1, this_process(), 60)
            running.kill()
            running.wait()
        assert gone(owner)
        assert ledger.leases.take("cut", 1, this_process(), 60).fence == 2

    @pytest.mark.parametrize("field", range(5))
    def test_a_process_is_never_gone_where_that_cannot_be_told(self, field: int) -> None:
        fields = this_process().split("/")
        assert not gone("/".join(fields))
        fields[field] = "" if field != 3 else "no number"
        assert not gone("/".join(fields))

    def test_a_process_of_another_host_boot_or_container_is_never_gone(self) -> None:
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            ended.wait()
        host, boot, namespace, _, start, run = this_process().split("/")
        for place in (("x", boot, namespace), (host, "x", namespace), (host, boot, "x")):
            assert not gone("/".join((*place, str(ended.pid), start, run)))

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows that a process is gone for good")
    def test_a_process_is_gone_when_its_number_belongs_to_another_one(self) -> None:
        host, boot, namespace, pid, _, run = this_process().split("/")
        assert gone("/".join((host, boot, namespace, pid, "1", run)))

    @pytest.mark.parametrize("owner", ["", "airflow", "a/b/c/d/e/f"])
    def test_an_owner_of_another_form_is_never_gone(self, owner: str) -> None:
        assert not gone(owner)

    # ------------------------------------------------------------------------------------------- publishing

    def test_a_slice_gets_the_next_sequence_and_its_parts_their_paths(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        asked = draft(one, part(0, {5: 2}), part(1, {6: 1}))
        begun = ledger.slices.begin(lease_cut(ledger, one), stream_of(ledger), asked, 0, COLUMNS)
        paths = tuple(replace(p, path=p.path.replace("{sequence}", "00000001")) for p in asked.parts)
        assert begun == replace(asked, sequence=1, parts=paths)
        assert ledger.plans.cut(stream_of(ledger), one.id).state is CutState.PUBLISHING

    def test_all_that_is_needed_to_finish_a_slice_is_there_again(
        self, ledger: SqlLedger, another_connection_to_the_same_ledger: SqlLedger
    ) -> None:
        (one,) = plan(ledger, cut(0, 10, lane="topic/0"))
        assert ledger.slices.publishing(stream_of(ledger)) is None
        begun = begin(
            ledger,
            one,
            replace(part(0, {5: 2, 6: 1}), batch_id="b"),
            part(1, {6: 1}),
            held="too many rejects",
            duplicates=4,
            rejected={"no id": 2, "changed_after_sent": 1},
            null_cursors=3,
            superseded=6,
            waiting=5,
        )
        assert another_connection_to_the_same_ledger.slices.publishing(stream_of(ledger)) == begun

    def test_a_stream_tells_the_newest_sequence_that_was_given_out(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        begun = begin(ledger, one, part(0, {5: 2}))
        assert (stream_of(ledger).allotted, stream_of(ledger).published) == (1, 0)
        ledger.slices.withdraw(stream_of(ledger), begun.sequence)
        assert stream_of(ledger).allotted == 1

    def test_the_cuts_of_published_slices_are_told_with_the_version_that_they_are_of(self, ledger: SqlLedger) -> None:
        one, two, three, four = plan(ledger, *[cut(n, n + 1) for n in range(4)])
        publish(ledger, two, joined=(3, 7))
        publish(ledger, one, joined=(-1, 8))
        publish(ledger, four)
        begun = begin(ledger, three, part(0, {5: 2}), joined=(3, 7, 8))
        stream = stream_of(ledger)
        assert ledger.slices.publishing(stream) == begun
        assert begun.joined == (3, 7, 8)
        told = {days: ledger.slices.cuts(stream, days) for days in map(frozenset, ((), (7,), (4, 6), (-1, 3)))}
        assert {version for version, _ in told.values()} == {3}
        assert [dict(found) for _, found in told.values()] == [{}, {two.id: 1}, {}, {two.id: 1, one.id: 2}]

    def test_a_summary_tells_what_of_labels_is_held_and_what_was_taken_up_again(self, ledger: SqlLedger) -> None:
        first, second = plan(ledger, cut(0, 1), cut(7, 8, lane="held"))
        publish(ledger, first, waiting=5, superseded=2)
        (summary,) = ledger.reports.summary("flights")
        assert (summary.waiting, summary.superseded) == (5, 2)
        publish(ledger, second, part(0, {5: 3}), waiting=2)
        (summary,) = ledger.reports.summary("flights")
        assert summary.waiting == 2

    def test_a_slice_that_is_being_published_is_not_published(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        begin(ledger, one, part(0, {5: 2}))
        assert ledger.slices.published(stream_of(ledger), None).parts == ()
        assert stream_of(ledger).published == 0

    def test_a_published_slice_is_scanned_done_and_delivered(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        begun = begin(ledger, one, part(0, {5: 2}), part(1, {6: 1}))
        deliveries = ledger.slices.finish(stream_of(ledger), begun, ["arthur", "arize"])
        assert [(d.sequence, d.destination, d.state, d.rows) for d in deliveries] == [
            (1, "arthur", DeliveryState.TODO, 3),
            (1, "arize", DeliveryState.TODO, 3),
        ]
        assert ledger.slices.published(stream_of(ledger), None).version == stream_of(ledger).published == 1
        assert ledger.slices.publishing(stream_of(ledger)) is None
        assert ledger.plans.open_cuts(stream_of(ledger)) == ()
        assert ledger.plans.coverage(stream_of(ledger)).scanned == {"": Ranges((Range(0, 10),))}

    def test_finishing_again_changes_nothing(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        begun = begin(ledger, one, part(0, {5: 2}))
        first = ledger.slices.finish(stream_of(ledger), begun, ["arthur"])
        summary = ledger.reports.summary("flights")
        assert ledger.slices.finish(stream_of(ledger), begun, ["arthur"]) == first
        assert ledger.reports.summary("flights") == summary

    def test_threads_that_finish_a_slice_at_once_create_its_deliveries_once(
        self, ledger: SqlLedger, another_connection_to_the_same_ledger: SqlLedger
    ) -> None:
        (one,) = plan(ledger, cut(0, 10))
        begun = begin(ledger, one, part(0, {5: 2}))
        answers = together(
            *[
                partial(to.slices.finish, stream_of(to), begun, ["arthur"])
                for to in (ledger, another_connection_to_the_same_ledger) * 2
            ]
        )
        assert answers == [answers[0]] * 4
        assert len(ledger.deliveries.open(stream_of(ledger), "arthur")) == 1

    def test_a_slice_on_an_index_that_is_outdated_is_refused(self, ledger: SqlLedger) -> None:
        one, two = plan(ledger, cut(0, 10), cut(10, 20))
        lease = lease_cut(ledger, two)
        publish(ledger, one)
        with pytest.raises(Outdated):
            ledger.slices.begin(lease, stream_of(ledger), draft(two, part(0, {5: 1})), 0, COLUMNS)
        assert ledger.slices.publishing(stream_of(ledger)) is None

    def test_a_second_slice_waits_and_the_first_ones_cut_is_named(self, ledger: SqlLedger) -> None:
        one, two = plan(ledger, cut(0, 10), cut(10, 20))
        begin(ledger, one, part(0, {5: 1}))
        with pytest.raises(HeldElsewhere, match=f"cut {one.id}"):
            begin(ledger, two, part(0, {5: 1}))

    def test_another_stream_publishes_meanwhile(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        begin(ledger, one, part(0, {5: 1}))
        other = ledger.plans.stream("trains", StreamName.INFERENCES, {})
        (theirs,) = ledger.plans.write(other, Request("run 1", INCREMENTAL), [cut(0, 10)], 0)
        begun = ledger.slices.begin(lease_cut(ledger, theirs), other, draft(theirs, part(0, {5: 1})), 0, COLUMNS)
        ledger.slices.finish(other, begun, [])
        assert ledger.slices.published(stream_of(ledger), None).parts == ()
        assert len(ledger.slices.published(other, None).parts) == 1

    def test_of_threads_that_begin_at_once_one_publishes(
        self, ledger: SqlLedger, another_connection_to_the_same_ledger: SqlLedger
    ) -> None:
        for round_ in range(4):
            cuts = plan(ledger, *[cut(10 * round_ + n, 10 * round_ + n + 1) for n in range(4)])
            leases = [lease_cut(ledger, one) for one in cuts]
            stream = stream_of(ledger)
            answers = together(
                *[
                    partial(to.slices.begin, lease, stream, draft(one, part(0, {5: 1})), stream.published, COLUMNS)
                    for to, lease, one in zip(
                        (ledger, another_connection_to_the_same_ledger) * 2, leases, cuts, strict=True
                    )
                ]
            )
            assert sorted(type(one).__name__ for one in answers) == ["HeldElsewhere"] * 3 + ["Slice"]
            ledger.slices.finish(stream, next(one for one in answers if isinstance(one, Slice)), [])

    def test_processes_that_publish_at_once_never_share_a_sequence(self, ledger: SqlLedger, url: str) -> None:
        plan(ledger, *[cut(n, n + 1) for n in range(9)])
        script = """
        mine = []
        with open_ledger(url) as ledger:
            stream = ledger.plans.stream("flights", StreamName.INFERENCES, {})
            ready()
            while cuts := ledger.plans.open_cuts(stream):
                for cut in cuts:
                    try:
                        lease = ledger.leases.take("cut", cut.id, this_process(), 60)
                        version = ledger.slices.published(stream, None).version
                        part = Part(0, "{sequence}", 1, 1, "", 0, 1, {0: 1})
                        draft = Slice(0, cut.id, cut.kind, cut.range, (part,), Tally(1, 1))
                        begun = ledger.slices.begin(lease, stream, draft, version, {})
                        ledger.slices.finish(stream, begun, ["arthur"])
                        mine.append(begun.sequence)
                        ledger.leases.release(lease)
                    except LeaseLost:
                        raise
                    except HeldElsewhere:
                        if "lease" in globals():
                            ledger.leases.release(lease)
                    except Outdated:
                        ledger.leases.release(lease)
            answer(mine)
        """
        answers = processes_together(script, url, 3)
        assert sorted(sequence for mine in answers for sequence in mine) == list(range(1, 10))
        assert [one.sequence for one in ledger.deliveries.open(stream_of(ledger), "arthur")] == list(range(1, 10))

    def test_a_lease_that_was_taken_over_publishes_nothing(self, ledger: SqlLedger, clock: Clock) -> None:
        (one,) = plan(ledger, cut(0, 10))
        slept = lease_cut(ledger, one)
        clock.now += 61
        lease_cut(ledger, one)
        with pytest.raises(LeaseLost):
            ledger.slices.begin(slept, stream_of(ledger), draft(one, part(0, {5: 1})), 0, COLUMNS)
        with pytest.raises(LeaseLost):
            ledger.slices.empty(slept, stream_of(ledger), one, Tally())
        assert ledger.plans.open_cuts(stream_of(ledger)) == (one,)

    def test_the_lease_of_another_cut_publishes_nothing(self, ledger: SqlLedger) -> None:
        one, two = plan(ledger, cut(0, 10), cut(10, 20))
        for lease in (lease_cut(ledger, two), ledger.leases.take("delivery", one.id, "worker", 60)):
            with pytest.raises(LeaseLost):
                ledger.slices.begin(lease, stream_of(ledger), draft(one, part(0, {5: 1})), 0, COLUMNS)
            with pytest.raises(LeaseLost):
                ledger.slices.empty(lease, stream_of(ledger), one, Tally())

    def test_a_lapsed_lease_that_nobody_took_still_publishes(self, ledger: SqlLedger, clock: Clock) -> None:
        (one,) = plan(ledger, cut(0, 10))
        lease = lease_cut(ledger, one)
        clock.now += 61
        assert ledger.slices.begin(lease, stream_of(ledger), draft(one, part(0, {5: 1})), 0, COLUMNS).sequence == 1

    def test_a_cut_that_is_done_is_not_published_again(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        publish(ledger, one)
        with pytest.raises(Outdated, match="done"):
            begin(ledger, one, part(0, {5: 1}))
        with pytest.raises(Outdated, match="done"):
            ledger.slices.empty(lease_cut(ledger, one), stream_of(ledger), one, Tally())

    def test_a_slice_whose_numbers_do_not_add_up_is_a_mistake(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        lease, good = lease_cut(ledger, one), draft(one, part(0, {5: 1}))
        for bad in (
            replace(good, tally=Tally(2, 2)),
            replace(good, parts=(replace(good.parts[0], hours={5: 2}),)),
            replace(good, range=Range(0, 11)),
        ):
            with pytest.raises(ValueError, match="slice of"):
                ledger.slices.begin(lease, stream_of(ledger), bad, 0, COLUMNS)
        assert ledger.slices.publishing(stream_of(ledger)) is None

    def test_the_first_slice_pins_the_columns(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        publish(ledger, one)
        assert stream_of(ledger).pinned == COLUMNS
        assert list(stream_of(ledger).pinned) == list(COLUMNS)

    @pytest.mark.parametrize(
        ("columns", "named"),
        [
            ({**COLUMNS, "score": "BIGINT"}, "'score' .* was DOUBLE .* is BIGINT"),
            ({"partner_inference_id": "VARCHAR"}, "'score' .* was DOUBLE .* is absent"),
            ({**COLUMNS, "new": "DATE"}, "'new' .* was absent .* is DATE"),
        ],
    )
    def test_a_column_of_another_type_is_refused_by_name_with_old_and_new(
        self, ledger: SqlLedger, columns: dict[str, str], named: str
    ) -> None:
        one, two = plan(ledger, cut(0, 10), cut(10, 20))
        publish(ledger, one)
        with pytest.raises(Misconfigured, match=named):
            ledger.slices.begin(lease_cut(ledger, two), stream_of(ledger), draft(two, part(0, {5: 1})), 1, columns)
        assert ledger.slices.publishing(stream_of(ledger)) is None

    def test_the_sources_columns_are_remembered_as_the_newest_run_left_them(self, ledger: SqlLedger) -> None:
        assert stream_of(ledger).columns == {}
        ledger.plans.know(stream_of(ledger), {"id": "VARCHAR", "at": "DATE"})
        ledger.plans.know(stream_of(ledger), {"id": "VARCHAR", "a": "BIGINT"})
        assert stream_of(ledger).columns == {"id": "VARCHAR", "a": "BIGINT"}

    def test_the_columns_of_a_first_slice_that_was_withdrawn_bind_nothing(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        ledger.slices.withdraw(stream_of(ledger), begin(ledger, one, part(0, {5: 1})).sequence)
        assert stream_of(ledger).pinned == {}

    def test_an_empty_cut_marks_its_range_scanned(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        tally = Tally(scanned=5, duplicates=3, rejected={"no id": 2})
        ledger.slices.empty(lease_cut(ledger, one), stream_of(ledger), one, tally)
        assert ledger.plans.coverage(stream_of(ledger)).scanned == {"": Ranges((Range(0, 10),))}
        assert stream_of(ledger).published == 0

    def test_an_empty_cut_that_is_reported_again_is_counted_once(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        lease = lease_cut(ledger, one)
        for _ in range(2):
            ledger.slices.empty(lease, stream_of(ledger), one, Tally(scanned=3, duplicates=3))
        assert ledger.reports.summary("flights")[0].duplicates == 3

    def test_a_cut_with_rows_to_publish_is_not_empty(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        with pytest.raises(ValueError, match="not empty"):
            ledger.slices.empty(lease_cut(ledger, one), stream_of(ledger), one, Tally(1, 1))

    def test_scanned_ranges_that_touch_become_one(self, ledger: SqlLedger) -> None:
        cuts = plan(ledger, cut(-10, 0), cut(20, 30), cut(100, 110), cut(0, 10), cut(10, 20), cut(5, 25, LOOKBACK))
        for one in cuts:
            publish(ledger, one)
        assert ledger.plans.coverage(stream_of(ledger)).scanned == {"": Ranges((Range(-10, 30), Range(100, 110)))}

    def test_a_withdrawn_slices_cut_is_planned_again_under_the_same_lease(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        lease = lease_cut(ledger, one)
        asked = draft(one, part(0, {5: 1}), rejected={"no id": 1})
        begun = ledger.slices.begin(lease, stream_of(ledger), asked, 0, COLUMNS)
        ledger.slices.withdraw(stream_of(ledger), begun.sequence)
        assert ledger.plans.open_cuts(stream_of(ledger)) == (one,)
        assert ledger.plans.coverage(stream_of(ledger)).scanned == {}
        again = ledger.slices.begin(lease, stream_of(ledger), asked, 0, COLUMNS)
        assert again.sequence == begun.sequence + 1

    def test_a_withdrawn_slice_cannot_be_finished(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        begun = begin(ledger, one, part(0, {5: 1}))
        ledger.slices.withdraw(stream_of(ledger), begun.sequence)
        with pytest.raises(Outdated, match="withdrawn"):
            ledger.slices.finish(stream_of(ledger), begun, ["arthur"])
        assert ledger.plans.coverage(stream_of(ledger)).scanned == {}

    def test_a_published_slice_cannot_be_withdrawn(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        publish(ledger, one)
        with pytest.raises(Outdated):
            ledger.slices.withdraw(stream_of(ledger), 1)
        assert len(ledger.slices.published(stream_of(ledger), None).parts) == 1

    def test_withdrawing_again_leaves_the_cuts_next_slice_alone(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        first = begin(ledger, one, part(0, {5: 1}))
        ledger.slices.withdraw(stream_of(ledger), first.sequence)
        second = begin(ledger, one, part(0, {5: 1}))
        ledger.slices.withdraw(stream_of(ledger), first.sequence)
        assert ledger.slices.publishing(stream_of(ledger)) == second

    def test_of_a_finish_and_a_withdrawal_at_once_one_happens(
        self, ledger: SqlLedger, another_connection_to_the_same_ledger: SqlLedger
    ) -> None:
        for one in plan(ledger, *[cut(n, n + 1) for n in range(5)]):
            begun = begin(ledger, one, part(0, {5: 1}))
            answers = together(
                partial(ledger.slices.finish, stream_of(ledger), begun, ["arthur"]),
                partial(another_connection_to_the_same_ledger.slices.withdraw, stream_of(ledger), begun.sequence),
            )
            assert [type(answer) for answer in answers].count(Outdated) == 1
            state = ledger.plans.cut(stream_of(ledger), one.id).state
            assert state is (CutState.PLANNED if isinstance(answers[0], Outdated) else CutState.DONE)

    # ------------------------------------------------------------------------------------------- the index

    def test_published_parts_come_back_as_they_were_published(self, ledger: SqlLedger) -> None:
        one, two = plan(ledger, cut(0, 10), cut(10, 20))
        publish(ledger, one, part(0, {5: 2, 6: 1}), part(1, {9: 1}))
        publish(ledger, two, part(0, {5: 1}))
        found = ledger.slices.published(stream_of(ledger), None)
        assert [(ref.sequence, ref.part.number) for ref in found.parts] == [(1, 0), (1, 1), (2, 0)]
        assert found.parts[0].part == replace(
            part(0, {5: 2, 6: 1}), path="data/event_day=2013-01-03/00000001-00000.parquet"
        )
        assert found.version == 2

    @pytest.mark.parametrize("span", [0, 1, 20, 24, 700, 8_000, 100_000], ids="{} hours".format)
    @pytest.mark.parametrize("beyond", [False, True])
    def test_a_window_finds_parts_of_any_span_from_their_first_to_their_last_event(
        self, ledger: SqlLedger, span: int, beyond: bool
    ) -> None:
        first, last = 50_000 * HOUR, (50_000 + span) * HOUR + 7
        (one,) = plan(ledger, cut(0, 10))
        wide = replace(part(0, {50_000: 1}), event_min=first, event_max=last)
        publish(ledger, one, wide)
        meeting = [Range(last, last + 1), Range(first, first + 1), Range(first - 5, last + 5), Range(last - 3, last)]
        missing = [Range(last + 1, last + HOUR), Range(first - HOUR, first)]
        for window in missing if beyond else meeting:
            assert len(ledger.slices.published(stream_of(ledger), window).parts) == (0 if beyond else 1)

    # ------------------------------------------------------------------------------------------ deliveries

    def test_a_held_slices_deliveries_are_held_with_its_reason(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        delivery = publish(ledger, one, held="too many rejects")
        assert (delivery.state, delivery.reason) == (DeliveryState.HELD, "too many rejects")
        assert ledger.deliveries.open(stream_of(ledger), "arthur") == ()

    def test_a_slice_without_rows_is_closed_at_once_unless_it_is_held(self, ledger: SqlLedger) -> None:
        one, two = plan(ledger, cut(0, 10), cut(10, 20))
        states = []
        for of, held in ((one, None), (two, "all rows were rejected")):
            begun = begin(ledger, of, held=held, rejected={"no id": 3})
            states += [one.state for one in ledger.slices.finish(stream_of(ledger), begun, ["arthur"])]
        assert states == [DeliveryState.CLOSED, DeliveryState.HELD]

    def test_open_deliveries_come_oldest_first_and_without_the_closed_and_the_held(self, ledger: SqlLedger) -> None:
        all_ = [publish(ledger, one) for one in plan(ledger, *[cut(n, n + 1) for n in range(6)])]
        move(ledger, all_[0], DeliveryState.SENDING, DeliveryState.CLOSED)
        move(ledger, all_[1], DeliveryState.SENDING, DeliveryState.HELD)
        move(ledger, all_[3], DeliveryState.SENDING, DeliveryState.UNKNOWN)
        move(ledger, all_[4], DeliveryState.SENDING, DeliveryState.SENT)
        move(ledger, all_[5], DeliveryState.SENDING)
        found = ledger.deliveries.open(stream_of(ledger), "arthur")
        assert [(one.sequence, str(one.state)) for one in found] == [
            (3, "todo"),
            (4, "unknown"),
            (5, "sent"),
            (6, "sending"),
        ]
        assert ledger.deliveries.open(stream_of(ledger), "arize") == ()

    def test_an_intent_is_numbered_by_part_and_makes_the_delivery_sending(
        self, ledger: SqlLedger, clock: Clock
    ) -> None:
        (one,) = plan(ledger, cut(0, 10))
        delivery = publish(ledger, one, part(0, {5: 1}), part(1, {5: 1}))
        lease = lease_delivery(ledger, delivery)
        sends = [
            ledger.deliveries.intend(lease, delivery, number, form, 1)
            for number, form in ((0, SendForm.FILE), (1, SendForm.FILE), (0, SendForm.ROWS))
        ]
        assert [(s.part, s.attempt, s.form, s.state, s.at) for s in sends] == [
            (0, 1, SendForm.FILE, SendState.INTENT, clock.now),
            (1, 1, SendForm.FILE, SendState.INTENT, clock.now),
            (0, 2, SendForm.ROWS, SendState.INTENT, clock.now),
        ]
        assert ledger.deliveries.open(stream_of(ledger), "arthur")[0].state is DeliveryState.SENDING

    def test_contents_gives_the_slice_and_every_send_with_its_answer(self, ledger: SqlLedger, clock: Clock) -> None:
        (one,) = plan(ledger, cut(0, 10))
        begun = begin(ledger, one, part(0, {5: 2, 6: 1}), part(1, {6: 1}), duplicates=2, rejected={"no id": 1})
        (delivery,) = ledger.slices.finish(stream_of(ledger), begun, ["arthur"])
        lease = lease_delivery(ledger, delivery)
        first = ledger.deliveries.intend(lease, delivery, 0, SendForm.FILE, 3)
        ledger.deliveries.answer(lease, first, SendState.ACCEPTED, "201")
        second = ledger.deliveries.intend(lease, delivery, 1, SendForm.FILE, 1)
        slice_, sends = ledger.deliveries.contents(delivery)
        assert slice_ == begun
        answered = replace(first, state=SendState.ACCEPTED, detail="201", answered=clock.now)
        assert sends == (answered, second)

    def test_sends_without_the_deliverys_lease_are_refused(self, ledger: SqlLedger, clock: Clock) -> None:
        one, two = (publish(ledger, each) for each in plan(ledger, cut(0, 10), cut(10, 20)))
        slept = lease_delivery(ledger, one)
        send = ledger.deliveries.intend(slept, one, 0, SendForm.FILE, 3)
        clock.now += 61
        lease_delivery(ledger, one)
        for lease in (slept, lease_delivery(ledger, two), ledger.leases.take("cut", one.id, "worker", 600)):
            with pytest.raises(LeaseLost):
                ledger.deliveries.intend(lease, one, 0, SendForm.FILE, 3)
            with pytest.raises(LeaseLost):
                ledger.deliveries.answer(lease, send, SendState.ACCEPTED, "")
            with pytest.raises(LeaseLost):
                ledger.deliveries.settle(lease, one, DeliveryState.CLOSED)
        assert ledger.deliveries.contents(one)[1] == (send,)

    def test_settling_counts_totals_so_that_a_repeat_changes_nothing(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        delivery = publish(ledger, one, part(0, {5: 4, 6: 4}))
        for _ in range(2):
            settled = move(
                ledger, delivery, DeliveryState.SENDING, DeliveryState.SENT, arrived=5, refused={5: 1, 6: 2}
            )
            assert (settled.arrived, settled.refused) == (5, 3)
        assert move(ledger, delivery, DeliveryState.SENT, refused={6: 3}).refused == 4
        assert move(ledger, delivery, DeliveryState.SENT).arrived == 5

    def test_more_refused_than_there_were_is_a_mistake(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        delivery = publish(ledger, one, part(0, {5: 4}))
        for refused in ({5: 5}, {6: 1}, {5: -1}):
            with pytest.raises(ValueError, match="refused of hour"):
                move(ledger, delivery, DeliveryState.CLOSED, refused=refused)

    def test_why_and_by_what_a_delivery_was_settled_is_kept(self, ledger: SqlLedger) -> None:
        one, two = (publish(ledger, each) for each in plan(ledger, cut(0, 10), cut(10, 20)))
        assert move(ledger, one, DeliveryState.SENDING, DeliveryState.UNKNOWN, reason="no reply").reason == "no reply"
        assert move(ledger, one, DeliveryState.SENDING, DeliveryState.SENT).reason == ""
        closed = move(ledger, two, DeliveryState.CLOSED, arrived=3, proof=Proof.ROWS)
        assert (closed.state, closed.arrived) == (DeliveryState.CLOSED, 3)

    @pytest.mark.parametrize("end", [DeliveryState.CLOSED, DeliveryState.HELD])
    def test_a_delivery_that_is_closed_or_held_is_not_sent_again(self, ledger: SqlLedger, end: DeliveryState) -> None:
        (one,) = plan(ledger, cut(0, 10))
        delivery = move(ledger, publish(ledger, one), DeliveryState.SENDING, end)
        lease = lease_delivery(ledger, delivery)
        with pytest.raises(Outdated):
            ledger.deliveries.intend(lease, delivery, 0, SendForm.FILE, 3)
        for state in DeliveryState:
            if state is not end:
                with pytest.raises(Outdated):
                    ledger.deliveries.settle(lease, delivery, state)
        assert ledger.deliveries.settle(lease, delivery, end).state is end

    def test_a_delivery_that_was_read_long_ago_can_be_read_again(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        delivery = publish(ledger, one)
        closed = move(ledger, delivery, DeliveryState.CLOSED, arrived=3)
        assert ledger.deliveries.current(delivery) == closed
        with pytest.raises(Outdated):
            ledger.deliveries.current(replace(delivery, id=99))

    def test_a_destination_that_joins_later_gets_every_published_slice_once(self, ledger: SqlLedger) -> None:
        cuts = plan(ledger, *[cut(n, n + 1) for n in range(4)])
        publish(ledger, cuts[0], part(0, {5: 2}), to=["arthur", "arize"])
        publish(ledger, cuts[1], part(0, {5: 3, 6: 1}))
        publish(ledger, cuts[2], held="too many rejects")
        begin(ledger, cuts[3], part(0, {5: 1}))
        stream = stream_of(ledger)
        assert [ledger.deliveries.enroll(stream, "arize") for _ in range(2)] == [2, 0]
        assert [(one.sequence, one.rows) for one in ledger.deliveries.open(stream, "arize")] == [(1, 2), (2, 4)]
        for delivery in ledger.deliveries.open(stream, "arize"):
            move(ledger, delivery, DeliveryState.SENDING, DeliveryState.SENT)
        assert ledger.reports.expected(stream, "arize", Range(0, 10)) == {5: 5, 6: 1}

    def test_threads_that_enroll_a_destination_at_once_create_each_delivery_once(
        self, ledger: SqlLedger, another_connection_to_the_same_ledger: SqlLedger
    ) -> None:
        for one in plan(ledger, *[cut(n, n + 1) for n in range(5)]):
            publish(ledger, one)
        stream = stream_of(ledger)
        answers = together(
            *[
                partial(to.deliveries.enroll, stream, "arize")
                for to in (ledger, another_connection_to_the_same_ledger) * 2
            ]
        )
        assert sum(answers) == len(ledger.deliveries.open(stream, "arize")) == 5

    def test_a_pause_is_of_one_job_and_one_destination_and_its_end_and_beginning_are_in_the_audit(
        self, ledger: SqlLedger, another_connection_to_the_same_ledger: SqlLedger
    ) -> None:
        restore, pause = SqlRestore(ledger), Pause("ada", 5.0, "its key is renewed")
        began = AuditEntry(5.0, "ada", "paused arize", "sending", "paused", "its key is renewed")
        restore.pause("flights", "arize", pause, began)
        with pytest.raises(Outdated, match="arize is paused already for flights"):
            restore.pause("flights", "arize", pause, began)
        elsewhere = another_connection_to_the_same_ledger.deliveries
        assert elsewhere.paused("flights") == {"arize": pause}
        assert elsewhere.paused("others") == {}
        ended = AuditEntry(6.0, "bob", "resumed arize", "paused", "sending", "")
        restore.pause("flights", "arize", None, ended)
        with pytest.raises(Outdated, match="arize is not paused for flights"):
            restore.pause("flights", "arize", None, ended)
        assert elsewhere.paused("flights") == {}
        assert {entry.what for entry in ledger.reports.audit("flights")} == {"paused arize", "resumed arize"}

    def test_a_released_slice_is_to_be_delivered_and_the_audit_tells_who_and_why(
        self, ledger: SqlLedger, clock: Clock
    ) -> None:
        (one,) = plan(ledger, cut(0, 10))
        publish(ledger, one, held="too many rejects")
        stream = stream_of(ledger)
        (freed,) = ledger.deliveries.release(stream, 1, who="ada", why="they are tests")
        assert (freed.state, freed.reason) == (DeliveryState.TODO, "")
        assert ledger.deliveries.open(stream, "arthur") == (freed,)
        entries = ledger.reports.audit("flights")
        assert {(e.who, e.at, e.old, e.new, e.why) for e in entries} == {
            ("ada", clock.now, "held: too many rejects", "todo", "they are tests")
        }
        assert "slice 1" in entries[0].what

    def test_a_released_slice_is_not_held_for_a_destination_that_joins_later(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        publish(ledger, one, held="too many rejects")
        ledger.deliveries.release(stream_of(ledger), 1, who="ada", why="fine")
        ledger.deliveries.enroll(stream_of(ledger), "arize")
        assert ledger.deliveries.open(stream_of(ledger), "arize")[0].state is DeliveryState.TODO

    def test_a_slice_can_be_released_at_one_destination(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        publish(ledger, one, held="too many rejects", to=["arthur", "arize"])
        stream = stream_of(ledger)
        assert len(ledger.deliveries.release(stream, 1, who="ada", why="fine", destination="arize")) == 1
        assert ledger.deliveries.open(stream, "arthur") == ()
        assert [entry.what for entry in ledger.reports.audit("flights")] == [
            "released slice 1 of inferences at arize"
        ]

    def test_what_is_released_as_arrived_counts_as_accepted(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        delivery = publish(ledger, one)
        lease = ledger.leases.take("delivery", delivery.id, "me", 60)
        unanswered = ledger.deliveries.intend(lease, delivery, 0, SendForm.FILE, 100)
        refused = ledger.deliveries.intend(lease, delivery, 0, SendForm.FILE, 100)
        ledger.deliveries.answer(lease, refused, SendState.REFUSED, "{}")
        ledger.deliveries.settle(lease, delivery, DeliveryState.HELD, reason="nobody knows")
        (freed,) = ledger.deliveries.release(stream_of(ledger), 1, who="ada", why="I looked", arrived=True)
        assert freed.released is not None
        first, second = ledger.deliveries.contents(freed)[1]
        assert (first.id, first.state) == (unanswered.id, SendState.ACCEPTED)
        assert json.loads(first.detail) == {"accepted": 100, "failed": 0, "found": "said by hand"}
        assert second.state is SendState.REFUSED

    def test_a_release_of_what_is_not_held_changes_nothing(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        publish(ledger, one)
        assert ledger.deliveries.release(stream_of(ledger), 1, who="ada", why="?") == ()
        assert ledger.reports.audit("flights") == ()

    # ------------------------------------------------------------------------- what was lost, and what is purged

    def test_a_closed_delivery_is_reopened_and_the_audit_tells_who_and_why(
        self, ledger: SqlLedger, clock: Clock
    ) -> None:
        (one,) = plan(ledger, cut(0, 10))
        move(ledger, publish(ledger, one), DeliveryState.CLOSED, arrived=3, proof=Proof.COUNTS)
        stream = stream_of(ledger)
        (again,) = ledger.deliveries.reopen(stream, "arthur", {1: 2}, who="ada", why="an accident")
        assert (again.state, again.arrived, again.reopened) == (DeliveryState.SENT, 1, clock.now)
        assert ledger.deliveries.open(stream, "arthur") == (again,)
        assert ledger.deliveries.reopen(stream, "arthur", {1: 2}, who="ada", why="again") == ()
        (entry,) = ledger.reports.audit("flights")
        assert (entry.who, entry.at, entry.why) == ("ada", clock.now, "an accident")
        assert (entry.old, entry.new) == (
            "closed, 3 of 3 rows arrived",
            "2 rows are sent again",
        )

    def test_what_was_reopened_does_not_cap_the_mark(self, ledger: SqlLedger) -> None:
        (one,) = plan(ledger, cut(0, 10))
        move(ledger, publish(ledger, one), DeliveryState.CLOSED, arrived=3)
        ledger.deliveries.reopen(stream_of(ledger), "arthur", {1: 2}, who="ada", why="an accident")
        (there,) = ledger.reports.summary("flights")[0].destinations
        assert (there.oldest, [each.sequence for each in there.others]) == ({}, [1])

    def test_what_is_open_held_or_skipped_is_not_reopened(self, ledger: SqlLedger) -> None:
        first, second, third = plan(ledger, cut(0, 10), cut(10, 20), cut(20, 30))
        publish(ledger, first)
        publish(ledger, second, held="too many rejects")
        publish(ledger, third, held="too many rejects")
        stream, entry = stream_of(ledger), AuditEntry(1.0, "ada", "skipped", "", "", "")
        SqlRestore(ledger).skip(stream, 3, "arthur", reason="skipped: no use", entry=entry)
        assert ledger.deliveries.reopen(stream, "arthur", {1: 1, 2: 1, 3: 1, 4: 1}, who="ada", why="?") == ()
        known = SqlComparing(ledger)
        assert known.states(stream, "arthur") == {1: "todo", 2: "held", 3: "skipped"}
        assert known.states(stream, "arize") == {}
        assert known.slices(stream)[1] == SliceAt(2, Range(10, 20))

    def test_a_slice_may_be_purged_when_every_destination_closed_it_and_keep_is_over(
        self, ledger: SqlLedger, clock: Clock
    ) -> None:
        first, second = plan(ledger, cut(0, 10), cut(10, 20))
        move(ledger, publish(ledger, first), DeliveryState.CLOSED, arrived=3)
        publish(ledger, second)
        stream, purging = stream_of(ledger), SqlPurging(ledger)
        assert purging.purgeable(stream, ["arthur"], 60) == ()
        clock.now += 61
        assert purging.purgeable(stream, ["arthur", "arize"], 60) == ()
        assert purging.purgeable(stream, ["arthur"], 60) == ((1, first.id),)
        assert not purging.purge(stream, 2, ["arthur"], 60)
        assert purging.purge(stream, 1, ["arthur"], 60)
        assert not purging.purge(stream, 1, ["arthur"], 60)
        assert purging.purgeable(stream, ["arthur"], 60) == ()
        (ref,) = purging.parts(stream, 1)
        assert ref.part.purged
        assert purging.purged(stream) == {ref.part.path: (1, first.id)}
        assert [each.part.purged for each in ledger.slices.published(stream, None).parts] == [True, False]

    def test_a_slice_that_was_reopened_is_not_purged(self, ledger: SqlLedger, clock: Clock) -> None:
        (one,) = plan(ledger, cut(0, 10))
        move(ledger, publish(ledger, one), DeliveryState.CLOSED, arrived=3)
        clock.now += 61
        ledger.deliveries.reopen(stream_of(ledger), "arthur", {1: 2}, who="ada", why="an accident")
        assert not SqlPurging(ledger).purge(stream_of(ledger), 1, ["arthur"], 60)

    def test_purged_parts_get_their_files_again_in_other_bytes(self, ledger: SqlLedger, clock: Clock) -> None:
        (one,) = plan(ledger, cut(0, 10))
        closed = move(ledger, publish(ledger, one), DeliveryState.CLOSED, arrived=3)
        clock.now += 61
        stream, purging = stream_of(ledger), SqlPurging(ledger)
        assert purging.purge(stream, 1, ["arthur"], 60)
        (purged,) = ledger.deliveries.contents(closed)[0].parts
        again = replace(purged, size=7, sha256="other", purged=False)
        for _ in range(2):
            ledger.slices.restaged(stream, 1, [again])
            assert ledger.deliveries.contents(closed)[0].parts == (again,)

    # --------------------------------------------------------------------------------------------- reports

    def test_expected_counts_what_was_sent_by_hour_without_what_was_refused(self, ledger: SqlLedger) -> None:
        sent, closed, todo, unknown, sending = (
            publish(ledger, one, part(0, {5: 10, 6: 100})) for one in plan(ledger, *[cut(n, n + 1) for n in range(5)])
        )
        move(ledger, sent, DeliveryState.SENDING, DeliveryState.SENT, refused={5: 1})
        move(ledger, closed, DeliveryState.SENDING, DeliveryState.CLOSED, refused={6: 2})
        move(ledger, unknown, DeliveryState.SENDING, DeliveryState.UNKNOWN)
        move(ledger, sending, DeliveryState.SENDING)
        assert todo.state is DeliveryState.TODO
        stream = stream_of(ledger)
        assert ledger.reports.expected(stream, "arthur", Range(0, 10)) == {5: 19, 6: 198}
        assert ledger.reports.expected(stream, "arthur", Range(6, 7)) == {6: 198}
        assert ledger.reports.expected(stream, "arize", Range(0, 10)) == {}
        assert ledger.reports.expected(replace(stream, id=99), "arthur", Range(0, 10)) == {}

    def test_hours_in_flight_are_those_of_what_is_being_sent_or_unknown(self, ledger: SqlLedger) -> None:
        deliveries = [
            publish(ledger, one, part(0, {hour: 1, 20: 1}))
            for hour, one in enumerate(plan(ledger, *[cut(n, n + 1) for n in range(4)]))
        ]
        move(ledger, deliveries[1], DeliveryState.SENDING)
        move(ledger, deliveries[2], DeliveryState.SENDING, DeliveryState.UNKNOWN)
        move(ledger, deliveries[3], DeliveryState.SENDING, DeliveryState.SENT)
        stream = stream_of(ledger)
        assert ledger.reports.in_flight(stream, "arthur", Range(0, 10)) == {1, 2}
        assert ledger.reports.in_flight(stream, "arthur", Range(2, 21)) == {2, 20}
        assert ledger.reports.in_flight(stream, "arize", Range(0, 30)) == frozenset()

    @pytest.mark.parametrize("state", [DeliveryState.TODO, DeliveryState.HELD])
    @pytest.mark.parametrize(
        ("answer", "flies"), [(None, True), (SendState.ACCEPTED, True), (SendState.ABSENT, False)]
    )
    def test_hours_of_what_waits_are_in_flight_where_some_of_it_may_have_landed(
        self, ledger: SqlLedger, state: DeliveryState, answer: SendState | None, flies: bool
    ) -> None:
        (one,) = plan(ledger, cut(0, 10))
        delivery = publish(ledger, one, part(0, {5: 1}), part(1, {5: 1}))
        lease = lease_delivery(ledger, delivery)
        send = ledger.deliveries.intend(lease, delivery, 0, SendForm.FILE, 1)
        if answer is not None:
            ledger.deliveries.answer(lease, send, answer, "")
        ledger.deliveries.settle(lease, delivery, state)
        assert ledger.reports.in_flight(stream_of(ledger), "arthur", Range(0, 10)) == ({5} if flies else set())

    def test_a_summary_counts_what_was_published_dropped_and_set_aside(self, ledger: SqlLedger, clock: Clock) -> None:
        one, two, three, four = plan(ledger, *[cut(n, n + 1) for n in range(4)])
        publish(ledger, one, part(0, {5: 3}), duplicates=2, rejected={"no id": 1}, null_cursors=9)
        clock.now += 5
        publish(ledger, two, part(0, {5: 4}), rejected={"no id": 2, "late": 1}, null_cursors=9)
        clock.now += 5
        tally = Tally(scanned=7, duplicates=7, null_cursors=8)
        ledger.slices.empty(lease_cut(ledger, three), stream_of(ledger), three, tally)
        begin(ledger, four, part(0, {5: 100}), duplicates=100, rejected={"no id": 100})
        (summary,) = ledger.reports.summary("flights")
        assert (summary.job, summary.name) == ("flights", StreamName.INFERENCES)
        assert (summary.slices, summary.rows, summary.size) == (2, 7, 700)
        assert (summary.duplicates, summary.rejected, summary.null_cursors) == (9, {"no id": 3, "late": 1}, 8)
        assert (summary.open_cuts, summary.publishing) == (1, 3)
        assert summary.scanned == {"": Ranges((Range(0, 3),))}
        assert summary.last_published_at == clock.now - 5

    def test_a_summary_counts_deliveries_by_state(self, ledger: SqlLedger, clock: Clock) -> None:
        deliveries = [publish(ledger, one) for one in plan(ledger, *[cut(n, n + 1) for n in range(4)])]
        move(ledger, deliveries[0], DeliveryState.CLOSED, arrived=3)
        clock.now += 5
        move(ledger, deliveries[1], DeliveryState.CLOSED, arrived=2, refused={7: 1})
        clock.now += 5
        move(ledger, deliveries[2], DeliveryState.SENDING)
        (arthur,) = ledger.reports.summary("flights")[0].destinations
        assert arthur.destination == "arthur"
        assert arthur.deliveries == {DeliveryState.CLOSED: 2, DeliveryState.SENDING: 1, DeliveryState.TODO: 1}
        assert arthur.rows == {DeliveryState.CLOSED: 6, DeliveryState.SENDING: 3, DeliveryState.TODO: 3}
        assert (arthur.arrived, arthur.refused) == (5, 1)
        assert arthur.last_closed_at == clock.now - 5

    def test_a_summary_names_what_caps_the_mark_and_what_is_open_besides(self, ledger: SqlLedger) -> None:
        cuts = plan(
            ledger,
            cut(0, 10),
            cut(30, 40),
            cut(9, 20),  # positions are numbers: 9 is before 30
            cut(5, 8, lane="topic/1"),
            cut(0, 5, LOOKBACK),
            cut(-50, 0, BACKFILL),
        )
        deliveries = [publish(ledger, one) for one in cuts]
        move(ledger, deliveries[0], DeliveryState.CLOSED)
        move(ledger, deliveries[2], DeliveryState.HELD)
        move(ledger, deliveries[5], DeliveryState.CLOSED)
        (arthur,) = ledger.reports.summary("flights")[0].destinations
        assert arthur.oldest == {"": 9, "topic/1": 5}
        assert [(one.sequence, one.kind, one.range) for one in arthur.others] == [(5, LOOKBACK, Range(0, 5))]

    def test_a_summary_of_a_job_that_never_ran_is_empty(self, ledger: SqlLedger) -> None:
        assert ledger.reports.summary("trains") == ()
        (summary,) = ledger.reports.summary("flights")
        assert (summary.last_run_at, summary.slices, summary.rows, summary.destinations) == (None, 0, 0, ())

    def test_a_run_that_finds_nothing_is_still_seen(self, ledger: SqlLedger, clock: Clock) -> None:
        plan(ledger, cut(0, 10))
        assert ledger.reports.summary("flights")[0].last_run_at == clock.now
        clock.now += 10
        ledger.reports.ran(stream_of(ledger))
        assert ledger.reports.summary("flights")[0].last_run_at == clock.now

    def test_rejects_name_their_cut_and_their_reasons_newest_first(self, ledger: SqlLedger, clock: Clock) -> None:
        one, two, three, four = plan(ledger, *[cut(n, n + 1) for n in range(4)])
        publish(ledger, one, rejected={"no id": 2, "late": 1})
        publish(ledger, two)
        tally = Tally(scanned=1, rejected={"no id": 1})
        ledger.slices.empty(lease_cut(ledger, three), stream_of(ledger), three, tally)
        begin(ledger, four, rejected={"no id": 9})
        found = ledger.reports.rejects(stream_of(ledger))
        assert [(each.cut, each.range, each.sequence, each.reasons, each.at) for each in found] == [
            (three.id, Range(2, 3), None, {"no id": 1}, clock.now),
            (one.id, Range(0, 1), 1, {"late": 1, "no id": 2}, clock.now),
        ]
        assert [each.cut for each in ledger.reports.rejects(stream_of(ledger), limit=1)] == [three.id]

    def test_the_newest_slices_are_listed_with_their_states(self, ledger: SqlLedger, clock: Clock) -> None:
        one, two, three = plan(ledger, cut(0, 10), cut(10, 20, BACKFILL), cut(20, 30))
        publish(ledger, one)
        publish(ledger, two, to=["arthur", "arize"], held="too many rejects")
        begin(ledger, three, part(0, {5: 1}))
        newest, oldest = ledger.reports.slices(stream_of(ledger))
        assert (newest.sequence, newest.kind, newest.range, newest.rows, newest.size) == (
            2,
            BACKFILL,
            Range(10, 20),
            3,
            300,
        )
        assert newest.states == {"arthur": DeliveryState.HELD, "arize": DeliveryState.HELD}
        assert (newest.held, newest.at) == ("too many rejects", clock.now)
        assert oldest.states == {"arthur": DeliveryState.TODO}
        assert ledger.reports.slices(stream_of(ledger), limit=1) == (newest,)

    def test_the_log_resolves_a_time_to_the_greatest_cursor_seen_by_then(self, ledger: SqlLedger) -> None:
        stream = stream_of(ledger)
        for at, highest in ((100.0, 5), (200.0, 9), (300.0, 9), (400.0, 10**25), (500.0, 3)):
            ledger.reports.seen(stream, at, highest)
        answers = [ledger.reports.highest_seen(stream, before) for before in (99, 100, 199.9, 350, 400, 600)]
        assert answers == [None, 5, 5, 9, 10**25, 10**25]

    def test_the_log_outlives_a_clock_that_was_set_back(self, ledger: SqlLedger) -> None:
        stream = stream_of(ledger)
        for at, highest in ((100.0, 5), (90.0, 7)):
            ledger.reports.seen(stream, at, highest)
        assert [ledger.reports.highest_seen(stream, before) for before in (95, 100)] == [7, 7]

    def test_the_audit_keeps_what_somebody_decided(self, ledger: SqlLedger) -> None:
        ledger.reports.record("flights", who="ada", what="skipped slice 3", old="held", new="skipped", why="tests")
        ledger.reports.record("trains", who="bob", what="x", old="", new="", why="")
        (entry,) = ledger.reports.audit("flights")
        assert (entry.who, entry.what, entry.why) == ("ada", "skipped slice 3", "tests")

    # --------------------------------------------------------------------------------------------- crashes

    @pytest.mark.parametrize(
        ("step", "kept"),
        {
            "stream": "trains(ledger).id == 1",
            "cuts": "ledger.plans.asked(trains(ledger), 'run 1') is not None",
            "lease": "ledger.leases.take('cut', 1, 'x', 1).fence == 2",
            "empty": "ledger.plans.coverage(trains(ledger)).scanned",
            "begun": "ledger.slices.publishing(trains(ledger)).sequence == 1",
            "withdrawn": "ledger.slices.publishing(trains(ledger)) is None and len(cuts(ledger)) == 1",
            "again": "ledger.slices.publishing(trains(ledger)).sequence == 2",
            "delivery": "ledger.deliveries.open(trains(ledger), 'arthur')[0].state == 'todo'",
            "send": "ledger.deliveries.contents(of(ledger))[1][0].state == 'intent'",
            "answered": "ledger.deliveries.contents(of(ledger))[1][0].state == 'accepted'",
            "settled": "of(ledger).state == 'sent'",
            "logged": "ledger.reports.highest_seen(trains(ledger), 1.0) == 5",
        }.items(),
    )
    def test_what_a_call_wrote_is_there_after_a_kill_right_behind_it(self, url: str, step: str, kept: str) -> None:
        script = f"""
        ledger = open_ledger(url)
        def then(name, value=None):
            if name == {step!r}:
                die()
            return value
        kind = ScanKind.INCREMENTAL
        stream = then("stream", ledger.plans.stream("trains", StreamName.INFERENCES, {{"cursor": "at"}}))
        asked = [Cut(0, kind, Range(0, 5)), Cut(0, kind, Range(5, 9))]
        cuts = then("cuts", ledger.plans.write(stream, Request("run 1", kind), asked, 0))
        lease = then("lease", ledger.leases.take("cut", cuts[0].id, "me", 1e9))
        then("empty", ledger.slices.empty(lease, stream, cuts[0], Tally()))
        lease = ledger.leases.take("cut", cuts[1].id, "me", 1e9)
        part = Part(0, "{{sequence}}", 1, 1, "", 0, 1, {{0: 1}})
        draft = Slice(0, cuts[1].id, kind, cuts[1].range, (part,), Tally(1, 1))
        then("begun", ledger.slices.begin(lease, stream, draft, 0, {{}}))
        then("withdrawn", ledger.slices.withdraw(stream, 1))
        begun = then("again", ledger.slices.begin(lease, stream, draft, 0, {{}}))
        (delivery,) = then("delivery", ledger.slices.finish(stream, begun, ["arthur"]))
        lease = ledger.leases.take("delivery", delivery.id, "me", 1e9)
        send = then("send", ledger.deliveries.intend(lease, delivery, 0, SendForm.FILE, 1))
        then("answered", ledger.deliveries.answer(lease, send, SendState.ACCEPTED, ""))
        then("settled", ledger.deliveries.settle(lease, delivery, DeliveryState.SENT))
        then("logged", ledger.reports.seen(stream, 1.0, 5))
        answer("not killed")
        """
        with process(script, url) as running:
            assert running.communicate(timeout=60)[0] == ""
            assert running.returncode == -9

        def trains(ledger: SqlLedger) -> Stream:
            return ledger.plans.stream("trains", StreamName.INFERENCES, {"cursor": "at"})

        with open_ledger(url, clock=lambda: 2e9 + 1e9) as ledger:
            names = {
                "ledger": ledger,
                "trains": trains,
                "cuts": lambda ledger: ledger.plans.open_cuts(trains(ledger)),
                "of": lambda ledger: ledger.deliveries.open(trains(ledger), "arthur")[0],
            }
            assert eval(kept, names)

    def test_a_kill_at_any_moment_leaves_whole_transactions(self, url: str) -> None:
        script = """
        with open_ledger(url) as ledger:
            stream = ledger.plans.stream("flights", StreamName.INFERENCES, {})
            answer("at work")
            kind, at = ScanKind.INCREMENTAL, stream.planned
            while True:
                (cut,) = ledger.plans.write(stream, Request(f"{at}", kind), [Cut(0, kind, Range(at, at + 1))], at)
                lease = ledger.leases.take("cut", cut.id, this_process(), 60)
                part = Part(0, "{sequence}", 1, 1, "", 0, 1, {0: 1})
                draft = Slice(0, cut.id, kind, cut.range, (part,), Tally(1, 1))
                version = ledger.slices.published(stream, None).version
                ledger.slices.finish(stream, ledger.slices.begin(lease, stream, draft, version, {}), ["a", "b"])
                at += 1
        """
        for delay in (0.05, 0.11, 0.17):
            with process(script, url) as running:
                assert running.stdout is not None
                running.stdout.readline()
                with suppress(subprocess.TimeoutExpired):
                    running.wait(delay)
                running.kill()
                running.wait()
            with open_ledger(url) as ledger:
                stream = stream_of(ledger)
                begun = ledger.slices.publishing(stream)
                if begun is not None:
                    ledger.slices.finish(stream, begun, ["a", "b"])
                for one in ledger.plans.open_cuts(stream):
                    lease = ledger.leases.take("cut", one.id, this_process(), 60)
                    ledger.slices.empty(lease, stream, one, Tally())
                coverage = ledger.plans.coverage(stream)
                assert coverage.planned == {}
                assert coverage.scanned == {"": Ranges((Range(0, stream_of(ledger).planned),))}
                published = ledger.slices.published(stream, None).parts
                for destination in ("a", "b"):
                    opened = ledger.deliveries.open(stream, destination)
                    assert [one.sequence for one in opened] == [ref.sequence for ref in published]

    # --------------------------------------------------------------------------------------- interleavings

    def test_any_interleaving_of_workers_keeps_the_promises(self, new_url: NewUrl) -> None:
        class OnNewLedgers(Workers):
            def __init__(self) -> None:
                super().__init__(new_url())

        run_state_machine_as_test(
            OnNewLedgers,
            settings=settings(
                max_examples=30,
                stateful_step_count=50,
                deadline=None,
                # Each step of an example costs a transaction: to make a failing one smaller takes longer than a
                # test may.
                phases=[Phase.explicit, Phase.reuse, Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )


# ------------------------------------------------------------------------------------------ the state machine

OPEN = {"todo", "sending", "sent", "unknown"}
ALLOWED: dict[str, set[str]] = {
    **{state: {*OPEN, "held", "closed"} for state in OPEN},
    "held": {"todo"},
    "closed": set(),
}


@dataclass
class Held:
    """What the machine expects of a lease's row."""

    fence: int = 0
    owner: str | None = None
    until: float = 0.0


class Workers(RuleBasedStateMachine):
    """Three workers on two connections, each with whatever it read last, however old: the ledger has to tell."""

    WORKERS = st.integers(0, 2)

    def __init__(self, url: str) -> None:
        super().__init__()
        self.clock = Clock()
        self.ledgers = [open_ledger(url, clock=self.clock) for _ in range(2)]
        self.stream = self.ledgers[0].plans.stream("flights", StreamName.INFERENCES, {})
        self.rows: dict[tuple[str, int], Held] = {}
        self.leases: list[Lease] = []
        self.cuts: dict[int, Cut] = {}
        self.states: dict[int, CutState] = {}
        self.planned = self.published = self.last = 0
        self.read_planned, self.read_published = [0] * 3, [0] * 3
        self.begun: dict[int, tuple[Slice, str]] = {}
        self.scanned = Ranges()
        self.deliveries: dict[int, Delivery] = {}
        self.seen_states: dict[int, str] = {}
        self.frontier = 0
        self.write(0, 3, INCREMENTAL)
        first = min(self.cuts.values(), key=lambda one: one.id)
        self.taken(0, "cut", first.id, waits=False)
        self.started(0, self.leases[-1], first, 2, held=None, at_once=True)

    def teardown(self) -> None:
        for ledger in self.ledgers:
            ledger.close()

    def of(self, worker: int) -> SqlLedger:
        return self.ledgers[worker % 2]

    def expect(self, refusals: Sequence[type[Exception]], call: Callable[[], Any]) -> Any:
        """The call's value, where no refusal is due; None where the first due one was raised."""
        if not refusals:
            return call()
        with pytest.raises(refusals[0]) as raised:
            call()
        assert raised.type is refusals[0]
        return None

    def lost(self, lease: Lease, kind: str, ref: int) -> list[type[Exception]]:
        row = self.rows.get((kind, ref), Held())
        mine = (lease.kind, lease.ref) == (kind, ref) and (row.fence, row.owner) == (lease.fence, lease.owner)
        return [] if mine else [LeaseLost]

    def some_lease(self, worker: int, data: st.DataObject, kind: str, refs: Set[int]) -> Lease:
        """Mostly one that is good for one of `refs`, taken over if need be; now and then any, however old."""
        usual: int = data.draw(st.integers(0, 3))
        if self.leases and not (usual and refs):
            return data.draw(st.sampled_from(self.leases))
        good = [
            one for one in self.leases if one.kind == kind and one.ref in refs and not self.lost(one, kind, one.ref)
        ]
        if not good:
            self.taken(worker, kind, data.draw(st.sampled_from(sorted(refs))), waits=True)
        return data.draw(st.sampled_from(good)) if good else self.leases[-1]

    def planned_cuts(self) -> set[int]:
        return {one for one, state in self.states.items() if state is CutState.PLANNED}

    # ------------------------------------------------------------------------------------------------ rules

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(worker=WORKERS)
    def read(self, worker: int) -> None:
        self.read_planned[worker] = self.of(worker).plans.coverage(self.stream).version
        self.read_published[worker] = self.of(worker).slices.published(self.stream, None).version
        assert (self.read_planned[worker], self.read_published[worker]) == (self.planned, self.published)

    @precondition(lambda self: len(self.planned_cuts()) < 4)
    @rule(worker=WORKERS, number=st.integers(1, 3), kind=st.sampled_from([INCREMENTAL, LOOKBACK]))
    def write(self, worker: int, number: int, kind: ScanKind) -> None:
        start = 10 * len(self.cuts) if kind is INCREMENTAL else 0
        asked = [cut(start + 10 * n, start + 10 * n + 10, kind) for n in range(number)]
        version = self.read_planned[worker]
        request = Request(f"{worker} {self.clock.now} {len(self.cuts)} {version}", kind)
        if self.of(worker).plans.asked(self.stream, request.key) is not None:
            return
        written = self.expect(
            [] if version == self.planned else [Outdated],
            lambda: self.of(worker).plans.write(self.stream, request, asked, version),
        )
        if written is not None:
            self.planned += 1
            self.cuts.update({one.id: one for one in written})
            self.states.update({one.id: CutState.PLANNED for one in written})

    @rule(worker=WORKERS, data=st.data(), kind=st.sampled_from(["cut", "cut", "delivery"]), waits=st.booleans())
    def take(self, worker: int, data: st.DataObject, kind: str, waits: bool) -> None:
        refs = set(self.cuts if kind == "cut" else self.deliveries)
        if not refs:
            return
        useful = refs & (self.planned_cuts() if kind == "cut" else refs)
        usual: int = data.draw(st.integers(0, 3))
        self.taken(
            worker, kind, data.draw(st.sampled_from(sorted(useful if useful and usual else refs))), waits=waits
        )

    def taken(self, worker: int, kind: str, ref: int, *, waits: bool) -> None:
        row = self.rows.setdefault((kind, ref), Held())
        if waits:
            self.clock.now = max(self.clock.now, row.until)
        held = row.owner is not None and self.clock.now < row.until
        lease = self.expect(
            [HeldElsewhere] if held else [],
            lambda: self.of(worker).leases.take(kind, ref, f"worker {worker}", 60),
        )
        if lease is not None:
            assert lease.fence > row.fence
            self.rows[kind, ref] = Held(lease.fence, lease.owner, lease.until)
            self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(worker=WORKERS, data=st.data(), renew=st.booleans())
    def renew_or_release(self, worker: int, data: st.DataObject, renew: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        row, lost = self.rows[lease.kind, lease.ref], self.lost(lease, lease.kind, lease.ref)
        if renew:
            renewed = self.expect(lost, lambda: self.of(worker).leases.renew(lease, 60))
            if renewed is not None:
                row.until = renewed.until
        else:
            self.of(worker).leases.release(lease)
            if not lost:
                row.owner = None

    @precondition(lambda self: self.leases or self.planned_cuts())
    @rule(worker=WORKERS, data=st.data(), rows=st.integers(0, 2), held=st.booleans(), at_once=st.booleans())
    def begin(self, worker: int, data: st.DataObject, rows: int, held: bool, at_once: bool) -> None:
        lease = self.some_lease(worker, data, "cut", self.planned_cuts())
        of = self.cuts[lease.ref if lease.kind == "cut" else data.draw(st.sampled_from(sorted(self.cuts)))]
        self.started(worker, lease, of, rows, held="rejects" if held else None, at_once=at_once)

    def started(self, worker: int, lease: Lease, of: Cut, rows: int, *, held: str | None, at_once: bool) -> None:
        asked = draft(of, *([part(0, {5: rows})] if rows else []), held=held)
        version = self.read_published[worker]
        refusals = self.lost(lease, "cut", of.id)
        if any(state == "publishing" for _, state in self.begun.values()):
            refusals = [*refusals, HeldElsewhere]
        if version != self.published or self.states[of.id] is not CutState.PLANNED:
            refusals = [*refusals, Outdated]
        begun = self.expect(
            refusals, lambda: self.of(worker).slices.begin(lease, self.stream, asked, version, COLUMNS)
        )
        if begun is not None:
            assert begun.sequence == self.last + 1
            self.last = begun.sequence
            self.begun[begun.sequence] = (begun, "publishing")
            self.states[of.id] = CutState.PUBLISHING
            if at_once:
                self.finished(worker, begun.sequence)

    @precondition(lambda self: self.begun)
    @rule(worker=WORKERS, data=st.data(), newest=st.booleans())
    def finish(self, worker: int, data: st.DataObject, newest: bool) -> None:
        self.finished(worker, max(self.begun) if newest else data.draw(st.sampled_from(sorted(self.begun))))

    def finished(self, worker: int, sequence: int) -> None:
        begun, state = self.begun[sequence]
        created = self.expect(
            [Outdated] if state == "withdrawn" else [],
            lambda: self.of(worker).slices.finish(self.stream, begun, ["arthur"]),
        )
        if created is not None and state == "publishing":
            self.begun[sequence] = (begun, "published")
            self.published = sequence
            self.states[begun.cut] = CutState.DONE
            self.scanned = self.scanned.union([begun.range])
            self.deliveries[created[0].id] = created[0]

    @precondition(lambda self: self.begun)
    @rule(worker=WORKERS, data=st.data(), newest=st.booleans())
    def withdraw(self, worker: int, data: st.DataObject, newest: bool) -> None:
        sequence = max(self.begun) if newest else data.draw(st.sampled_from(sorted(self.begun)))
        begun, state = self.begun[sequence]
        self.expect(
            [Outdated] if state == "published" else [],
            lambda: self.of(worker).slices.withdraw(self.stream, sequence),
        )
        if state == "publishing":
            self.begun[sequence] = (begun, "withdrawn")
            self.states[begun.cut] = CutState.PLANNED

    @precondition(lambda self: self.leases or self.planned_cuts())
    @rule(worker=WORKERS, data=st.data())
    def empty(self, worker: int, data: st.DataObject) -> None:
        lease = self.some_lease(worker, data, "cut", self.planned_cuts())
        of = self.cuts[lease.ref if lease.kind == "cut" else data.draw(st.sampled_from(sorted(self.cuts)))]
        refusals = self.lost(lease, "cut", of.id)
        repeated = self.states[of.id] is CutState.DONE and all(
            begun.cut != of.id or state == "withdrawn" for begun, state in self.begun.values()
        )
        if self.states[of.id] is not CutState.PLANNED and not repeated:
            refusals = [*refusals, Outdated]
        self.expect(refusals, lambda: self.of(worker).slices.empty(lease, self.stream, of, Tally()))
        if not refusals:
            self.states[of.id] = CutState.DONE
            self.scanned = self.scanned.union([of.range])

    @precondition(lambda self: self.deliveries)
    @rule(worker=WORKERS, data=st.data(), states=st.lists(st.sampled_from(DeliveryState), min_size=1, max_size=3))
    def deliver(self, worker: int, data: st.DataObject, states: list[DeliveryState]) -> None:
        lease = self.some_lease(worker, data, "delivery", set(self.deliveries))
        refs = [lease.ref] if lease.kind == "delivery" else sorted(self.deliveries)
        ref = data.draw(st.sampled_from(refs))
        deliveries = self.of(worker).deliveries
        for state in states:
            of = self.deliveries[ref]
            refusals = self.lost(lease, "delivery", ref)
            if of.state.value not in OPEN and state is not of.state:
                refusals = [*refusals, Outdated]
            if state is DeliveryState.SENDING:
                self.expect(refusals, partial(deliveries.intend, lease, of, 0, SendForm.FILE, of.rows))
            else:
                self.expect(refusals, partial(deliveries.settle, lease, of, state))
            if not refusals:
                self.deliveries[ref] = replace(of, state=state)

    @precondition(lambda self: any(one.state is DeliveryState.HELD for one in self.deliveries.values()))
    @rule(worker=WORKERS)
    def release(self, worker: int) -> None:
        of = next(one for one in self.deliveries.values() if one.state is DeliveryState.HELD)
        (freed,) = self.of(worker).deliveries.release(self.stream, of.sequence, who="ada", why="fine")
        self.deliveries[of.id] = freed

    # ------------------------------------------------------------------------------------------- invariants

    @invariant()
    def what_is_scanned_never_shrinks_and_the_frontier_never_moves_back(self) -> None:
        coverage = self.ledgers[0].plans.coverage(self.stream)
        scanned = coverage.scanned.get("", Ranges())
        assert scanned == self.scanned
        assert scanned.unbroken_from(0) >= self.frontier
        self.frontier = scanned.unbroken_from(0)
        still = [self.cuts[one].range for one, state in self.states.items() if state is not CutState.DONE]
        assert coverage.planned.get("", Ranges()) == Ranges.of(still)

    @invariant()
    def at_most_one_slice_is_being_published(self) -> None:
        expected = [begun for begun, state in self.begun.values() if state == "publishing"]
        found = self.ledgers[1].slices.publishing(self.stream)
        assert [found] == expected if expected else found is None
        assert self.ledgers[1].plans.stream("flights", StreamName.INFERENCES, {}).published == self.published

    @invariant()
    def deliveries_only_move_where_they_may(self) -> None:
        listed = self.ledgers[0].reports.slices(self.stream, limit=1_000)
        assert [one.sequence for one in listed] == [
            n for n in sorted(self.begun)[::-1] if self.begun[n][1] == "published"
        ]
        for one in listed:
            state, before = one.states["arthur"].value, self.seen_states.get(one.sequence)
            assert before is None or state == before or state in ALLOWED[before]
            self.seen_states[one.sequence] = state
        states = {one.sequence: one.state for one in self.deliveries.values()}
        assert {one.sequence: one.states["arthur"] for one in listed} == states
