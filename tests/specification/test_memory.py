"""Freed memory goes back to the system every so many cuts, also of several runs of one process."""

from __future__ import annotations

import itertools

import pytest
from tests.world import World, rows

from tidepost import memory


def test_freed_memory_goes_back_every_so_many_cuts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(memory, "_TRIM", given.append)
    monkeypatch.setattr(memory, "_cuts", itertools.count(1))
    world.define(limits={"cut_rows": 1})
    world.log("first", rows(memory.EVERY - 1))
    assert world.run().cuts == memory.EVERY - 1
    assert not given
    world.log("second", rows(1, first=memory.EVERY - 1))
    assert world.run().cuts >= 1
    assert given == [0]


def test_a_library_that_gives_nothing_back_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_TRIM", None)
    for _ in range(memory.EVERY):
        memory.give_back()
