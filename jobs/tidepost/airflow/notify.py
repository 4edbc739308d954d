"""Telling people that a run failed: the error's own words, by mail or however a project likes.

def post(text, context):
    SlackWebhookHook(slack_webhook_conn_id="slack").send(text=text)

globals().update(upload_dags(notify=post))
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow.sdk import BaseNotifier

from tidepost.airflow.operators import NotPlanned
from tidepost.errors import TidepostError

Send = Callable[[str, Mapping[str, Any]], None]
"""Takes a text and the context of the task that failed."""


class FailureNotifier(BaseNotifier):
    """A failure callback of tasks. It sends one text: what failed, what is safe, what to type, where the log is.

    to:   mail addresses, by Airflow's connection `smtp_default`
    send: is also given the text
    """

    def __init__(self, job: str, to: Sequence[str] = (), send: Send | None = None) -> None:
        super().__init__()
        self.job, self.to, self.send = job, tuple(to), send

    def notify(self, context: Mapping[str, Any]) -> None:
        if isinstance(context.get("exception"), NotPlanned):
            return
        text = failure_text(self.job, context)
        if self.send is not None:
            self.send(text, context)
        if self.to:
            mail(self.to, f"tidepost: {self.job} failed", text)


def failure_text(job: str, context: Mapping[str, Any]) -> str:
    """What to tell of a task that failed for good. Only errors of tidepost are quoted: these hold no secret and no
    row; of another only its kind is told."""
    error, task = context.get("exception"), context.get("ti")
    if isinstance(error, TidepostError):
        told = str(error)
    elif isinstance(error, BaseException):
        told = f"{type(error).__name__}; the log says more"
    else:
        told = "it was ended from outside, or ran out of time"
    run = context.get("run_id") or getattr(context.get("dag_run"), "run_id", "")
    lines = [f"The upload of {job} failed: task {getattr(task, 'task_id', '?')} of run {run}", f"  {told}"]
    if log := getattr(task, "log_url", None):
        lines.append(f"  Log: {log}")
    return "\n".join(lines)


def mail(to: Sequence[str], subject: str, text: str) -> None:
    """Send a mail by Airflow's connection `smtp_default`. Raises what its hook raises."""
    from airflow.providers.smtp.hooks.smtp import SmtpHook  # noqa: PLC0415 - only when there is something to tell

    with SmtpHook() as hook:
        hook.send_email_smtp(to=list(to), subject=subject, html_content=f"<pre>{html.escape(text)}</pre>")
