"""From job definitions to DAGs: one DAG for each job, from one short file.

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

from airflow.sdk import DAG, CronDataIntervalTimetable, get_parsing_context

from tidepost.airflow.assets import outlets
from tidepost.airflow.deadline import deadline
from tidepost.airflow.describe import describe
from tidepost.airflow.following import FollowOperator
from tidepost.airflow.form import form
from tidepost.airflow.importing import dag_file, report
from tidepost.airflow.names import PREFIX
from tidepost.airflow.notify import FailureNotifier
from tidepost.airflow.operators import ConfirmOperator, CutOperator, PlanOperator
from tidepost.airflow.place import the_project
from tidepost.airflow.policy import Retries
from tidepost.fields import parse_moment

if TYPE_CHECKING:
    from tidepost.airflow.notify import Send
    from tidepost.job import Job

_ANY_DAY: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""When a DAG begins whose cursor is no time: before any run."""


def upload_dags(
    project: str | Path | None = None,
    *,
    prefix: str = PREFIX,
    tags: Sequence[str] = (),
    notify: Send | None = None,
) -> dict[str, DAG]:
    """The DAGs of a project's jobs, by their ids: `upload_` and the job's name.

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
        return {wanted: make(found.job(wanted.removeprefix(prefix)))}
    definitions = found.definitions()
    report(definitions.broken)
    return {prefix + job.name: make(job) for job in definitions.jobs}


class _Maker:
    """Makes the DAG of a job.

    given: the project's root as the DAG file names it; None where each process finds it for itself: a DAG that held
           the path would have another version on each host and with each checkout
    """

    def __init__(self, given: str | None, prefix: str, tags: Sequence[str], notify: Send | None) -> None:
        self.given, self.prefix, self.tags, self.notify = given, prefix, tags, notify

    def __call__(self, job: Job) -> DAG:
        file = job.path.relative_to(job.root).as_posix()
        here: dict[str, Any] = {"job": file, "project": self.given}
        dag_id = self.prefix + job.name
        with DAG(
            dag_id,
            description=job.description,
            doc_md=describe(job, file),
            schedule=_timetable(job),
            start_date=_start(job),
            catchup=False,
            max_active_runs=job.airflow.runs,
            tags=sorted({"tidepost", *self.tags, *job.tags}),
            deadline=deadline(job, self.given),
            default_args=self._defaults(job),
        ) as dag:
            told: dict[str, Any] = {"on_failure_callback": FailureNotifier(job.name, job.airflow.notify, self.notify)}
            plan = PlanOperator(task_id="plan", **here, **told)
            # A cut that fails is not told of: confirming sees it through, or fails with what stops it.
            upload = CutOperator.partial(
                task_id="upload", max_active_tis_per_dagrun=job.airflow.parallel, **here
            ).expand(cut=plan.output)
            confirm = ConfirmOperator(task_id="confirm", outlets=outlets(job.name), **here, **told)
            follow = FollowOperator(task_id="follow", trigger_dag_id=dag_id)
            plan >> upload >> confirm >> follow
        dag.params = form(job)  # after the tasks, each of which would take a copy of it for itself
        return dag

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


def _timetable(job: Job) -> CronDataIntervalTimetable | None:
    """Runs at the end of each interval: a plain cron expression would give intervals without a length."""
    return None if job.schedule is None else CronDataIntervalTimetable(job.schedule, timezone=job.timezone)


def _start(job: Job) -> datetime:
    """The day that the job begins on: there is nothing to backfill before it."""
    start = job.cursor.start
    moment = None if isinstance(start, int) else parse_moment(start)
    if not isinstance(moment, date):
        return _ANY_DAY
    return datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
