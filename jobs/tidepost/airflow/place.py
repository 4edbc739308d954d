"""Where the project is, as Airflow's processes see it."""

from __future__ import annotations

import os
from pathlib import Path

from tidepost.definition.project import Project, find_project


def the_project(given: str | Path | None = None, near: Path | None = None) -> Project:
    """The project that is `given`; else the one that `TIDEPOST_PROJECT` names; else the nearest from a folder up.

    given: its root, or a folder below it; a relative one begins at `near`
    near:  the DAG file's folder; by default Airflow's folder of DAGs
    Misconfigured: as `find_project`
    """
    env = dict(os.environ)
    if given is None and env.get("TIDEPOST_PROJECT"):
        return find_project(env=env)
    if near is None:
        from airflow.sdk.configuration import conf  # noqa: PLC0415 - its settings are read late

        near = Path(conf.get("core", "dags_folder"))
    env.pop("TIDEPOST_PROJECT", None)  # what the DAG file says wins
    return find_project(near / (given or ""), env)
