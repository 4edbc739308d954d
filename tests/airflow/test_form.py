"""What the trigger form and REST refuse, which errors are retried, and what people are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.environment import ROOT

from tidepost.airflow.asked import KEYS
from tidepost.errors import Differs, HeldElsewhere, Misconfigured, Refused, Retryable, TidepostError, Unknown

FLIGHTS = (ROOT / "jobs" / "flights.yaml").read_text()
FROM, TO = "2013-01-01T05:00:00Z", "2013-01-02 05:00+01:00"


@pytest.fixture
def form_of(airflow_home: Path, tmp_path: Path) -> Callable[[str], Any]:
    """Makes the form of a job whose cursor is as a line of YAML says, as Airflow's server keeps it."""
    from airflow.serialization.serialized_objects import DagSerialization  # noqa: PLC0415 - after its settings

    from tidepost.airflow import upload_dags  # noqa: PLC0415

    def made(cursor: str) -> Any:
        (tmp_path / "jobs").mkdir(exist_ok=True)
        (tmp_path / "tidepost.yaml").write_text("version: 1\n")
        head, _, rest = FLIGHTS.partition("cursor:\n")
        text = f"{head}cursor: {cursor}\n\nmapping:{rest.partition('mapping:')[2]}"
        (tmp_path / "jobs" / "flights.yaml").write_text(text)
        (dag,) = upload_dags(tmp_path).values()
        return DagSerialization.from_dict(DagSerialization.to_dict(dag)).params

    return made


@pytest.fixture
def trigger(form_of: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    """What Airflow makes of the values that a run is triggered with, by its form, REST or command line."""
    form = form_of("{column: logged_at, start: 2013-01-01T05:00:00Z}")
    return lambda conf: dict(form.deep_merge(conf).validate())


def test_the_form_asks_for_what_is_read_of_it(form_of: Callable[[str], Any]) -> None:
    assert tuple(form_of("{column: logged_at, start: 2013-01-01}")) == KEYS


@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"mode": "range", "from": FROM, "to": TO},
        {"mode": "reconcile", "from": "2013-01-01", "to": "2013-01-02", "by_event": True, "dry_run": True},
        {"mode": "resend", "from": None, "to": None},
        {"stream": "ground_truth", "files": ["a.csv", "s3://bucket/b.csv"]},
    ],
    ids=json.dumps,
)
def test_what_may_be_asked_is_taken(trigger: Callable[..., dict[str, Any]], conf: dict[str, Any]) -> None:
    assert trigger(conf) == {
        "mode": "incremental",
        "from": None,
        "to": None,
        "by_event": False,
        "dry_run": False,
        "stream": "both",
        "files": None,
        **conf,
    }


@pytest.mark.parametrize(
    ("conf", "key"),
    [
        ({"mode": "everything"}, "mode"),
        ({"mode": None}, "mode"),
        ({"mode": "range", "from": "yesterday", "to": TO}, "from"),
        ({"mode": "range", "from": "2013-01-01T05:00:00", "to": TO}, "from"),
        ({"mode": "range", "from": FROM, "to": "4711"}, "to"),
        ({"mode": "range", "from": 20130101, "to": TO}, "from"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"by_event": 1}, "by_event"),
        ({"stream": "labels"}, "stream"),
        ({"files": "a.csv"}, "files"),
    ],
    ids=json.dumps,
)
def test_wrong_values_are_refused_before_there_is_a_run(
    trigger: Callable[..., dict[str, Any]], conf: dict[str, Any], key: str
) -> None:
    from airflow.exceptions import ParamValidationError  # noqa: PLC0415

    with pytest.raises(ParamValidationError, match=f"Invalid input for param {key}"):
        trigger(conf)


