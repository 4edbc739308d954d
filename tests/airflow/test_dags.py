"""From job files to DAGs: what is made of them, what reading them costs, and what becomes of broken ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.airflow import parsing
from tests.environment import ROOT

DAG_FILE = ROOT / "dags" / "upload_dags.py"
FLIGHTS = (ROOT / "jobs" / "flights.yaml").read_text()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two jobs, and the repository's DAG file."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "dags").mkdir()
    (tmp_path / "tidepost.yaml").write_text("version: 1\n")
    shutil.copy(DAG_FILE, tmp_path / "dags")
    write(tmp_path, "flights", FLIGHTS)
    write(tmp_path, "trains", FLIGHTS.replace("name: flights\n", "name: trains\n"))
    monkeypatch.delenv("TIDEPOST_PROJECT", raising=False)
    return tmp_path


def write(project: Path, name: str, text: str) -> Path:
    path = project / "jobs" / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def read(airflow_home: Path) -> Callable[..., Any]:
    """Reads the DAG file of a project as Airflow does; returns its DagBag."""
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - the fixture makes its settings first

    return lambda root: DagBag(root / "dags" / "upload_dags.py", bundle_path=root / "dags")


def test_the_repository_s_jobs_are_dags(read: Callable[..., Any]) -> None:
    bag = read(ROOT)
    assert not bag.import_errors
    assert set(bag.dags) == {f"upload_{path.stem}" for path in (ROOT / "jobs").glob("*.yaml")}
    dag = bag.dags["upload_flights"]
    own = ("plan", "upload", "confirm", "follow")
    assert set(dag.task_ids) == {*own, *(f"ground_truth.{name}" for name in own)}
    assert not dag.catchup
    assert dag.timetable.expression == "0 * * * *"
    assert "tidepost" in dag.tags


def test_a_dag_is_what_its_job_says(project: Path, read: Callable[..., Any]) -> None:
    write(
        project,
        "flights",
        FLIGHTS.replace('"@hourly"', '"15 3 * * *"')
        + "\nowner: delays@example.com\ntags: [production]\ntimezone: Europe/Berlin\n"
        + "airflow: {pool: uploads, retries: 7, retry_delay: 2m, timeout: 3h, parallel: 8, runs: 2, freshness: 2h}\n",
    )
    dag = read(project).dags["upload_flights"]
    assert (dag.timetable.expression, str(dag.timetable.timezone)) == ("15 3 * * *", "Europe/Berlin")
    assert dag.tags == {"production", "tidepost"}
    assert dag.max_active_runs == 2
    for task in dag.tasks:
        assert (task.owner, task.pool, task.retries) == ("delays@example.com", "uploads", 7)
        assert (task.retry_delay, task.execution_timeout) == (timedelta(minutes=2), timedelta(hours=3))
        assert task.has_retry_policy
    assert dag.get_task("upload").partial_kwargs["max_active_tis_per_dagrun"] == 8
    (deadline,) = dag.deadline
    assert deadline.interval == timedelta(hours=2)
    assert deadline.callback.path == "tidepost.airflow.deadline.late"


def test_the_page_of_a_dag_tells_of_its_job_and_of_no_secret(
    project: Path, read: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", "hush-hush")
    page = read(project).dags["upload_flights"].doc_md
    for text in (
        "`jobs/flights.yaml`",
        "`log/flights/*.parquet`",
        "`logged_at`",
        "`delay_probability`",
        "${SANDBOX_URL",
    ):
        assert text in page
    assert "hush-hush" not in page
    assert str(project) not in page, "a DAG would have another version on each machine"


def test_a_job_without_a_schedule_runs_by_hand(project: Path, read: Callable[..., Any]) -> None:
    write(project, "flights", FLIGHTS.replace('schedule: "@hourly"\n', ""))
    assert read(project).dags["upload_flights"].schedule is None


def test_a_task_reads_its_own_job_only(
    project: Path, read: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, "broken", "version: 1\nname: broken\n")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "upload_trains")
    bag = read(project)
    assert list(bag.dags) == ["upload_trains"]
    assert not bag.import_errors
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "something_else")
    assert not read(project).dags


def test_a_dag_file_may_name_its_project_from_its_own_folder(
    project: Path, read: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "flows" / "dags").mkdir(parents=True)
    text = DAG_FILE.read_text().replace("upload_dags())", 'upload_dags("../..", prefix="up_", tags=["eu"]))')
    (project / "flows" / "dags" / "upload_dags.py").write_text(text)
    monkeypatch.setenv("TIDEPOST_PROJECT", str(ROOT))
    bag = read(project / "flows")
    assert set(bag.dags) == {"up_flights", "up_trains"}
    assert bag.dags["up_trains"].tags == {"eu", "tidepost"}
    assert bag.dags["up_trains"].get_task("plan").project == "../.."


# -------------------------------------------------------------------------------------------- broken job files


def test_each_broken_job_file_is_an_import_error_and_the_others_go_on(
    project: Path, read: Callable[..., Any]
) -> None:
    write(project, "trains", FLIGHTS.replace("name: flights\n", "name: trains\n").replace("settle:", "setle:"))
    write(project, "boats", "version: 1\nname: [\n")
    bag = read(project)
    assert set(bag.dags) == {"upload_flights"}
    assert set(bag.import_errors) == {"../jobs/boats.yaml", "../jobs/trains.yaml"}
    assert (
        'jobs/trains.yaml:14:3: cursor.setle: no such key; did you mean "settle"?'
        in (bag.import_errors["../jobs/trains.yaml"])
    )
    assert "jobs/boats.yaml:" in bag.import_errors["../jobs/boats.yaml"]


def test_two_files_of_one_name_are_one_import_error(project: Path, read: Callable[..., Any]) -> None:
    write(project, "planes", FLIGHTS)
    bag = read(project)
    assert set(bag.dags) == {"upload_trains"}
    (error,) = bag.import_errors.values()
    assert 'jobs/flights.yaml and jobs/planes.yaml: both are named "flights"' in error


def test_a_project_that_cannot_be_read_is_the_dag_file_s_import_error(
    project: Path, read: Callable[..., Any]
) -> None:
    (project / "tidepost.yaml").write_text("version: 1\nledgr: x\n")
    bag = read(project)
    assert not bag.dags
    assert 'tidepost.yaml:2:1: ledgr: no such key; did you mean "ledger"?' in bag.import_errors["upload_dags.py"]


def test_what_the_dag_processor_keeps_of_a_broken_job(project: Path, airflow_home: Path) -> None:
    """Its error stands under its own name and goes when it is mended; the other job's DAG stays on schedule."""
    import structlog  # noqa: PLC0415
    from airflow.dag_processing.manager import DagFileProcessorManager  # noqa: PLC0415
    from airflow.dag_processing.processor import DagFileParseRequest, _parse_file  # noqa: PLC0415
    from airflow.models import DagModel  # noqa: PLC0415
    from airflow.models.errors import ParseImportError  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415

    manager = DagFileProcessorManager(max_runs=1)

    def processed() -> tuple[dict[str, bool], dict[str, str]]:
        """DAGs → whether they are set aside; import errors by file."""
        request = DagFileParseRequest(
            file=str(project / "dags" / "upload_dags.py"), bundle_path=project / "dags", bundle_name="dags-folder"
        )
        with create_session() as session:
            manager.persist_parsing_result(
                bundle_name="dags-folder",
                bundle_version=None,
                version_data=None,
                parsing_result=_parse_file(request, structlog.get_logger()),
                run_duration=1.0,
                relative_fileloc="upload_dags.py",
                session=session,
            )
        with create_session() as session:
            dags = session.query(DagModel).filter(DagModel.relative_fileloc == "upload_dags.py")
            errors = {one.filename: one.stacktrace for one in session.query(ParseImportError)}
            return {one.dag_id: one.is_stale or one.has_import_errors for one in dags}, errors

    trains = write(project, "trains", "version: 1\nname: trains\n")
    dags, errors = processed()
    assert dags == {"upload_flights": False}
    assert list(errors) == ["../jobs/trains.yaml"]
    assert "jobs/trains.yaml" in errors["../jobs/trains.yaml"]
    trains.write_text(FLIGHTS.replace("name: flights\n", "name: trains\n"))
    dags, _ = processed()
    assert dags == {"upload_flights": False, "upload_trains": False}
    manager.clear_orphaned_import_errors("dags-folder", {"upload_dags.py"})  # as it does whenever it looks for files
    assert processed()[1] == {}


# ------------------------------------------------------------------------------------------- weight, determinism


def test_reading_is_light_and_the_same_in_every_process(
    project: Path, airflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with another hash seed, and a checkout in another place, make the same DAGs as this one; what only
    tasks need is not imported."""
    other = tmp_path / "elsewhere" / "checkout"
    shutil.copytree(project / "jobs", other / "jobs")
    shutil.copy(project / "tidepost.yaml", other)
    done = subprocess.run(
        [sys.executable, parsing.__file__, str(DAG_FILE), str(DAG_FILE.parent)],
        env={**os.environ, "PYTHONHASHSEED": "1", "TIDEPOST_PROJECT": str(other)},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    there = json.loads(done.stdout.splitlines()[-1])
    monkeypatch.setenv("TIDEPOST_PROJECT", str(project))
    here = json.loads(json.dumps(parsing.read(str(DAG_FILE), str(DAG_FILE.parent))))
    assert there["modules"] == []
    assert set(there["dags"]) == {"upload_flights", "upload_trains"}
    assert (there["dags"], there["errors"]) == (here["dags"], here["errors"])
    assert str(project) not in json.dumps(here)
