"""What the commands say of rows that came late."""

from __future__ import annotations

from collections.abc import Callable

from tests.cli.conftest import Ended, Shell
from tests.world import World, after, row, rows


def test_status_tells_how_many_came_late_how_late_and_when_that_is_nearly_too_late(
    world: World, tidepost: Shell, upload: Callable[..., Ended]
) -> None:
    world.define(cursor={"lookback": "10h"})
    world.log("monday", [*rows(10), row(10, after(hours=9))])
    upload()
    assert "came late" not in tidepost.here("status", "flights").out
    world.log("late", [row(11, after(hours=7))])
    assert "11 rows known" not in upload().err
    told = tidepost.here("status", "flights")
    assert "came late" in told.out
    assert "1 row, up to 2 h" in told.out
    assert "not found" not in told.out
    world.log("nearly too late", [row(12, after(minutes=30))])
    assert "rows came up to 8h31m late" in upload().err
    told = tidepost.here("status", "flights")
    assert "2 rows, up to 8 h 30 min" in told.out
    assert "later than cursor.lookback, which is 10h, are not found. Set it to 17h2m or more" in " ".join(
        told.out.split()
    )
    document = tidepost.here("status", "flights", "--json").document["streams"][0]
    assert (document["late_rows"], document["late"] > 8 * 3600) == (2, True)
