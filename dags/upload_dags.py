"""One Airflow DAG for each job definition in `jobs/`."""

from tidepost.airflow import upload_dags

globals().update(upload_dags())
