"""Pausing a destination by command, and what status and the record say of it."""

from __future__ import annotations

from collections.abc import Callable

from tests.cli.conftest import Ended, Shell
from tests.world import World, after, rows

Upload = Callable[..., Ended]


def test_a_pause_is_told_shown_and_ended_by_commands(world: World, tidepost: Shell, upload: Upload) -> None:
    world.log("monday", rows(60))
    upload()
    paused = tidepost.here("pause", "flights", "--destination", "arthur", "--why", "its key is renewed")
    assert "tidepost resume flights --destination arthur" in paused.out
    world.log("tuesday", rows(60, first=60, at=after(hours=6)))
    upload()
    assert world.platform_rows() == 60
    (shown,) = tidepost.here("status", "flights", "--json").document["streams"]
    (there,) = shown["destinations"]
    assert (there["open"], there["removed"], there["paused"]["why"]) == (1, False, "its key is renewed")
    assert there["paused"]["at"].startswith("20")
    assert "arthur (paused)" in tidepost.here("status").out
    assert ": its key is renewed" in tidepost.here("status", "flights").out
    resumed = tidepost.here("resume", "flights", "--destination", "arthur", "--json").document
    assert resumed == {"job": "flights", "destination": "arthur", "paused": False, "deliveries": 1}
    upload()
    assert world.everything_arrived_once(120)
    record = tidepost.here("ledger", "history", "flights").out
    assert "paused arthur" in record
    assert "its key is renewed" in record


def test_what_cannot_be_paused_or_resumed_says_what_can(world: World, tidepost: Shell, upload: Upload) -> None:
    never = tidepost.here("pause", "flights", "--destination", "arthur", code=2)
    assert "flights never ran" in never.err
    world.log("monday", rows(1))
    upload()
    unknown = tidepost.here("pause", "flights", "--destination", "arize", code=2)
    assert "It has: arthur" in unknown.err
    assert "not paused" in tidepost.here("resume", "flights", "--destination", "arthur", code=6).err
