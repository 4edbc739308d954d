"""`tidepost demo`: a week of real flights to a platform on this machine, and the proof that each arrived once."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidepost.cli.command import Now, command
from tidepost.cli.output import count, size, span, table
from tidepost.cli.sandbox import installed
from tidepost.cli.session import Session, world_of
from tidepost.cli.upload import Carried, carry_out, finish, incremental
from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from rich.table import Table

    from tidepost.definition.job import Job
    from tidepost.definition.project import Project
    from tidepost.demo.demo import Logged, Moment
    from tidepost.demo.growing import LogSummary
    from tidepost.demo.proof import Day, Proof

_DAYS_IN_A_TABLE = 62


@command("demo", example="tidepost demo\ntidepost demo --days 365\ntidepost demo --dir flights-demo --port 8766")
def demo(
    session: Session,
    *,
    days: Annotated[int, typer.Option(min=1, max=365, metavar="N", help="How many days of 2013.")] = 7,
    now: Now = None,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="The project. Default: this one, else ./tidepost-demo."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The sandbox's port; 0 is any free one.")] = 8765,
) -> int:
    """Upload real flights to a local platform; show each arrived once.

    Running it again uploads nothing. Kill it at any moment and run it again: the numbers are the same.
    """
    began = time.monotonic()
    installed("demo", "fastapi", "uvicorn")
    from tidepost.demo.demo import JOB, create_project  # noqa: PLC0415 - these bring the whole engine along

    root = _root(session, directory)
    created = () if _has_job(root) else create_project(root)
    project = _load(root)
    ended = _run(session, project, project.job(JOB), _moment(days, now), port)
    if ended.proof is None:
        return finish(session, ended.carried)
    log, landings, reports = ended.log.flights, ended.log.landings, ended.log.reports
    proof, seconds = ended.proof, time.monotonic() - began
    young = max(0, log.rows - proof.logged)
    session.answer(
        {
            "project": str(root),
            "url": ended.url,
            "log": _summary(log),
            "landings": _summary(landings),
            "reports": _summary(reports),
            "run": ended.carried.document(),
            **_document(proof),
            "seconds": round(seconds, 3),
        },
        *([f"created {', '.join(str(path.relative_to(root)) for path in created)} in {root}"] if created else []),
        f"the log in {root / 'log' / JOB} holds {count(log.rows, 'row')} in {count(log.files, 'file')} "
        f"({size(log.bytes)})",
        f"labels lie in log/landings ({landings.rows:,}), and in log/reports ({reports.rows:,}), where one carrier "
        f"drops a file a week",
        ended.carried.text(),
        "",
        _table(proof),
        _verdict(proof, seconds),
        *([f"{count(young, 'row')} of the log had not settled yet: left for a later run."] if young else []),
        "",
        _next(root, port),
    )
    return 0 if proof.equal else 1


@dataclass(frozen=True, slots=True)
class _Ended:
    """A demo's run: where it sent to, the logs, what was done, and the proof of it, if it came to that."""

    url: str
    log: Logged
    carried: Carried
    proof: Proof | None


def _run(session: Session, project: Project, job: Job, moment: Moment, port: int) -> _Ended:
    from tidepost.demo.demo import environment, log_flights, platform, register_model  # noqa: PLC0415

    with ThreadPoolExecutor(1) as beside:
        writing = beside.submit(log_flights, project.root, moment)
        with platform(project.root / ".tidepost" / "sandbox", port) as url:
            register_model(url)
            log = writing.result()
            env = environment(url, os.environ)
            _refuse_elsewhere(job, env, url)
            carried = carry_out(
                session, project, job, incremental, clock=lambda: moment.clock, env=env, again="tidepost demo"
            )
            proof = None if carried.worst is not None else _prove(project, job, carried, moment.clock, env)
    return _Ended(url, log, carried, proof)


def _moment(days: int, now: str | None) -> Moment:
    from tidepost.cursor import parse_instant  # noqa: PLC0415
    from tidepost.demo.demo import Moment  # noqa: PLC0415

    if now is None:
        return Moment.after(days)
    try:
        return Moment.at(parse_instant(now))
    except ValueError as error:
        raise Misconfigured(f"--now {now}: {error}") from None


def _root(session: Session, folder: Path | None) -> Path:
    """The demo's project: the one asked for, the one around if it has the job, else a folder of its own."""
    if folder is not None:
        return folder.resolve()
    try:
        project = session.project()
    except Misconfigured:
        if session.folder is not None:
            raise
        return Path("tidepost-demo").resolve()
    return project.root if _has_job(project.root) else Path("tidepost-demo").resolve()


def _has_job(root: Path) -> bool:
    """Whether a folder is a project with the demo's job, under whatever file name, right or not."""
    from tidepost.definition.project import PROJECT_FILE  # noqa: PLC0415
    from tidepost.demo.demo import JOB  # noqa: PLC0415

    if not (root / PROJECT_FILE).is_file():
        return False
    project = _load(root)
    return any(path.stem == JOB for path in project.files()) or any(job.name == JOB for job in project.jobs())


def _load(root: Path) -> Project:
    from tidepost.definition.project import load_project  # noqa: PLC0415

    return load_project(root)


def _refuse_elsewhere(job: Job, env: Mapping[str, str], url: str) -> None:
    """The demo sends to its own sandbox only, whatever the job file was changed to."""
    places = [(to.url, job.where(*job.at(number), "url")) for number, to in enumerate(job.resolved(env).destinations)]
    for there, where in places:
        if there.rstrip("/") == url:
            continue
        raise Misconfigured(
            f"{where}: the job sends to {there}, not to the demo's sandbox at {url}",
            safe="Nothing was sent.",
            hint="Write ${SANDBOX_URL:-http://127.0.0.1:8765} there, or name a folder:  tidepost demo --dir DIR",
        )


