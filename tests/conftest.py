"""What the tests share: one sandbox, one PostgreSQL, and a world of its own for each test. Some tests are left out
unless a variable chooses them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.kafka import groups, kafka, reading  # noqa: F401 - fixtures
from tests.postgres import new_database, new_ledger, postgres  # noqa: F401 - fixtures
from tests.s3 import _s3, new_place, s3  # noqa: F401 - fixtures
from tests.world import Platform, World

from tidepost.engine import Engine
from tidepost.sandbox.process import SandboxProcess

FIRST = (
    "crash/test_killed_demo.py",
    "airflow/real/test_cluster.py",
    "crash/test_system_calls.py",
    "crash/test_every_point_postgres.py",
    "crash/test_soak.py",
    "airflow/real/test_scheduler.py",
    "benchmarks/test_benchmarks.py",
    "integration/test_memory.py",
)
"""Files that take longest, in this order: begun last, one of them would be all that a process is left with."""

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
    order = {Path(__file__).parent / name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session")
def _process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """One sandbox for all, which keeps repeats: whatever is sent twice can be seen."""
    with SandboxProcess(tmp_path_factory.mktemp("platform") / "data", on_repeat="keep") as process:
        yield process


@pytest.fixture
def platform(_process: SandboxProcess) -> Iterator[Platform]:
    """The shared sandbox; what a test changes is put back."""
    platform = Platform(_process)
    yield platform
    platform.reset()


@pytest.fixture
def make_world(tmp_path: Path, platform: Platform) -> Callable[..., World]:
    """Makes worlds whose model has other attributes than usual."""
    return lambda **model: World.make(tmp_path / "project", platform, **model)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A project with one job, an empty log, and a model at the sandbox."""
    return make_world()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A small DuckDB."""
    return Engine(memory=200_000_000, threads=2, scratch=tmp_path / "spill")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A test that is skipped proves nothing: it fails the session."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
