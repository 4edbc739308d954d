"""The tasks of an upload."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator


class PlanOperator(BaseOperator):
    def __init__(self, *, job: str, project: str, **options: Any) -> None:
        super().__init__(**options)


class CutOperator(BaseOperator):
    def __init__(self, *, job: str, project: str, cut: int, **options: Any) -> None:
        super().__init__(**options)


class ConfirmOperator(BaseOperator):
    def __init__(self, *, job: str, project: str, **options: Any) -> None:
        super().__init__(**options)