def _prove(project: Project, job: Job, carried: Carried, clock: float, env: Mapping[str, str]) -> Proof:
    """Compare logs, ledger and platform up to where the run could read, or an earlier one read further."""
    from tidepost.demo.proof import prove  # noqa: PLC0415
    from tidepost.wire import ledger_of  # noqa: PLC0415

    with ledger_of(project, env) as ledger, world_of(project, job, ledger, clock=lambda: clock, env=env) as world:
        of_labels, labels = job.of_labels(), carried.labels
        labels_up_to = _read_up_to(of_labels, labels, clock) if of_labels is not None and labels is not None else None
        return prove(world, carried.outcome.stream, _read_up_to(job, carried, clock), labels_up_to=labels_up_to)


def _read_up_to(job: Job, carried: Carried, clock: float) -> int:
    from tidepost.cursor import SECOND, parse_instant  # noqa: PLC0415

    settled = int(clock - job.cursor.settle.total_seconds()) * SECOND
    frontier = carried.after.frontier
    return max(settled, parse_instant(frontier) if frontier else 0)


def _summary(log: LogSummary) -> dict[str, int]:
    return {"files": log.files, "rows": log.rows, "bytes": log.bytes, "written": log.written}


def _document(proof: Proof) -> dict[str, Any]:
    labels = None if proof.labels is None else {**asdict(proof.labels), "equal": proof.labels.equal}
    return {
        "days": [{"date": day.date.isoformat(), **_numbers(day)} for day in proof.days],
        "total": _numbers(proof),
        "labels": labels,
        "missing": proof.missing,
        "unknown": proof.unknown,
        "twice": proof.twice,
        "equal": proof.equal,
    }


def _numbers(of: Day | Proof) -> dict[str, int]:
    return {name: getattr(of, name) for name in ("logged", "published", "arrived", "labelled", "to_come", "never")}


def _table(proof: Proof) -> Table:
    """A line a day in New York; a line a month where these would be too many."""
    monthly = len(proof.days) > _DAYS_IN_A_TABLE
    heads = ("#in the log", "#published", "#arrived", "#labelled", "#to come", "#no label")
    shown = 3 if proof.labels is None else len(heads)
    sums: dict[str, list[int]] = {}
    for day in proof.days:
        found = sums.setdefault(f"{day.date:%B %Y}" if monthly else day.date.isoformat(), [0] * shown)
        for at, rows in enumerate(list(_numbers(day).values())[:shown]):
            found[at] += rows
    return table(
        ("month" if monthly else "day", *heads[:shown]),
        [(name, *(f"{rows:,}" for rows in found)) for name, found in sums.items()],
        total=("total", *(f"{rows:,}" for rows in list(_numbers(proof).values())[:shown])),
    )


def _verdict(proof: Proof, seconds: float) -> str:
    labels = proof.labels
    if proof.equal:
        rows = f"Each of the {count(proof.logged, 'row')} of the log arrived once. It took {span(seconds)}."
        if labels is None:
            return rows
        known = f"Each of the {count(labels.logged, 'label')} that are known arrived with its value."
        return (
            f"{rows}\n{known if labels.logged else 'No label is known yet.'} "
            f"{proof.to_come:,} are to come; {count(proof.never, 'flight')} get none, as they were cancelled or no "
            f"delay was recorded."
        )
    of_labels = ""
    if labels is not None and not labels.equal:
        of_labels = (
            f" {count(labels.missing, 'label')} did not arrive, {labels.wrong:,} have another value, "
            f"{labels.unknown:,} came from elsewhere."
        )
    return (
        f"Log and platform differ: {count(proof.missing, 'id')} of the log did not arrive, {proof.unknown:,} came "
        f"from elsewhere, {count(proof.twice, 'row')} came twice.{of_labels}\n"
        "If the sandbox's data or the ledger was removed by hand, remove .tidepost and log as well, and begin anew."
    )


def _next(root: Path, port: int) -> str:
    """What to try next, with what has to be typed before it."""
    here = Path.cwd()
    command = _command(here)
    moves = [] if here.is_relative_to(root) else [f"cd {os.path.relpath(root, here)}"]
    url = [] if port in (0, 8765) else [f"export SANDBOX_URL=http://127.0.0.1:{port}"]
    again = f"{command} demo" if port == 8765 else f"{command} demo --port {port}"
    sandbox = f"{command} sandbox" if port in (0, 8765) else f"{command} sandbox --port {port}"
    steps = [
        *((move, "the demo's project") for move in moves),
        (f"{command} status flights", "where the job stands"),
        ("ls .tidepost/staging/flights/inferences", "the files that were uploaded, and the records beside them"),
        (again, "once more: uploads nothing"),
        (f"{again} --days 14", "only the second week"),
        (f"{again} --days 365", "the whole year: 336,776 flights"),
        (sandbox, f"the platform: its page is at http://127.0.0.1:{port or 8765}"),
        *((line, "") for line in url),
        ("export ARTHUR_API_KEY=demo", "any key will do there"),
        (f"{command} run flights", "while the sandbox runs in another terminal"),
    ]
    width = max(len(step) for step, _ in steps)
    return "\n".join(["What to try next:", *(f"  {step:<{width}}  {what}".rstrip() for step, what in steps)])


def _command(here: Path) -> str:
    """How to call this command again from here: by its name where it is found, else by its path."""
    script = Path(sys.executable).with_name("tidepost")
    if shutil.which("tidepost") or not script.is_file():
        return "tidepost"
    return os.path.relpath(script, here) if script.is_relative_to(here) else str(script)
