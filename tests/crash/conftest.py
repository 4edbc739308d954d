"""What the crash tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from tests.crash.orders import Site, site_of
from tests.forkserver import forkserver
from tests.world import Platform, World


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
