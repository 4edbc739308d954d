"""From job definitions to DAGs: one DAG for each job, from one short file, and one more for labels that have a
schedule of their own.

    from tidepost.airflow import upload_dags

    globals().update(upload_dags())

Reading them costs little: files are read, nothing is asked of a network or of Airflow's database, and what a task
needs is imported when it runs. The same definitions give the same DAGs, to the byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import DAG, CronDataIntervalTimetable, TaskGroup, get_parsing_context

from tidepost.airflow.assets import outlets
from tidepost.airflow.deadline import deadline
from tidepost.airflow.describe import describe
from tidepost.airflow.following import FollowOperator
from tidepost.airflow.form import form
from tidepost.airflow.importing import dag_file, report
from tidepost.airflow.names import OF_LABELS, PREFIX
from tidepost.airflow.notify import FailureNotifier
from tidepost.airflow.operators import ConfirmOperator, CutOperator, PlanOperator
from tidepost.airflow.place import the_project
from tidepost.airflow.policy import Retries
from tidepost.definition.fields import parse_moment
from tidepost.errors import Misconfigured
from tidepost.model import StreamName

if TYPE_CHECKING:
    from tidepost.airflow.notify import Send
    from tidepost.definition.job import Job

_ANY_DAY: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""When a DAG begins whose cursor is no time: before any run."""


def upload_dags(
    project: str | Path | None = None,
    *,
    prefix: str = PREFIX,
    tags: Sequence[str] = (),
    notify: Send | None = None,
) -> dict[str, DAG]:
    """The DAGs of a project's jobs, by their ids: `upload_` and the job's name, and `_ground_truth` after it for
    labels that have a schedule of their own.

    A job file that cannot be used is an import error of its own, and the others go on.

    project: its root, absolute or from the DAG file's folder; by default what `TIDEPOST_PROJECT` names, else the
             nearest `tidepost.yaml` from the DAG file upwards
    tags:    of every DAG, beside its job's own
    notify:  is told of every failure, beside the mail addresses of the job
    Misconfigured: there is no project, or its `tidepost.yaml` is wrong
    """
    wanted = get_parsing_context().dag_id
    if wanted is not None and not wanted.startswith(prefix):
        return {}
    given = None if project is None else str(project)
    file = dag_file()
    found = the_project(given, file.parent if file else None)
    make = _Maker(given, prefix, tuple(tags), notify)
    if wanted is not None:
        name = wanted.removeprefix(prefix)
        try:
            return {wanted: make(found.job(name), StreamName.INFERENCES)}
        except Misconfigured:
            if not name.endswith(OF_LABELS):
                raise
        return {wanted: make(found.job(name.removesuffix(OF_LABELS)), StreamName.GROUND_TRUTH)}
    definitions = found.definitions()
    broken, dags = dict(definitions.broken), {}
    for job in definitions.jobs:
        dags[prefix + job.name] = make(job, StreamName.INFERENCES)
    for job in definitions.jobs:
        if _alone(job):
            dag_id = prefix + job.name + OF_LABELS
            if dag_id in dags:
                broken[job.path] = _taken(job)
            else:
                dags[dag_id] = make(job, StreamName.GROUND_TRUTH)
    report(broken)
    return dags


