"""What a job is called in Airflow."""

from __future__ import annotations


def dag_id(job: str) -> str:
    """The id of a job's DAG."""
    return f"upload_{job}"
