"""What a run asks, by Airflow's own account of it: modes, ranges, and the key of its request."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from tests.airflow.running import Ran

from tidepost.airflow.asked import Asked, Mode, asked
from tidepost.cursor import CursorKind, CursorType, to_nanoseconds
from tidepost.errors import Misconfigured
from tidepost.ranges import Range

DAY = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC)
FROM, TO = "2024-05-01T00:00:00Z", "2024-05-02T00:00:00Z"
TIMES = CursorKind(CursorType.TIMESTAMP)


@pytest.fixture
def ask(run_dag: Callable[..., Ran], request: pytest.FixtureRequest) -> Callable[..., Asked]:
    """Runs a DAG whose only task says what was asked, in two tries, which must not differ."""
    from airflow.sdk import DAG, task  # noqa: PLC0415 - the fixture makes its settings first

    tries: list[Asked] = []
    with DAG(request.node.name, schedule=None, params={"mode": "incremental", "from": None, "to": None}) as dag:

        @task(retries=1, retry_delay=timedelta(0))
        def told(**context: Any) -> None:
            tries.append(asked(context))
            assert len(tries) == 2

        told()

    def run(**how: Any) -> Asked:
        tries.clear()
        assert run_dag(dag, **how).state == "success"
        first, second = tries
        assert first == second
        return first

    return run


def test_a_scheduled_run_asks_for_what_is_new_and_the_same_when_it_is_cleared(ask: Callable[..., Asked]) -> None:
    first = ask(run_type="scheduled", interval=DAY, run_id="one")
    assert (first.mode, first.start, first.end) == (Mode.INCREMENTAL, None, None)
    assert first.key.startswith("test_a_scheduled_run_asks_for_what_is_new_and_the_same_when_it_is_cleared/one/")
    assert ask(run_type="scheduled", interval=DAY, run_id="one").key == first.key
    taken_over = ask(run_type="backfill", interval=DAY, run_id="one")
    assert (taken_over.mode, taken_over.start, taken_over.end) == (Mode.RANGE, FROM, TO)
    assert taken_over.key != first.key, "reprocessed by a backfill, it is another request"


def test_a_backfill_asks_for_its_interval_and_anew_when_it_is_reprocessed(ask: Callable[..., Asked]) -> None:
    first = ask(run_type="backfill", interval=DAY, run_id="one")
    assert (first.mode, first.start, first.end) == (Mode.RANGE, FROM, TO)
    assert ask(run_type="backfill", interval=DAY, run_id="one").key != first.key


def test_a_run_by_hand_asks_what_its_form_says(ask: Callable[..., Asked]) -> None:
    found = ask(conf={"mode": "range", "from": FROM, "to": TO}, run_id="one")
    assert (found.mode, found.start, found.end, found.run_type) == (Mode.RANGE, FROM, TO, "manual")
    assert ask(conf={"mode": "range", "from": FROM, "to": TO}, run_id="two").key != found.key


# ------------------------------------------------------------------------------------------- without Airflow


def given(run_type: str = "manual", *, run_id: str = "one", clear: int = 0, **params: Any) -> dict[str, Any]:
    """A context as Airflow gives it, as far as it is read."""
    interval = DAY if run_type in ("backfill", "scheduled") else (None, None)
    run = SimpleNamespace(
        dag_id="upload_flights",
        run_id=run_id,
        run_type=run_type,
        clear_number=clear,
        conf=params,
        data_interval_start=interval[0],
        data_interval_end=interval[1],
    )
    defaults = {"mode": "incremental", "from": None, "to": None, "by_event": False, "dry_run": False}
    return {"dag_run": run, "params": {**defaults, **params}}


def between(start: str, end: str) -> dict[str, Any]:
    """What the form says of a range."""
    return {"mode": "range", "from": start, "to": end}


def test_the_key_is_of_the_run_and_what_it_asks() -> None:
    key = asked(given()).key
    assert key == asked(given(clear=1)).key
    assert key != asked(given(run_id="two")).key
    assert key != asked(given(mode="reconcile")).key
    assert asked(given("backfill")).key != asked(given("backfill", clear=1)).key


def test_a_dry_run_is_asked_for() -> None:
    assert asked(given(dry_run=True)).dry_run
    assert not asked(given()).dry_run


def test_a_backfill_may_reconcile_each_interval() -> None:
    found = asked(given("backfill", mode="reconcile"))
    assert (found.mode, found.start, found.end) == (Mode.RECONCILE, FROM, TO)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"mode": "range"}, "from and to are missing"),
        ({"mode": "range", "from": FROM}, "to is missing"),
        ({"mode": "reconcile", "to": TO}, "from is missing"),
        ({"mode": "range", "from": TO, "to": FROM}, "is empty"),
        ({"mode": "range", "from": FROM, "to": FROM}, "is empty"),
        ({"from": FROM, "to": TO}, 'do not go with mode "incremental"'),
        ({"mode": "range", "from": FROM, "to": TO, "by_event": True}, '"by event" does not go with mode "range"'),
        ({"form": FROM}, 'did you mean "from"?'),
        ({"dryrun": True}, 'did you mean "dry_run"?'),
    ],
    ids=json.dumps,
)
def test_what_a_form_cannot_refuse_is_refused_at_once(params: dict[str, Any], said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        asked(given(**params))
    assert said in caught.value.message
    assert caught.value.safe


def test_other_keys_of_a_run_are_let_be() -> None:
    assert asked(given(openlineage={"parent": "x"})).mode is Mode.INCREMENTAL


def test_a_range_is_of_the_cursor() -> None:
    found = asked(given(**between(FROM, TO)))
    assert found.window(TIMES) == Range(to_nanoseconds(DAY[0]), to_nanoseconds(DAY[1]))
    numbers = asked(given(**between("5", "7")))
    assert numbers.window(CursorKind(CursorType.INTEGER)) == Range(5, 7)
    assert asked(given()).window(TIMES) is None


def test_an_interval_of_a_day_is_that_day_of_a_cursor_that_is_a_date() -> None:
    dates = CursorKind(CursorType.DATE)
    assert asked(given("backfill")).window(dates) == Range(dates.parse("2024-05-01"), dates.parse("2024-05-02"))


def test_an_interval_shorter_than_a_day_is_the_day_that_it_lies_in() -> None:
    dates = CursorKind(CursorType.DATE)
    hour = Asked(Mode.RANGE, "2024-05-01T05:00:00Z", "2024-05-01T06:00:00Z", False, False, "key", "backfill")
    assert hour.window(dates) == Range(dates.parse("2024-05-01"), dates.parse("2024-05-02"))


def test_a_backfill_of_a_growing_id_is_refused_with_the_way_that_works() -> None:
    with pytest.raises(Misconfigured, match="the cursor is of type integer") as caught:
        asked(given("backfill")).window(CursorKind(CursorType.INTEGER))
    assert "range" in caught.value.hint
