"""A model whose inferences come in batches: each is closed once everything of it has arrived."""

from __future__ import annotations

from collections.abc import Callable

from tests.world import World, after, rows


def batches(world: World) -> dict[str, tuple[str, int | None, int]]:
    """batch id → its status, the total it was closed with, and the rows that are there."""
    return {
        one["batch_id"]: (one["status"], one["total_record_count"], one["rows"]) for one in world.stats()["batches"]
    }


def by_day(make_world: Callable[..., World]) -> World:
    world = make_world(is_batch=True)
    world.define(mapping={"batch_id": "{at:%Y-%m-%d}"})
    return world


def test_a_batch_is_closed_with_its_rows_when_the_next_one_has_begun(make_world: Callable[..., World]) -> None:
    world = by_day(make_world)
    world.now = after(days=3)
    world.log("days", [*rows(10), *rows(7, first=10, at=after(days=1))])
    assert world.run().worst() is None
    found = batches(world)
    assert found["2024-05-01"] == ("uploaded", 10, 10)
    assert found["2024-05-02"][1:] == (None, 7)


def test_a_batch_that_got_more_rows_is_closed_again(make_world: Callable[..., World]) -> None:
    world = by_day(make_world)
    world.now = after(days=3)
    world.log("days", [*rows(10), *rows(7, first=10, at=after(days=1))])
    world.run()
    world.log("late", rows(3, first=50, at=after(hours=2), logged_at=after(days=2)))
    assert world.run().worst() is None
    assert batches(world)["2024-05-01"] == ("uploaded", 13, 13)


def test_a_batch_stays_open_while_a_slice_of_it_is_held(make_world: Callable[..., World]) -> None:
    world = by_day(make_world)
    world.now = after(days=3)
    world.log("days", [*rows(10, score=None), *rows(2, first=30), *rows(7, first=10, at=after(days=1))])
    world.run()
    assert all(total is None for _, total, _ in batches(world).values())