class _Maker:
    """Makes the DAG of a stream of a job; that of inferences also uploads labels without a schedule of their own.

    given: the project's root as the DAG file names it; None where each process finds it for itself: a DAG that held
           the path would have another version on each host and with each checkout
    """

    def __init__(self, given: str | None, prefix: str, tags: Sequence[str], notify: Send | None) -> None:
        self.given, self.prefix, self.tags, self.notify = given, prefix, tags, notify

    def __call__(self, job: Job, stream: StreamName) -> DAG:
        file = job.path.relative_to(job.root).as_posix()
        labels, alone = stream is StreamName.GROUND_TRUTH, _alone(job)
        seen = job.of_labels() or job if labels else job
        dag_id = self.prefix + job.name + (OF_LABELS if labels else "")
        streams = [stream, StreamName.GROUND_TRUTH] if job.ground_truth and not (labels or alone) else [stream]
        schedule = job.ground_truth.schedule if labels and job.ground_truth else job.schedule
        with DAG(
            dag_id,
            description=job.description,
            doc_md=describe(job, file),
            schedule=_timetable(schedule, job.timezone),
            start_date=_start(seen),
            catchup=False,
            max_active_runs=job.airflow.runs,
            tags=sorted({"tidepost", *self.tags, *job.tags}),
            deadline=deadline(job, self.given, stream.value if alone else None),
            default_args=self._defaults(job),
        ) as dag:
            plan, confirm = self._tasks(job, file, stream, dag_id)
            if len(streams) > 1:
                with TaskGroup(StreamName.GROUND_TRUTH.value):
                    # Whatever became of the inferences: a label whose inference is not there waits for it.
                    after, _ = self._tasks(job, file, StreamName.GROUND_TRUTH, dag_id, after=plan.task_id)
                confirm >> after
        dag.params = form(job, streams)  # after the tasks, each of which would take a copy of it for itself
        return dag

    def _tasks(
        self, job: Job, file: str, stream: StreamName, dag_id: str, after: str | None = None
    ) -> tuple[Any, Any]:
        """The tasks of a stream, of which the first and the last but one are returned.

        after: the task that planned the inferences, where it is one of the same DAG
        """
        here: dict[str, Any] = {"job": file, "project": self.given, "stream": stream.value}
        told: dict[str, Any] = {"on_failure_callback": FailureNotifier(job.name, job.airflow.notify, self.notify)}
        rule = "all_success" if after is None else "all_done"
        plan = PlanOperator(task_id="plan", after=after, trigger_rule=rule, **here, **told)
        planned: dict[str, Any] = {"plan": plan.task_id}
        # A cut that fails is not told of: confirming sees it through, or fails with what stops it.
        upload = CutOperator.partial(
            task_id="upload", max_active_tis_per_dagrun=job.airflow.parallel, **here, **planned
        ).expand(cut=plan.output)
        confirm = ConfirmOperator(task_id="confirm", outlets=outlets(job.name, stream), **here, **planned, **told)
        follow = FollowOperator(task_id="follow", trigger_dag_id=dag_id, stream=stream.value, **planned)
        plan >> upload >> confirm >> follow
        return plan, confirm

    def _defaults(self, job: Job) -> dict[str, Any]:
        own = job.airflow
        return {
            "owner": job.owner or "tidepost",
            "pool": own.pool,
            "retries": own.retries,
            "retry_delay": own.retry_delay,
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(hours=1),
            "retry_policy": Retries(),
            "execution_timeout": own.timeout,
        }


def _alone(job: Job) -> bool:
    """Whether a job's labels have a schedule of their own."""
    return job.ground_truth is not None and job.ground_truth.schedule is not None


def _taken(job: Job) -> Misconfigured:
    name = job.name + OF_LABELS
    return Misconfigured(
        f"{job.where('ground_truth', 'schedule')}: the DAG of these labels has the name of the one of job {name}",
        safe="Its inferences, and the other job, go on.",
        hint="Rename one of both jobs, or take the labels' schedule away: they go with the inferences then.",
    )


def _timetable(schedule: str | None, timezone: str) -> CronDataIntervalTimetable | None:
    """Runs at the end of each interval: a plain cron expression would give intervals without a length."""
    return None if schedule is None else CronDataIntervalTimetable(schedule, timezone=timezone)


def _start(job: Job) -> datetime:
    """The day that the job begins on: there is nothing to backfill before it."""
    start = job.cursor.start
    moment = None if isinstance(start, int) else parse_moment(start)
    if not isinstance(moment, date):
        return _ANY_DAY
    return datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
