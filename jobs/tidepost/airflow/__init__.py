"""tidepost on Airflow: one DAG for each job of a project, and operators for DAGs that are written by hand.

    from tidepost.airflow import upload_dags

    globals().update(upload_dags())

Importing this costs nothing; what is asked for is imported when it is named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tidepost.airflow.assets import asset, outlets, partitions
    from tidepost.airflow.dags import upload_dags
    from tidepost.airflow.hooks import ArthurHook
    from tidepost.airflow.operators import ReconcileOperator, UploadOperator
    from tidepost.airflow.waiting import GroundTruthFileSensor

__all__ = [
    "ArthurHook",
    "GroundTruthFileSensor",
    "ReconcileOperator",
    "UploadOperator",
    "asset",
    "outlets",
    "partitions",
    "upload_dags",
]

_WHERE: Final = {
    "ArthurHook": "hooks",
    "GroundTruthFileSensor": "waiting",
    "ReconcileOperator": "operators",
    "UploadOperator": "operators",
    "asset": "assets",
    "outlets": "assets",
    "partitions": "assets",
    "upload_dags": "dags",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
