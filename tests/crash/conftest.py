"""What the crash tests share. Those that need programs of Debian's are left out but for `TIDEPOST_TEST_DEBIAN=1`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from tests.crash.orders import Site, forkserver, site_of
from tests.world import Platform, World


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "debian: needs programs of Debian's; chosen by TIDEPOST_TEST_DEBIAN=1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("TIDEPOST_TEST_DEBIAN") == "1":
        return
    left_out = [item for item in items if item.get_closest_marker("debian") is not None]
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
