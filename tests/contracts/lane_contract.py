"""What every source of lanes keeps, beside `Source`. A subclass says how rows get into one: `holding`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest

from tidepost.cursor import CursorKind, CursorType
from tidepost.engine import Engine
from tidepost.errors import Misconfigured
from tidepost.ports import CURSOR, Extent, OfLanes, Source, lane_of
from tidepost.ranges import Range


@dataclass(frozen=True)
class Lanes:
    """A source of lanes, of column `id`: the row at position `n` of lane number `l` is `l-n`.

    names: of its lanes, in order
    drop:  lets go what lies before a position of the lane of a number
    """

    source: Source
    names: Sequence[str]
    drop: Callable[[int, int], None]

    @property
    def of_lanes(self) -> OfLanes:
        assert isinstance(self.source, OfLanes)
        return self.source


Holding = Callable[..., Lanes]
"""`holding(5, 0, 3)`: three lanes with so many rows, from position 0 on."""


def read(source: Source, engine: Engine, *windows: Range) -> list[tuple[str, int]]:
    """(id, position) of what a lane gives of some ranges, in its order."""
    found: list[tuple[str, int]] = []
    with engine.connect() as connection:
        for window in windows:
            with source.read(connection, window, ["id"]) as relation:
                sql = f'SELECT id, "{CURSOR}" FROM ({relation.sql})'
                found += connection.execute(sql, dict(relation.values)).fetchall()
    return found


class LaneContract:
    """The port `OfLanes`, and `Source` as far as a lane is one."""

    @pytest.fixture
    def holding(self) -> Holding:
        raise NotImplementedError

    def test_lanes_are_told_in_order_with_what_they_hold(self, holding: Holding) -> None:
        lanes = holding(5, 0, 3)
        assert list(lanes.of_lanes.lanes().items()) == list(
            zip(lanes.names, (Extent(0, 5), Extent(0, 0), Extent(0, 3)), strict=True)
        )

    def test_a_lane_has_the_columns_and_the_cursor_of_the_whole(self, holding: Holding) -> None:
        lanes = holding(1)
        for one in (lanes.source, lane_of(lanes.source, lanes.names[0])):
            assert one.columns() == {"id": "VARCHAR"}
            assert one.cursor() == CursorKind(CursorType.INTEGER)

    def test_rows_have_their_positions_and_come_in_order(self, holding: Holding, engine: Engine) -> None:
        lanes = holding(20, 30)
        for number, (name, count) in enumerate(zip(lanes.names, (20, 30), strict=True)):
            lane = lane_of(lanes.source, name)
            assert read(lane, engine, Range(0, count)) == [(f"{number}-{n}", n) for n in range(count)]
            ends = [0, 1, 7, 8, count]
            assert read(lane, engine, *(Range(low, high) for low, high in pairwise(ends))) == [
                (f"{number}-{n}", n) for n in range(count)
            ], "ranges that meet hold each row once"

    def test_a_survey_counts_what_a_range_holds(self, holding: Holding) -> None:
        lanes = holding(20)
        lane = lane_of(lanes.source, lanes.names[0])
        for window, highest, rows in ((Range(0, 100), 19, 20), (Range(3, 7), 6, 4), (Range(20, 30), None, 0)):
            found = lane.survey(window)
            assert (found.highest, sum(count for _, count in found.buckets)) == (highest, rows)

    def test_a_range_alone_names_no_rows(self, holding: Holding, engine: Engine) -> None:
        lanes = holding(3)
        with pytest.raises(Misconfigured):
            read(lanes.source, engine, Range(0, 3))
        with pytest.raises(Misconfigured):
            lanes.source.survey(Range(0, 3))

    def test_what_is_gone_is_missed_unless_it_was_read_or_was_never_there(
        self, holding: Holding, engine: Engine
    ) -> None:
        lanes = holding(10)
        (name,) = lanes.names
        lanes.drop(0, 4)
        assert lanes.of_lanes.lanes() == {name: Extent(4, 10)}
        with pytest.raises(Misconfigured, match="1 to 3") as raised:
            read(lane_of(lanes.source, name), engine, Range(1, 8))
        assert "gone before they were read" in str(raised.value)
        rest = [(f"0-{n}", n) for n in range(4, 8)]
        assert read(lane_of(lanes.source, name, again=True), engine, Range(1, 8)) == rest
        assert read(lane_of(lanes.source, name, empty=True), engine, Range(0, 4)) == []
        assert read(lane_of(lanes.source, name), engine, Range(4, 8)) == rest

    def test_a_process_may_take_some_of_the_lanes(self, holding: Holding) -> None:
        lanes = holding(3, 4)
        first, second = lanes.names
        assert lanes.of_lanes.holds(first)
        with lanes.of_lanes.share([1]) as source:
            mine = Lanes(source, [second], lanes.drop).of_lanes
            assert [mine.holds(name) for name in lanes.names] == [False, True]
            assert mine.lanes() == {second: Extent(0, 4)}
        with pytest.raises(Misconfigured), lanes.of_lanes.share([2]):
            pass

    def test_how_far_lanes_have_arrived_may_be_told_again_and_stepping_back(self, holding: Holding) -> None:
        lanes = holding(3)
        for mark in (2, 2, 1):
            lanes.of_lanes.mirror({lanes.names[0]: mark})
        assert lanes.of_lanes.lanes() == {lanes.names[0]: Extent(0, 3)}
