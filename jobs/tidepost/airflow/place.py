"""Where the project is, as Airflow's processes see it."""

from __future__ import annotations

import os
from pathlib import Path

from tidepost.project import Project, find_project


def the_project(given: str | Path | None = None, near: Path | None = None) -> Project:
    """The project that is `given`; else the one that `TIDEPOST_PROJECT` names; else the nearest from a folder up.

    near: that folder; by default Airflow's folder of DAGs
    Misconfigured: as `find_project`
    """
    if given is not None:
        return find_project(
            Path(given), {key: value for key, value in os.environ.items() if key != "TIDEPOST_PROJECT"}
        )
    if near is None and not os.environ.get("TIDEPOST_PROJECT"):
        from airflow.sdk.configuration import conf  # noqa: PLC0415

        near = Path(conf.get("core", "dags_folder"))
    return find_project(near)
