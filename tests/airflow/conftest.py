"""One Airflow for the tests of a process: its settings are global, so they are made before it is imported, and only
tests below this folder import it.

    def test_something(run_dag):
        with DAG("mine", schedule=None) as dag: ...
        ran = run_dag(dag, conf={"mode": "reconcile"})
        assert ran.states == {"plan": "success"}
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.airflow.running import Ran, run


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a new database on SQLite and an empty folder for DAGs, `dags`, which is the one bundle."""
    assert "airflow" not in sys.modules, "Airflow was imported before its settings were made"
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "120",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
    }
    from airflow.dag_processing.bundles.manager import DagBundlesManager  # noqa: PLC0415 - it reads the settings
    from airflow.utils.db import initdb  # noqa: PLC0415

    initdb()
    DagBundlesManager().sync_bundles_to_db()
    return home


@pytest.fixture
def run_dag(airflow_home: Path) -> Iterator[Callable[..., Ran]]:
    """Runs a DAG in this process: see `running.run`."""
    from airflow import settings  # noqa: PLC0415

    yield run
    settings.Session.remove()  # one of a test that failed would fail all others