@pytest.mark.parametrize(
    ("cursor", "taken", "refused"),
    [
        ("{column: n, start: 0}", "4711", "abc"),
        ("{column: id, start: 01890a5d-ac96-774b-bcce-b302099a8057}", "01890A5D-ac96-774b-bcce-b302099a8057", "5"),
        ("{column: at, start: 2013-01-01, type: date}", "2013-01-03", "3.1.2013"),
        ("{column: at, start: 2013-01-01T05:00:00, timezone: Europe/Berlin}", "2013-01-03 05:00", "05:00"),
    ],
)
def test_a_position_is_what_the_cursor_is(
    form_of: Callable[[str], Any], cursor: str, taken: str, refused: str
) -> None:
    from airflow.exceptions import ParamValidationError  # noqa: PLC0415

    form = form_of(cursor)
    assert form.deep_merge({"from": taken}).validate()["from"] == taken
    with pytest.raises(ParamValidationError, match="Invalid input for param from"):
        form.deep_merge({"from": refused}).validate()


# ---------------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize(
    ("error", "action", "delay"),
    [
        (Misconfigured("a key is missing"), "fail", None),
        (Refused("too many rows were rejected"), "fail", None),
        (Differs("rows are lost"), "fail", None),
        (Retryable("the platform is down"), "retry", None),
        (Retryable("the platform is busy", retry_after=90), "retry", 90),
        (Retryable("the platform is shy", retry_after=1e9), "retry", 3600),
        (Unknown("it may have landed"), "retry", None),
        (HeldElsewhere("another run has the cut"), "retry", None),
        (OSError("no space left"), "default", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_only_what_a_retry_can_mend_is_tried_again(
    airflow_home: Path, error: Exception, action: str, delay: float | None
) -> None:
    from tidepost.airflow.policy import Retries  # noqa: PLC0415

    found = Retries().evaluate(error, 1, 5)
    assert found.action.value == action
    assert found.retry_delay == (None if delay is None else timedelta(seconds=delay))
    assert str(error) not in (found.reason or ""), "Airflow keeps the reason where no error is expected"


# ---------------------------------------------------------------------------------------------- notifications


def failed(error: object) -> dict[str, Any]:
    """The context of a task that failed."""
    task = SimpleNamespace(task_id="plan", log_url="http://airflow/log")
    return {"exception": error, "ti": task, "run_id": "manual__1", "dag_run": None}


def test_people_are_told_what_happened_what_is_safe_and_what_to_type(airflow_home: Path) -> None:
    from tidepost.airflow.notify import failure_text  # noqa: PLC0415

    error = Refused("12 rows were refused", safe="Nothing was lost.", hint="tidepost rejects flights")
    assert failure_text("flights", failed(error)) == (
        "The upload of flights failed: task plan of run manual__1\n"
        "  12 rows were refused\n"
        "  Nothing was lost.\n"
        "  tidepost rejects flights\n"
        "  Log: http://airflow/log"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("postgresql://me:hush@db"), "ValueError; the log says more"),
        ("Task was killed externally: hush", "it was ended from outside, or ran out of time"),
        (None, "it was ended from outside, or ran out of time"),
    ],
)
def test_of_errors_that_are_not_ours_only_the_kind_is_told(airflow_home: Path, error: object, said: str) -> None:
    from tidepost.airflow.notify import failure_text  # noqa: PLC0415

    text = failure_text("flights", failed(error))
    assert said in text
    assert "hush" not in text


def test_a_mail_goes_to_whom_the_job_names(airflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook  # noqa: PLC0415

    from tidepost.airflow.notify import FailureNotifier  # noqa: PLC0415
    from tidepost.airflow.operators import NotPlanned  # noqa: PLC0415

    mails: list[dict[str, Any]] = []

    monkeypatch.setattr(SmtpHook, "__enter__", lambda hook: hook)
    monkeypatch.setattr(SmtpHook, "__exit__", lambda hook, *_: None)
    monkeypatch.setattr(SmtpHook, "send_email_smtp", lambda hook, **mail: mails.append(mail))
    notifier = FailureNotifier("flights", ["delays@example.com"])
    notifier(failed(TidepostError("1 < 2")))
    (mail,) = mails
    assert (mail["to"], mail["subject"]) == (["delays@example.com"], "tidepost: flights failed")
    assert "1 &lt; 2" in mail["html_content"]
    notifier(failed(NotPlanned("plan failed, and that was told")))
    assert len(mails) == 1
