"""An Airflow of many workers on this machine: each part a process of its own, as on many machines.

PostgreSQL holds Airflow's metadata and tidepost's ledger, S3 the staging; Redis carries tasks to Celery's workers.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.program import Program
from deploy.local.rest import NotInTime, Rest, healthy, until
from deploy.local.servers import S3, Postgres, postgres, redis_server, s3_server
from deploy.local.settings import ADMIN, Place, free_port
from deploy.local.standalone import COMPONENTS

PARTS: Final = ("api-server", "scheduler", "dag-processor", "triggerer")
BUCKET: Final = "staging"
_READY_SECONDS: Final = 300.0
_MIGRATE_SECONDS: Final = 300.0
_LOST: Final = {
    # A worker that dies is noticed by its tasks' silence: after five minutes by default, which suits hosts that
    # are far apart and busy, not people who watch.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    # What it had taken from Redis and not begun is queued again.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "40",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
}


@dataclass
class Cluster:
    """A cluster that runs, and its workers by name; these may be killed and started again."""

    rest: Rest
    workers: dict[str, Program]
    database: Postgres
    s3: S3
    env: dict[str, str]


@contextmanager
def cluster(place: Place, more: Mapping[str, str], *, workers: int = 2) -> Iterator[Cluster]:
    """A healthy cluster for the block. NotInTime, with what the parts said, where it does not come up.

    more: variables for its processes, on top of `place.environment`
    """
    place.prepare()
    airflow = Path(sys.executable).with_name("airflow")
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        broker = stack.enter_context(redis_server(place.home / "redis"))
        s3 = stack.enter_context(s3_server(place.home / "s3"))
        database.create("airflow")
        database.create("ledger")
        s3.create(BUCKET)
        env = place.environment(_connected(database, broker, s3) | dict(more))
        _migrate(airflow, place, env)

        def run(name: str, *command: str, **extra: str) -> Program:
            log = place.home / f"{name}.log"
            return Program([airflow, *command], log=log, env=env | extra, cwd=place.home)

        parts: dict[str, Program] = {}
        stack.callback(_stop, parts.values())
        parts |= {name: run(name, name) for name in PARTS}
        for name in (f"w{number}" for number in range(1, workers + 1)):
            logs = {"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port())}
            parts[name] = run(
                name, "celery", "worker", "--celery-hostname", f"{name}@%h", "--concurrency", "2", **logs
            )
        for part in parts.values():
            part.start()
        found = Cluster(
            rest=Rest(place.url, ADMIN, place.password),
            workers={name: part for name, part in parts.items() if name not in PARTS},
            database=database,
            s3=s3,
            env=env,
        )
        _wait(found, parts)
        yield found


def executed(worker: Program) -> list[str]:
    """The tasks that a worker took, each as often as it did: `dag_id=…/run_id=…/task_id=…/map_index=…/attempt=…`."""
    return re.findall(
        r"Executing workload in Celery: .*?log_path='([^']*)\.log'", worker.log.read_text(errors="replace")
    )


def _stop(parts: Iterable[Program]) -> None:
    """End all at once: each has its own patience."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(Program.stop, parts))


def ready(worker: Program) -> bool:
    """Whether a worker has begun to take tasks."""
    return " ready." in worker.said()


def _connected(database: Postgres, broker: str, s3: S3) -> dict[str, str]:
    return {
        **s3.env,
        **_LOST,
        "AIRFLOW__CELERY__BROKER_URL": broker,
        "AIRFLOW__CELERY__RESULT_BACKEND": database.url("airflow", "db+postgresql"),
        "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__PARALLELISM": "16",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url("airflow", "postgresql+psycopg2"),
        "TIDEPOST_LEDGER": database.url("ledger"),
        "TIDEPOST_STAGING": f"s3://{BUCKET}/tidepost",
    }


def _migrate(airflow: Path, place: Place, env: Mapping[str, str]) -> None:
    """Set up Airflow's database, and the ledger's. NotInTime, with what was said, where that fails."""
    tidepost = airflow.with_name("tidepost")
    for command in ((airflow, "db", "migrate"), (tidepost, "ledger", "migrate")):
        done = subprocess.run(
            command, cwd=place.project, env=env, capture_output=True, text=True, timeout=_MIGRATE_SECONDS, check=False
        )
        if done.returncode:
            raise NotInTime(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")


def _wait(found: Cluster, parts: Mapping[str, Program]) -> None:
    def up() -> bool:
        return healthy(found.rest, COMPONENTS) and all(map(ready, found.workers.values()))

    def alive() -> bool:
        return all(part.running for part in parts.values())

    try:
        until(up, "a healthy cluster", seconds=_READY_SECONDS, alive=alive)
    except NotInTime as error:
        said = "\n".join(f"{name}: {part.said()}" for name, part in parts.items() if not part.running)
        raise NotInTime(f"{error}\n{said}") from None
