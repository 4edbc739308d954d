"""What a job is called in Airflow."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "upload_"


def dag_id(job: str) -> str:
    """The id of a job's DAG, unless `upload_dags` was given another prefix."""
    return PREFIX + job
