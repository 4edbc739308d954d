"""Runs of DAGs in the tests' own process, as `dag.test()` makes them, of any type and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch


@dataclass(frozen=True)
class Ran:
    """What became of a run.

    states: of its tasks by their id; of mapped ones by `id[index]`
    run:    Airflow's own row
    """

    state: str
    states: Mapping[str, str | None]
    run: Any

    def xcom(self, task: str, key: str = "return_value", index: int = -1) -> Any:
        """What a task left for the others; None for nothing."""
        from airflow.models.xcom import XComModel  # noqa: PLC0415 - the fixture makes its settings first
        from airflow.utils.session import create_session  # noqa: PLC0415

        with create_session() as session:
            found = session.execute(
                XComModel.get_many(
                    key=key, run_id=self.run.run_id, dag_ids=self.run.dag_id, task_ids=task, map_indexes=index
                )
            ).first()
            return None if found is None else XComModel.deserialize_value(found[0])


def run(
    dag: Any,
    *,
    run_type: str = "manual",
    conf: Mapping[str, Any] | None = None,
    interval: tuple[datetime, datetime] | None = None,
    run_id: str | None = None,
) -> Ran:
    """Run a DAG to its end. A run id that ran already is cleared, all of it, and runs again; one that was triggered
    runs as it was asked to.

    run_type: scheduled, backfill or manual; the first two have a data interval
    """
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db  # noqa: PLC0415
    from airflow.models import dagrun  # noqa: PLC0415
    from airflow.models.dagbag import DBDagBag  # noqa: PLC0415
    from airflow.utils.types import DagRunType  # noqa: PLC0415

    now = datetime.now(UTC)
    name = run_id or f"{run_type}__{(interval[0] if interval else now).isoformat()}"
    bag = DagBag(collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)

    def made(*, dag: Any, session: Any, **given: Any) -> Any:
        # As a scheduler has it: of deadlines a DAG in memory only has what was written, not their rows.
        stored = DBDagBag().get_latest_version_of_dag(dag.dag_id, session=session)
        known = session.query(dagrun.DagRun).filter_by(dag_id=dag.dag_id, run_id=name).one_or_none()
        if known is None:
            given |= {"run_id": name, "logical_date": interval and interval[0], "data_interval": interval}
            known = stored.create_dagrun(
                **given, run_type=DagRunType(run_type), state=dagrun.DagRunState.RUNNING, session=session
            )
        elif known.state == dagrun.DagRunState.QUEUED:
            known.dag, known.state, known.start_date = stored, dagrun.DagRunState.RUNNING, now
            known.verify_integrity(dag_version_id=known.created_dag_version_id, session=session)
        else:
            stored.clear(run_id=name, dag_run_state=dagrun.DagRunState.RUNNING, session=session)
            known.run_type = DagRunType(run_type)
        known.dag = stored
        session.commit()
        return known

    # In one process a DAG's Params keep what a run was given.
    forms = [dag.params, *(task.params for task in dag.tasks)]
    given = [(found, found.value) for form in forms for found in map(form.get_param, form)]
    try:
        with patch.object(dagrun, "get_or_create_dagrun", made):
            done = dag.test(run_after=now, logical_date=None, run_conf=dict(conf or {}))
    finally:
        for found, value in given:
            found.value = value
    tasks = done.get_task_instances()
    states = {
        one.task_id if one.map_index < 0 else f"{one.task_id}[{one.map_index}]": one.state and str(one.state)
        for one in sorted(tasks, key=lambda one: (one.task_id, one.map_index))
    }
    return Ran(str(done.state), states, done)
