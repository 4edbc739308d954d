"""A minute of violence, the same in every run. `make soak` goes on for as long as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.crash.soak import soak

SECONDS = 60.0
SEED = 20130101


@pytest.mark.timeout(300)
def test_a_minute_of_random_violence_loses_and_doubles_nothing(tmp_path: Path) -> None:
    result = soak(tmp_path, seconds=SECONDS, seed=SEED)
    assert result.fine, result
    assert result.rounds
    assert result.kills
    assert result.rows


@pytest.mark.timeout(300)
def test_half_a_minute_of_it_on_postgresql_loses_and_doubles_nothing(tmp_path: Path) -> None:
    result = soak(tmp_path, seconds=SECONDS / 2, seed=SEED, postgres=True)
    assert result.fine, result
    assert result.rows
