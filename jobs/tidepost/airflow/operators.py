"""The tasks of an upload: plan, a cut each, confirm; or all of them in one, for DAGs that are written by hand.

XCom carries ids and counts. What no retry can mend is raised as Misconfigured or Refused, what a retry mends as
Retryable: `policy.py` tells them from each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from tidepost.airflow import lineage, metrics
from tidepost.airflow.asked import Asked, Mode, asked
from tidepost.airflow.assets import announce, silence
from tidepost.airflow.telling import Teller, cut_line
from tidepost.airflow.trigger import Later
from tidepost.airflow.world import Opened, opened
from tidepost.errors import Misconfigured, Retryable
from tidepost.texts import count, span

if TYPE_CHECKING:
    from tidepost.airflow.acts import Report

BEGUN = "begun"
"""The XCom of a plan beside its cuts, see `acts.announced`."""
MOST_CUTS = 500
INFERENCES, GROUND_TRUTH = "inferences", "ground_truth"


class NotPlanned(AirflowFailException):
    """The task that was to plan failed, and people were told why: nothing is left to do, or to tell."""


def _begun(context: Mapping[str, Any], plan: str) -> Mapping[str, Any] | None:
    """What a plan left; None where it did not plan."""
    found: Mapping[str, Any] | None = context["ti"].xcom_pull(task_ids=plan, key=BEGUN)
    return found


class JobOperator(BaseOperator):
    """A task of one job.

    job:     its name, or its definition's path below the project's root
    project: the project's root; None: `TIDEPOST_PROJECT`, or the nearest project above the DAG's file
    stream:  inferences, or ground_truth
    """

    def __init__(self, *, job: str, project: str | None = None, stream: str = INFERENCES, **options: Any) -> None:
        super().__init__(**options)
        self.job = job
        self.project = project
        self.stream = stream

    _flow: lineage.Flow | None = None

    def get_openlineage_facets_on_complete(self, _: Any) -> Any:
        """What OpenLineage is told of the task: the rows that it moved, none where nothing was done."""
        return lineage.facets(self._flow)

    def on_kill(self) -> None:
        """End in order: what is on its way is finished or written down, the rest is left for the next try."""
        self._stopping.set()

    @property
    def _stopping(self) -> threading.Event:
        # Not made with the operator: an event cannot be copied, and operators are.
        found: threading.Event = self.__dict__.setdefault("_stop", threading.Event())
        return found

    def _opened(self, context: Mapping[str, Any], *, looking: bool = False) -> AbstractContextManager[Opened]:
        file = getattr(context["dag"], "fileloc", None)
        return opened(self.project, self.job, dag_file=file, looking=looking, stream=self.stream)

    def _asked(self, context: Mapping[str, Any]) -> Asked:
        """What the run asks. Skips the task where that is nothing of its stream."""
        what = asked(context)
        if what.concerns(self.stream):
            return what
        if not any(what.concerns(getattr(task, "stream", "")) for task in context["dag"].tasks):
            raise Misconfigured(
                f"this run asks for {GROUND_TRUTH.replace('_', ' ')}, which none of its tasks uploads",
                safe="Nothing was done.",
                hint="Where labels have a schedule, they have a DAG of their own; else add a section ground_truth.",
            )
        raise AirflowSkipException(f"this run does not ask for {self.stream.replace('_', ' ')}")

    @property
    def _teller(self) -> Teller:
        return Teller(self.log)

    def _unless_stopped(self) -> None:
        if self._stopping.is_set():
            raise Retryable(
                f"{self.job}: the task was stopped",
                safe="What was begun is recorded; nothing is sent twice.",
                hint="The next try, or the next run, goes on.",
            )


class PlanOperator(JobOperator):
    """Decide what a run does, and write it down. Its XCom is the list of the cuts to be done, by their ids.

    most:  cuts; what is beyond is the next run's
    after: the task that planned the inferences whose labels these are, where one did: where it failed, labels are not
           planned either
    """

    def __init__(self, *, most: int = MOST_CUTS, after: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.most = most
        self.after = after

    def execute(self, context: Mapping[str, Any]) -> list[int]:
        from tidepost.airflow import acts  # noqa: PLC0415 - the engine is imported while tasks run

        what = self._asked(context)
        if self.after is not None and what.concerns(INFERENCES) and _begun(context, self.after) is None:
            raise NotPlanned(f"task {self.after} did not plan: its log says why; clear it to try again")
        with self._opened(context, looking=what.dry_run) as it:
            begun = acts.begin(it, what, most=self.most, tell=self._teller)
        context["ti"].xcom_push(key=BEGUN, value=acts.announced(begun))
        return list(begun.cuts)


class CutOperator(JobOperator):
    """Stage, publish and send one cut. Its XCom holds counts.

    plan: the task whose XCom told the cut
    """

    def __init__(self, *, cut: int, plan: str = "plan", **options: Any) -> None:
        super().__init__(**options)
        self.cut = cut
        self.plan = plan

    template_fields: Sequence[str] = ("cut",)

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        from tidepost.airflow import acts  # noqa: PLC0415

        begun = _begun(context, self.plan) or {}
        with self._opened(context) as it:
            done = acts.upload(
                it, int(self.cut), begun.get("null_cursors", 0), tell=self._teller, stop=self._stopping
            )
            self._teller.tell(cut_line(done))
            self._unless_stopped()
            metrics.of_cut(it.job.name, done, stream=self.stream)
            if not done.before and done.elsewhere is None:
                self._flow = acts.flow(it, done)
        return acts.counted(done)


class WaitingOperator(JobOperator):
    """A task that waits for a platform to load: by deferring, so that no worker is held.

    deadline: seconds from the first look, after which it fails with what is missing; None: four times as long as the
              destination may take to load, an hour at least
    """

    def __init__(self, *, deadline: float | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.deadline = deadline

    def resume(self, context: Mapping[str, Any], event: dict[str, Any]) -> dict[str, Any]:
        """Look, once or again. `event` is what was kept while waiting: `cuts`, and `since` when."""
        from tidepost.airflow import acts  # noqa: PLC0415

        cuts, since = event["cuts"], event["since"]
        with self._opened(context) as it:
            standing = acts.settle(it, cuts, since=since, tell=self._teller, stop=self._stopping)
            self._unless_stopped()
            if standing.done:
                return self._report(context, it, acts.report(it, standing, cuts, tell=self._teller))
            acts.in_time(it, standing, since=since, deadline=self.deadline)
        missing = f"{count(standing.waiting, 'delivery is', 'deliveries are')} loading"
        missing += f", {count(len(standing.unfinished), 'cut is', 'cuts are')} left" if standing.unfinished else ""
        self._teller.tell(f"{missing}; looking again in {span(standing.wait)}")
        raise TaskDeferred(trigger=Later(time.time() + standing.wait, event), method_name="resume")

    def _report(self, context: Mapping[str, Any], it: Opened, report: Report) -> dict[str, Any]:
        """Tell Airflow what arrived, and fail where slices are held."""
        name, counts = it.job.name, dict(report.counts)
        metrics.of_run(
            name,
            arrived=counts["arrived"],
            refused=counts["refused"],
            retries=report.retries,
            lag=report.lag,
            stream=self.stream,
        )
        announce(
            context,
            job=name,
            partition=it.job.staging.partition,
            rows=counts["arrived"],
            hours=report.hours,
            mark=report.mark,
            stream=self.stream,
        )
        if report.held is not None:
            raise report.held
        return counts


class ConfirmOperator(WaitingOperator):
    """Wait until what a run sent has arrived, and report. It looks after every cut, whatever became of it: what was
    uploaded is seen through though another cut failed, and a cut that a dead worker left is done.

    plan: the task that planned
    """

    def __init__(self, *, plan: str = "plan", **options: Any) -> None:
        options.setdefault("trigger_rule", "all_done")
        super().__init__(**options)
        self.plan = plan

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        from tidepost.airflow import acts, comparing  # noqa: PLC0415

        ti, what = context["ti"], self._asked(context)
        begun = _begun(context, self.plan)
        if begun is None:
            raise NotPlanned(f"task {self.plan} did not plan: its log says why; clear it to try again")
        if what.mode is Mode.RECONCILE:
            with self._opened(context, looking=True) as it:
                silence(context)
                return comparing.compare(it, what.start, what.end, by_event=what.by_event, tell=self._teller)
        if what.dry_run:
            silence(context)
            self._teller.tell("a dry run: nothing was sent")
            return {}
        if begun["closed"]:
            self._teller.tell(acts.CLOSED)
        cuts = [*begun["done"], *(ti.xcom_pull(task_ids=self.plan) or ())]
        return self.resume(context, {"since": time.time(), "cuts": [int(cut) for cut in cuts]})


class UploadOperator(WaitingOperator):
    """Upload a job in one task: plan, every cut, and wait until all has arrived.

    start, end: of a range `[start, end)` to scan, as texts that may be templates; without them what is new is taken,
                and in a run of a backfill its data interval
    most:       cuts that are planned at once
    """

    template_fields: Sequence[str] = ("start", "end")

    def __init__(
        self, *, start: str | None = None, end: str | None = None, most: int = MOST_CUTS, **options: Any
    ) -> None:
        super().__init__(**options)
        self.start = start
        self.end = end
        self.most = most

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        from tidepost.airflow import acts  # noqa: PLC0415

        cuts: list[int] = []
        what, number = self._asked(context), 0
        with self._opened(context) as it:
            while True:
                begun = acts.begin(it, what, most=self.most, tell=self._teller)
                cuts += (*begun.done, *begun.cuts)
                for cut in begun.cuts:
                    self._unless_stopped()
                    done = acts.upload(it, cut, begun.null_cursors, tell=self._teller, stop=self._stopping)
                    self._teller.tell(cut_line(done))
                    metrics.of_cut(it.job.name, done, stream=self.stream)
                if not begun.more:
                    break
                number += 1
                what = acts.following(what, begun, number)
        return self.resume(context, {"since": time.time(), "cuts": cuts})

    def _report(self, context: Mapping[str, Any], it: Opened, report: Report) -> dict[str, Any]:
        self._flow = report.flow  # a confirm has none: its run's cuts have told theirs
        return super()._report(context, it, report)

    def _asked(self, context: Mapping[str, Any]) -> Asked:
        """What a run's form would ask; of its own for each task of a run."""
        mode = Mode.RANGE if self.start or self.end else Mode.INCREMENTAL
        form = {"mode": mode, "from": self.start, "to": self.end}
        # What the run was given is the DAG's own matter.
        of_run = ("dag_id", "run_id", "run_type", "data_interval_start", "data_interval_end", "clear_number")
        run = SimpleNamespace(conf={}, **{name: getattr(context["dag_run"], name, None) for name in of_run})
        ti, found = context["ti"], asked({"dag_run": run, "params": form})
        return replace(found, key=f"{found.key}/{ti.task_id}/{ti.map_index}")


class ReconcileOperator(JobOperator):
    """Compare the source, what was published and what a platform shows, row by row. Fails where rows are lost,
    missing or doubled; writes nothing. Its XCom holds counts.

    start, end: of a range to compare, as texts that may be templates; without them, all that was scanned
    by_event:   the range is of the rows' own time (of labels, the ground-truth timestamp), not of the cursor
    """

    template_fields: Sequence[str] = ("start", "end")

    def __init__(
        self, *, start: str | None = None, end: str | None = None, by_event: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.start = start
        self.end = end
        self.by_event = by_event

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        from tidepost.airflow import comparing  # noqa: PLC0415

        with self._opened(context, looking=True) as it:
            return comparing.compare(it, self.start, self.end, by_event=self.by_event, tell=self._teller)
