"""Labels compared: what the source holds, what was published, and which values the platform shows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.cli.conftest import NOW_TEXT, Ended, Shell
from tests.labels import LANDED, label, labels, of_labels, shown
from tests.world import World, rows

from tidepost.model import StreamName

LATER = LANDED + timedelta(hours=1)
OF_LABELS = ("flights", "--stream", "ground_truth", "--now", NOW_TEXT)


@pytest.fixture
def labelled(world: World, upload: Callable[..., Ended]) -> World:
    """Of its labels some were published, and each of the others is something else."""
    of_labels(world)
    world.define(limits={"rejects": "100%"}, destination={"loading": "1s", "poll": "1s"})
    world.log("monday", rows(4))
    labels(world, "a", [*(label(n, 1) for n in range(3)), label(3, 1, landed_at=None), label(9, 4)])
    upload()
    again = [label(0, 2, known=LATER), label(1, 1, known=LATER)]
    older = [label(2, 8, known=LANDED - timedelta(hours=1)), label(2, 5)]
    labels(world, "b", [*again, *older])
    upload()
    return world


def compared(tidepost: Shell, *more: str, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = tidepost.here("reconcile", *OF_LABELS, *more, "--json", code=code).document
    total = found["total"]
    dropped = ("duplicates", "superseded", "conflicts", "rejected", "unmatched", "orphans", "waiting", "missing")
    assert total["source"] + total["gone"] == total["published"] + sum(total[name] for name in dropped)
    at = total["at"]["arthur"]
    settled = ("arrived", "replaced", "in_flight", "held", "refused", "skipped", "lost")
    assert total["published"] == sum(at[name] for name in settled)
    return found


def not_zero(numbers: dict[str, Any]) -> dict[str, int]:
    return {name: value for name, value in numbers.items() if isinstance(value, int) and value}


def test_every_label_of_the_source_and_of_the_platform_is_accounted_for(labelled: World, tidepost: Shell) -> None:
    found = compared(tidepost)
    each = dict.fromkeys(("duplicates", "superseded", "conflicts", "rejected", "unmatched"), 1)
    assert not_zero(found["total"]) == {"source": 9, "published": 4, **each}
    assert not_zero(found["total"]["at"]["arthur"]) == {"arrived": 3, "replaced": 1}
    assert [day["labelled"] for day in found["coverage"]["days"]] == [3]
    assert found["reasons"] == {"null_timestamp": 1}
    labels(labelled, "b", [label(n, n) for n in (5, 6)])
    labels(labelled, "a", [label(9, 4)])
    later = (LANDED + timedelta(days=60)).isoformat()
    told = compared(tidepost, "--now", later, code=7)
    assert not_zero(told["total"]) == {"gone": 4, "published": 4, "source": 3, "missing": 2, "orphans": 1}
    assert {one["id"] for one in told["differences"] if one["what"] == "orphans"} == {"r000009"}


def test_what_the_platform_lost_of_labels_is_told_by_value_and_only_the_newest_is_sent_again(
    labelled: World, tidepost: Shell
) -> None:
    assert labelled.platform.process.lose(labelled.model_id, ["r000002"], stream="ground_truth") == 1
    with labelled.wired() as wired:
        strange = {"partner_inference_id": "r000001", "ground_truth_timestamp": LANDED, "late": 77}
        wired.destinations[0].send_rows(StreamName.GROUND_TRUTH, [strange])
    assert shown(labelled)["r000001"] == 77
    found = compared(tidepost, code=7)
    assert not_zero(found["total"]["at"]["arthur"]) == {"arrived": 1, "replaced": 1, "lost": 2}
    told = {one["id"]: (one["slice"], one["detail"]) for one in found["differences"] if one["what"] == "lost"}
    assert told == {"r000001": (1, "another value is there"), "r000002": (1, "")}
    assert "tidepost reconcile flights --stream ground_truth --repair" in found["error"]["hint"]
    assert tidepost.here("resend", *OF_LABELS, "--yes", "--json").document["lost"] == 2
    assert shown(labelled) == {"r000000": 2, "r000001": 1, "r000002": 1}
    assert compared(tidepost)["agrees"]
    assert labelled.platform.process.lose(labelled.model_id, ["r000000"], stream="ground_truth") == 1
    assert compared(tidepost, "--repair", "--yes")["agrees"]
    assert shown(labelled) == {"r000000": 2, "r000001": 1, "r000002": 1}
