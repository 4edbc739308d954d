"""What a job is called in Airflow."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "upload_"
OF_LABELS: Final = "_ground_truth"
"""The end of the id of a DAG for labels alone."""


def dag_id(job: str, *, labels: bool = False) -> str:
    """The id of a job's DAG, or of the one of its labels, unless `upload_dags` was given another prefix."""
    return PREFIX + job + (OF_LABELS if labels else "")
