"""Queries: Arthur API v3, as its Python SDK 3.33.3 speaks it and its query guide documents it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tidepost.sandbox import SandboxProcess

if TYPE_CHECKING:
    from tests.sandbox.conftest import Client

HOURS = {
    "function": "roundTimestamp",
    "alias": "hour",
    "parameters": {"property": "inference_timestamp", "time_interval": "hour"},
}
COUNT = {"function": "count"}


def compared(name: str, comparator: str, value: object = None) -> dict[str, Any]:
    """One condition of a filter."""
    return {"property": name, "comparator": comparator, "value": value}


@pytest.fixture
def filled(api: Client) -> Client:
    """Four inferences from 12:00 on, forty minutes apart; the second and the fourth have labels 0 and 1."""
    rows = [
        api.row("a", minutes=0, probability=0.1, batch_id="one"),
        api.row("b", minutes=40, probability=0.2, carrier="AA", weekend=True),
        api.row("c", minutes=80, probability=0.3, seats=None),
        api.row("d", minutes=120, probability=0.4, booked_at="2024-04-01T00:00:00.5Z"),
    ]
    api.on("POST", "/inferences", json=rows)
    api.on("PATCH", "/inferences", json=[api.label("b", 0), api.label("d", 1)])
    return api


def test_everything_is_counted(filled: Client) -> None:
    assert filled.query({"select": [COUNT]}) == [{"count": 4}]


def test_rows_are_counted_by_hour(filled: Client) -> None:
    body = {"select": [HOURS, COUNT], "group_by": [{"alias": "hour"}], "order_by": [{"property": "hour"}]}
    assert filled.query(body) == [
        {"hour": "2024-05-01T12:00:00.000Z", "count": 2},
        {"hour": "2024-05-01T13:00:00.000Z", "count": 1},
        {"hour": "2024-05-01T14:00:00.000Z", "count": 1},
    ]


def test_the_ids_within_a_time_range_can_be_listed(filled: Client) -> None:
    half_open = [
        compared("inference_timestamp", "gte", "2024-05-01T12:40:00Z"),
        compared("inference_timestamp", "lt", "2024-05-01T10:00:00-04:00"),
    ]
    select = [{"property": "partner_inference_id", "alias": "id"}]
    order = [{"property": "inference_timestamp", "direction": "desc"}]
    assert filled.query({"select": select, "filter": half_open, "order_by": order}) == [{"id": "c"}, {"id": "b"}]


@pytest.mark.parametrize(
    ("conditions", "ids"),
    [
        ([compared("partner_inference_id", "in", ["a", "d", "x"])], "ad"),
        ([compared("carrier", "eq", "AA")], "b"),
        ([compared("carrier", "ne", "AA"), compared("probability", "gt", 0.1)], "cd"),
        ([compared("probability", "lte", 0.2)], "ab"),
        ([compared("seats", "IsNull")], "c"),
        ([compared("booked_at", "NotNull")], "d"),
        ([compared("weekend", "eq", True)], "b"),
        ([compared("batch_id", "eq", "one")], "a"),
        ([compared("delayed", "NotNull")], "bd"),
        ([compared("ground_truth_timestamp", "IsNull")], "ac"),
        ([compared("delayed", "eq", 0)], "b"),
    ],
)
def test_every_condition_of_a_filter_holds(filled: Client, conditions: list[dict[str, Any]], ids: str) -> None:
    body = {"select": [{"property": "partner_inference_id"}], "filter": conditions}
    assert sorted(row["partner_inference_id"] for row in filled.query(body)) == list(ids)


def test_labels_are_counted_as_the_sdk_does(filled: Client) -> None:
    body = {"select": [COUNT], "from": "ground_truth", "filter": [compared("delayed", "NotNull")]}
    assert filled.query(body) == [{"count": 2}]


def test_labels_can_be_counted_by_the_hour_of_their_inference(filled: Client) -> None:
    body = {"select": [HOURS, COUNT], "from": "ground_truth", "group_by": [{"alias": "hour"}]}
    hours = {row["hour"]: row["count"] for row in filled.query(body)}
    assert hours == {"2024-05-01T12:00:00.000Z": 1, "2024-05-01T14:00:00.000Z": 1}


def test_the_other_functions(filled: Client) -> None:
    likely = {"function": "countIf", "alias": "likely", "parameters": compared("probability", "gte", 0.3)}
    first = {"function": "min", "alias": "first", "parameters": {"property": "inference_timestamp"}}
    last = {"function": "max", "alias": "last", "parameters": {"property": "probability"}}
    filtered = [compared("carrier", "eq", "UA")]
    assert filled.query({"select": [likely, first, last, COUNT], "filter": filtered}) == [
        {"likely": 2, "first": "2024-05-01T12:00:00.000Z", "last": 0.4, "count": 3}
    ]


def test_groups_may_be_ordered_by_their_count(filled: Client) -> None:
    body = {
        "select": [{"property": "carrier"}, {"function": "count", "alias": "rows"}],
        "group_by": [{"property": "carrier"}],
        "order_by": [{"property": "rows", "direction": "desc"}],
    }
    assert filled.query(body) == [{"carrier": "UA", "rows": 3}, {"carrier": "AA", "rows": 1}]


def test_every_property_can_be_selected(filled: Client) -> None:
    names = [
        "inference_id",
        "received_timestamp",
        "booked_at",
        "weekend",
        "seats",
        "delayed",
        "ground_truth_timestamp",
    ]
    body = {"select": [{"property": name} for name in names], "filter": [compared("partner_inference_id", "eq", "d")]}
    (row,) = filled.query(body)
    assert len(row.pop("inference_id")) == 36
    assert row.pop("received_timestamp").endswith("Z")
    assert row == {
        "booked_at": "2024-04-01T00:00:00.500Z",
        "weekend": None,
        "seats": 180,
        "delayed": 1,
        "ground_truth_timestamp": "2024-05-02T12:00:00.000Z",
    }


def test_kept_copies_have_inference_ids_of_their_own(sandbox: SandboxProcess, api: Client) -> None:
    sandbox.configure(on_repeat="keep")
    api.send("a", "a")
    rows = api.query({"select": [{"property": "inference_id"}]})
    assert len({row["inference_id"] for row in rows}) == 2


def test_thousands_of_ids_come_in_one_answer(sandbox: SandboxProcess, api: Client) -> None:
    api.upload(api.columns([f"{at:05}" for at in range(25_000)]))
    sandbox.wait_until_loaded()
    assert api.ids() == [f"{at:05}" for at in range(25_000)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "a query is a JSON object"),
        ({}, "select must hold at least one"),
        ({"select": [COUNT], "where": []}, "unknown key 'where'"),
        ({"select": [COUNT], "subquery": {"select": [COUNT]}}, "answers no subqueries"),
        ({"select": [COUNT], "from": "elsewhere"}, "from 'elsewhere'"),
        ({"select": [{"property": "colour"}]}, "'colour' is no property"),
        ({"select": [{"property": "carrier"}], "from": "ground_truth"}, "'carrier' is no property of ground_truth"),
        ({"select": [{"function": "median"}]}, "function 'median'"),
        ({"select": [COUNT, COUNT]}, "have one name"),
        ({"select": [{"property": "carrier"}, COUNT]}, "must be in group_by"),
        ({"select": [HOURS | {"parameters": {"property": "carrier", "time_interval": "hour"}}]}, "needs a timestamp"),
        ({"select": [HOURS | {"parameters": {"property": "booked_at", "time_interval": "blink"}}]}, "'blink'"),
        ({"select": [COUNT], "filter": [compared("carrier", "resembles", "x")]}, "comparator 'resembles'"),
        ({"select": [COUNT], "filter": [compared("probability", "gt", "x")]}, "probability must be of type FLOAT"),
        ({"select": [COUNT], "filter": [compared("booked_at", "gt", "2024-05-01T00:00:00")]}, "a time zone"),
        ({"select": [COUNT], "filter": [compared("carrier", "in", [])]}, "a list of values"),
        ({"select": [COUNT], "group_by": [{"function": "count"}]}, "cannot hold the aggregate"),
        ({"select": [COUNT], "order_by": [{"property": "count", "direction": "up"}]}, "direction 'up'"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused_and_says_why(api: Client, body: Any, message: str) -> None:
    response = api.on("POST", "/inferences/query", json=body)
    assert response.status_code == 400
    assert message in response.json()["message"]


def test_a_value_is_never_read_as_sql(filled: Client) -> None:
    name = "x' OR '1'='1"
    assert filled.query({"select": [COUNT], "filter": [compared("carrier", "eq", name)]}) == [{"count": 0}]
    assert filled.query({"select": [{"function": "count", "alias": "a\"b'c"}]}) == [{"a\"b'c": 4}]


def test_a_moment_before_1970_is_rounded_down(api: Client) -> None:
    moment = (timedelta(hours=-1.5)).total_seconds()
    assert moment < 0
    api.on("POST", "/inferences", json=[api.row("a", inference_timestamp="1969-12-31T22:30:00Z")])
    assert api.query({"select": [HOURS]}) == [{"hour": "1969-12-31T22:00:00.000Z"}]
