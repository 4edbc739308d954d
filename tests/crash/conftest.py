"""What the crash tests share. Some are left out unless a variable chooses them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from tests.crash.orders import Site, site_of
from tests.forkserver import forkserver
from tests.world import Platform, World

CHOSEN = {
    "debian": ("needs programs of Debian's", "TIDEPOST_TEST_DEBIAN"),
    "every_point": ("takes long, and adds to what a sample shows", "TIDEPOST_TEST_EVERY_POINT"),
}


def pytest_configure(config: pytest.Config) -> None:
    for name, (why, variable) in CHOSEN.items():
        config.addinivalue_line("markers", f"{name}: {why}; chosen by {variable}=1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    unchosen = [name for name, (_, variable) in CHOSEN.items() if os.environ.get(variable) != "1"]
    left_out = [item for item in items if any(item.get_closest_marker(name) is not None for name in unchosen)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def children() -> ForkServerContext:
    return forkserver()


@pytest.fixture
def make_site(children: ForkServerContext, tmp_path: Path, platform: Platform) -> Iterator[Callable[[str], Site]]:
    """Makes sites, each with a world of its own, whose files lie in a folder of that name."""
    with ExitStack() as stack:

        def make(name: str) -> Site:
            world = World.make(tmp_path / name, platform)
            world.define(destination={"loading": "1s", "poll": "1s"})
            return stack.enter_context(site_of(world, children))

        yield make


@pytest.fixture
def site(make_site: Callable[[str], Site]) -> Site:
    """A world and children that work on it."""
    return make_site("project")
