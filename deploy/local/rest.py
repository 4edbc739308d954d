"""Airflow's REST API, as a client sees it: https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any, Final, TypeVar

import requests

T = TypeVar("T")

FINISHED: Final = frozenset({"success", "failed"})
_REQUEST_SECONDS: Final = 60.0
_BACKFILL_SECONDS: Final = 120.0


class NotInTime(Exception):
    """What was waited for did not come."""


class Rest:
    """The API of one Airflow, asked as one of its users.

    url: of the api-server, without a slash at the end
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url
        self._user, self._password = user, password
        self._token: str | None = None

    # ------------------------------------------------------------------------------------------- requests

    def answer(self, method: str, path: str, body: object = None, **query: Any) -> requests.Response:
        """What a request below `/api/v2` is answered, whatever its status."""
        if self._token is None:
            login = {"username": self._user, "password": self._password}
            granted = requests.post(f"{self.url}/auth/token", json=login, timeout=_REQUEST_SECONDS)
            granted.raise_for_status()
            self._token = str(granted.json()["access_token"])
        return requests.request(
            method,
            f"{self.url}/api/v2{path}",
            json=body,
            params=query,
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=_REQUEST_SECONDS,
        )

    def ask(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        """The JSON that a request is answered; requests.HTTPError, with what the server said, where it refuses."""
        return _said(self.answer(method, path, body, **query))

    def get(self, path: str, **query: Any) -> Any:
        return self.ask("GET", path, **query)

    # ------------------------------------------------------------------------------------- what runs there

    def health(self) -> dict[str, str | None]:
        """The state of each component, `healthy` at best; empty while nothing answers."""
        try:
            found = requests.get(f"{self.url}/api/v2/monitor/health", timeout=_REQUEST_SECONDS).json()
        except (requests.ConnectionError, requests.Timeout, ValueError):
            return {}
        return {name: part["status"] for name, part in found.items()}

    def wait_for_dag(self, dag: str, *, seconds: float = 90.0) -> None:
        """Return once a DAG was read. NotInTime, with what could not be imported, where it was not."""
        try:
            until(lambda: self.answer("GET", f"/dags/{dag}").ok, f"the DAG {dag}", seconds=seconds)
        except NotInTime as error:
            errors = [str(one["stack_trace"]) for one in self.get("/importErrors")["import_errors"]]
            raise NotInTime("\n".join([str(error), *errors])) from None

    def resume(self, dag: str) -> None:
        """Unpause a DAG."""
        self.ask("PATCH", f"/dags/{dag}", {"is_paused": False})

    def pause(self, dag: str) -> None:
        self.ask("PATCH", f"/dags/{dag}", {"is_paused": True})

    def trigger(self, dag: str, **conf: Any) -> str:
        """Start a run by hand with what the form would ask for; returns its id."""
        return str(self.ask("POST", f"/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"])

    def backfill(self, dag: str, start: str, end: str, *, at_once: int = 2, reprocess: str = "none") -> int:
        """Start a backfill over the schedule's intervals in [start, end]; returns its id.

        Airflow refuses a second one of a DAG, and any while another process writes to SQLite: both are waited for. It
        notices half a minute late that a backfill is over.
        """
        body = {
            "dag_id": dag,
            "from_date": start,
            "to_date": end,
            "max_active_runs": at_once,
            "reprocess_behavior": reprocess,
        }

        def begin() -> int | None:
            answer = self.answer("POST", "/backfills", body)
            busy = answer.status_code in (HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE)
            return None if busy else int(_said(answer)["id"])

        return until(begin, f"a backfill of {dag}", seconds=_BACKFILL_SECONDS, every=1)

    def runs(self, dag: str, **query: Any) -> list[dict[str, Any]]:
        """A DAG's runs, the oldest first."""
        return list(self.get(f"/dags/{dag}/dagRuns", order_by="id", limit=1000, **query)["dag_runs"])

    def run(self, dag: str, run: str) -> dict[str, Any]:
        return dict(self.get(f"/dags/{dag}/dagRuns/{run}"))

    def tasks(self, dag: str, run: str, task: str | None = None) -> list[dict[str, Any]]:
        """A run's task instances, mapped ones each; of one task, where it is named."""
        found = self.get(f"/dags/{dag}/dagRuns/{run}/taskInstances", limit=1000)["task_instances"]
        return [one for one in found if task in (None, one["task_id"])]

    def log(self, dag: str, run: str, task: str, *, index: int = -1, attempt: int = 1) -> str:
        """A task's log as text."""
        path = f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{attempt}"
        lines = self.get(path, map_index=index, full_content=True)["content"]
        return "\n".join(str(line.get("event", line)) if isinstance(line, dict) else str(line) for line in lines)

    def clear(self, dag: str, run: str) -> None:
        """Let all tasks of a run run again."""
        self.ask("POST", f"/dags/{dag}/dagRuns/{run}/clear", {"dry_run": False, "only_failed": False})

    def finished(self, dag: str, run: str, *, seconds: float = 120.0) -> dict[str, Any]:
        """A run, once it has come to an end, well or not."""

        def look() -> dict[str, Any] | None:
            found = self.run(dag, run)
            return found if found["state"] in FINISHED else None

        return until(look, f"the end of {dag}/{run}", seconds=seconds)


def _said(answer: requests.Response) -> Any:
    if not answer.ok:
        asked = f"{answer.request.method} {answer.request.path_url}"
        raise requests.HTTPError(f"{asked}: {answer.status_code} {answer.text[:2000]}", response=answer)
    return answer.json() if answer.content else None


def until(
    look: Callable[[], T | None],
    what: str,
    *,
    seconds: float,
    every: float = 0.5,
    alive: Callable[[], bool] = lambda: True,
) -> T:
    """The first truthy answer of `look`, asked again until then. NotInTime names what was waited for.

    alive: ends the waiting at once when it says no
    """
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise NotInTime(f"{what}: not within {seconds:g} s")
        if not alive():
            raise NotInTime(f"{what}: what it was expected of has ended")
        time.sleep(every)
    return found


def healthy(rest: Rest, components: Collection[str]) -> bool:
    """Whether all these components say that they are well."""
    states = rest.health()
    return all(states.get(name) == "healthy" for name in components)
