"""The Uploads page in Airflow: copy or link this file into the plugins folder."""

from tidepost.airflow.plugin import UploadsPlugin

__all__ = ["UploadsPlugin"]
