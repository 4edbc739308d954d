"""The task that begins the next run where a run left cuts for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk.exceptions import AirflowSkipException

from tidepost.airflow.asked import Mode, asked
from tidepost.airflow.operators import BEGUN

_FOLLOWING: Final = re.compile(r"part(\d+)__(.+)")


class FollowOperator(TriggerDagRunOperator):
    """Triggers the next run of its own DAG while more remains, once: its run id follows from the first run's, and one
    that is there already is left alone.

    plan: the task that planned
    """

    template_fields = ()

    def __init__(self, *, trigger_dag_id: str, plan: str = "plan", **options: Any) -> None:
        super().__init__(trigger_dag_id=trigger_dag_id, logical_date=None, skip_when_already_exists=True, **options)
        self.plan = plan

    def execute(self, context: Any) -> None:
        begun = context["ti"].xcom_pull(task_ids=self.plan, key=BEGUN) or {}
        if not begun.get("more"):
            raise AirflowSkipException("nothing remains")
        self.trigger_run_id = following(context["run_id"])
        self.conf = rest(context, begun)
        self.log.info("more remains: %s follows", self.trigger_run_id)
        super().execute(context)


def following(run_id: str) -> str:
    """The id of the run after `run_id`: `part2__ID`, `part3__ID`, …"""
    found = _FOLLOWING.fullmatch(run_id)
    part, first = (int(found[1]), found[2]) if found else (1, run_id)
    return f"part{part + 1}__{first}"


def rest(context: Mapping[str, Any], begun: Mapping[str, Any]) -> dict[str, Any]:
    """What the next run is asked: the same, over what remains of the range."""
    mode = asked(context).mode
    if mode is Mode.INCREMENTAL:
        return {"mode": mode.value}
    start, end = begun["rest"]
    return {"mode": mode.value, "from": start, "to": end}
