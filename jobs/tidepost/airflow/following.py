"""The task that begins the next run where a run left cuts for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk.exceptions import AirflowSkipException

from tidepost.airflow.asked import Mode, asked
from tidepost.airflow.operators import BEGUN, GROUND_TRUTH, INFERENCES

_FOLLOWING: Final = re.compile(r"part(\d+)__(.+)")


class FollowOperator(TriggerDagRunOperator):
    """Triggers the next run of its own DAG while more remains, once: its run id follows from the first run's, and one
    that is there already is left alone.

    A run that takes what is new is followed by one for both streams. What remains of a range is each stream's own: it
    is followed by one run for each stream.

    plan:   the task that planned
    stream: that it planned
    """

    template_fields = ()

    def __init__(self, *, trigger_dag_id: str, plan: str = "plan", stream: str = INFERENCES, **options: Any) -> None:
        super().__init__(trigger_dag_id=trigger_dag_id, logical_date=None, skip_when_already_exists=True, **options)
        self.plan = plan
        self.stream = stream

    def execute(self, context: Any) -> None:
        begun = context["ti"].xcom_pull(task_ids=self.plan, key=BEGUN) or {}
        if not begun.get("more"):
            raise AirflowSkipException("nothing remains")
        self.conf = rest(context, begun, self.stream)
        self.trigger_run_id = following(context["run_id"], self.conf.get("stream"))
        self.log.info("more remains: %s follows", self.trigger_run_id)
        super().execute(context)


def following(run_id: str, stream: str | None = None) -> str:
    """The id of the run after `run_id`: `part2__ID`, `part3__ID`, …; `part2__ground_truth__ID` where it is for labels
    alone."""
    found = _FOLLOWING.fullmatch(run_id)
    part, first = (int(found[1]), found[2]) if found else (1, run_id)
    own = f"{GROUND_TRUTH}__" if stream == GROUND_TRUTH and not first.startswith(f"{GROUND_TRUTH}__") else ""
    return f"part{part + 1}__{own}{first}"


def rest(context: Mapping[str, Any], begun: Mapping[str, Any], stream: str = INFERENCES) -> dict[str, Any]:
    """What the next run is asked: the same, over what remains of a stream's range."""
    what = asked(context)
    both = any(getattr(task, "stream", stream) != stream for task in context["dag"].tasks)
    if what.mode is Mode.INCREMENTAL:
        of = {"stream": what.stream.value} if what.stream is not None else {}
        return {"mode": what.mode.value, **of}
    start, end = begun["rest"]
    return {"mode": what.mode.value, "from": start, "to": end, **({"stream": stream} if both else {})}
