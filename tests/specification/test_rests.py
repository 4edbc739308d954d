"""Who fails is left alone for a while, longer each time, and of nobody else's matter."""

from __future__ import annotations

from tidepost.rests import FIRST_PAUSE, LONGEST_PAUSE, Rests


def test_who_fails_rests_longer_each_time_and_not_for_ever() -> None:
    rests, now, pauses = Rests(), 0.0, []
    for _ in range(9):
        rests.learn({"a", "b"}, {"a"}, now)
        assert rests.resting(now) == {"a"}
        pauses.append(rests.until(now) - now)
        now = rests.until(now)
        assert rests.resting(now) == set()
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_who_was_tried_and_did_not_fail_begins_anew() -> None:
    rests = Rests()
    rests.learn({"a"}, {"a"}, 0.0)
    rests.learn({"a"}, {"a"}, 1.0)
    rests.learn({"b"}, set(), 3.0)
    rests.learn({"a"}, set(), 3.0)
    rests.learn({"a"}, {"a"}, 4.0)
    assert rests.until(4.0) == 4.0 + FIRST_PAUSE
    assert Rests().until(0.0) == float("inf")
