"""Waiting for files of labels, without holding a worker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException, TaskDeferred

from tidepost.airflow.operators import GROUND_TRUTH, JobOperator
from tidepost.airflow.trigger import Later
from tidepost.texts import count, span

WEEK: Final = timedelta(days=7)


class GroundTruthFileSensor(JobOperator):
    """Wait until there is a file of labels to take up: one that `ground_truth.files` finds, that was not uploaded
    yet, and that did not change for its quiet time; or one that somebody named. Its XCom is how many there are.

    Between two looks it is deferred to the triggerer, where it sleeps and nothing is imported or opened; a look is a
    worker's, for as long as it takes to list the files. A file that is still to be quiet is looked at
    again when it is.

    poke_interval: between two looks, in seconds or as a timedelta
    timeout:       from the first look, after which it fails, without a retry
    soft_fail:     then it is skipped instead
    """

    def __init__(
        self,
        *,
        poke_interval: float | timedelta = 60.0,
        timeout: float | timedelta = WEEK,
        soft_fail: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(stream=GROUND_TRUTH, **options)
        self.poke_interval = _seconds(poke_interval)
        self.timeout = _seconds(timeout)
        self.soft_fail = soft_fail

    def execute(self, context: Mapping[str, Any]) -> int:
        return self.resume(context, {"since": time.time()})

    def resume(self, context: Mapping[str, Any], event: dict[str, Any]) -> int:
        """Look, once or again. `event` is what was kept while waiting: `since` when."""
        from tidepost.airflow import acts  # noqa: PLC0415 - the engine is imported while tasks run

        with self._opened(context, looking=True) as it:
            found, quiet = acts.dropped(it, tell=self._teller)
        if found:
            return found
        left = event["since"] + self.timeout - time.time()
        if left <= 0:
            what = f"{self.job}: no file of labels within {span(self.timeout)}"
            raise AirflowSkipException(what) if self.soft_fail else AirflowSensorTimeout(what)
        wait = min(self.poke_interval, left, self.poke_interval if quiet is None else quiet)
        self._teller.tell(f"{count(0, 'file')} to take up; looking again in {span(wait)}")
        raise TaskDeferred(trigger=Later(time.time() + wait, event), method_name="resume")


def _seconds(of: float | timedelta) -> float:
    return of.total_seconds() if isinstance(of, timedelta) else float(of)
