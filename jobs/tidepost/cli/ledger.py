"""`tidepost ledger`: a ledger lost, and what is done to one by hand."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from tidepost.cli.command import JobName, app, command
from tidepost.cli.output import count, instant, short, table, write
from tidepost.cli.session import Session, existing_ledger
from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from tidepost.cursor import CursorKind
    from tidepost.definition.job import Job
    from tidepost.definition.project import Project
    from tidepost.ledger.summary import AuditEntry
    from tidepost.model import Stream
    from tidepost.ports import StagingArea
    from tidepost.recovery.acts import Move, Word
    from tidepost.recovery.found import Found
    from tidepost.recovery.rebuild import Rebuilt
    from tidepost.world import World

Why: TypeAlias = Annotated[str, typer.Option(metavar="TEXT", help="For the record: why.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask; needed without a terminal.")]

group: Final = typer.Typer(
    epilog="\b\nExample:\n  tidepost ledger rebuild\n  tidepost ledger history flights",
    rich_markup_mode=None,
)
app.add_typer(group, name="ledger")


@group.callback(invoke_without_command=True)
def ledger(context: typer.Context) -> None:
    """Rebuild a lost ledger, bring one up to date, look at what was done by hand."""
    if context.invoked_subcommand is None:
        write(context.get_help())


def of_ledger(name: str, *, example: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """As `command`, but the command is one of `tidepost ledger`."""

    def register(function: Callable[..., int]) -> Callable[..., int]:
        command(name, example=example)(function)
        group.registered_commands.append(app.registered_commands.pop())
        return function

    return register


# ------------------------------------------------------------------------------------------------------ rebuild


@of_ledger("rebuild", example="tidepost ledger rebuild\ntidepost ledger rebuild flights --yes")
def rebuild(
    session: Session,
    *,
    jobs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB]...", help="The jobs' names. Default: all.", show_default=False),
    ] = None,
    yes: Yes = False,
) -> int:
    """Rebuild a lost ledger from what the staging holds.

    Stop what runs first. Afterwards nothing is sent twice: what may have arrived is asked about.
    """
    from tidepost.ledger.owner import this_person  # noqa: PLC0415 - these bring the whole engine along
    from tidepost.recovery.rebuild import look  # noqa: PLC0415
    from tidepost.wire import ledger_of, staging_of  # noqa: PLC0415

    project = session.project()
    chosen, problems = _jobs(project, jobs)
    staging = staging_of(project)
    with existing_ledger(project) as ledger:
        lost = [(job, found) for job in chosen for found in look(job, staging, ledger)]
    done: list[Rebuilt] = []
    if lost and confirmed(_asked(lost), "Rebuild the ledger from that?", yes=yes):
        with ledger_of(project) as ledger:
            done = [_rebuilt(job, found, ledger, staging, this_person()) for job, found in lost]
    session.answer(
        {"rebuilt": [_document(one) for one in done], "problems": problems},
        *(_text(done) if done else ["nothing was rebuilt" if lost else _AGREES]),
        *(f"not looked at, as its file is wrong: {problem}" for problem in problems),
    )
    return 0


_AGREES: Final = "nothing to rebuild: the ledger knows all that the staging holds"


def _jobs(project: Project, names: Sequence[str] | None) -> tuple[list[Job], list[str]]:
    """The jobs of those names, each once, or all; and what is wrong with the files of the others."""
    if names:
        return [project.job(name) for name in dict.fromkeys(names)], []
    definitions = project.definitions()
    return list(definitions.jobs), [error.message for error in definitions.problems]


def _rebuilt(job: Job, found: Found, ledger: Any, staging: StagingArea, who: str) -> Rebuilt:
    from tidepost.engine import Engine  # noqa: PLC0415
    from tidepost.recovery.rebuild import rebuild as take_over  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="tidepost-") as scratch:
        engine = Engine(job.limits.memory, job.limits.threads, Path(scratch))
        return take_over(job, found, ledger, staging=staging, records=staging, engine=engine, who=who, at=time.time())


def _asked(lost: Sequence[tuple[Job, Found]]) -> str:
    return "\n".join(
        f"{found.stream.job}, {found.stream.name}: {count(len(found.slices), 'slice')} of {count(found.rows, 'row')}"
        for _, found in lost
    )


def _document(of: Rebuilt) -> dict[str, Any]:
    return {
        "job": of.job,
        "stream": of.name,
        "slices": of.slices,
        "rows": of.rows,
        "half_published": of.half,
        "deliveries": {name: dict(states) for name, states in of.deliveries.items()},
        "strangers": list(of.strangers),
    }


def _text(done: Sequence[Rebuilt]) -> Iterator[str]:
    for one in done:
        yield f"{one.job}, {one.name}: {count(one.slices, 'slice')} of {count(one.rows, 'row')}"
        for name, states in one.deliveries.items():
            yield f"  at {name}: {', '.join(f'{number:,} {state}' for state, number in states.items())}"
        if one.half is not None:
            yield f"  slice {one.half} was not published yet: what was visible of it is removed, its rows come again"
        for name in one.strangers:
            yield f"  {name} is no destination of the job any more; what was sent there is recorded"
        yield f"  Go on:  tidepost run {one.job}"


# ------------------------------------------------------------------------------------------------------ migrate


@of_ledger("migrate", example="tidepost ledger migrate")
def migrate(session: Session) -> int:
    """Set up the tables of a new ledger, or bring those of an older one up to date.

    SQLite does so by itself; a ledger on a server waits for this command.
    """
    from tidepost.ledger import open_ledger  # noqa: PLC0415 - the ledger's database is heavy
    from tidepost.ledger.restore import revision  # noqa: PLC0415
    from tidepost.ledger.schema import REVISION  # noqa: PLC0415

    project = session.project()
    url = project.ledger_url()
    before = revision(url)
    open_ledger(url, migrate=True).close()
    where = project.ledger_file() or project.ledger
    text = (
        f"the ledger is at version {REVISION} already"
        if before == REVISION
        else f"the ledger was set up at version {REVISION}"
        if before is None
        else f"the ledger was brought from version {before} to {REVISION}"
    )
    session.answer({"ledger": str(where), "from": before, "to": REVISION}, f"{text}: {where}")
    return 0


# ------------------------------------------------------------------------------------------------- set-frontier


@dataclass(frozen=True, slots=True)
class Proposal:
    """What setting the frontier to a position would do; `move` is None where it is there already."""

    move: Move | None
    old: str
    new: str
    clamped: bool


@of_ledger(
    "set-frontier", example='tidepost ledger set-frontier flights 2013-03-01 --why "sent before, by another tool"'
)
def set_frontier(
    session: Session,
    *,
    job: JobName,
    position: Annotated[
        str, typer.Argument(metavar="POSITION", help="A time, a date or a number, as the cursor is.")
    ],
    why: Why,
    yes: Yes = False,
) -> int:
    """Say up to where the source counts as scanned.

    Forward: rows below that were not sent are not looked for any more. Back: everything from there on is looked at
    again, and what was sent is not sent twice. Who did it and why is recorded.
    """
    from tidepost.cli.looking import looking_at  # noqa: PLC0415
    from tidepost.model import StreamName  # noqa: PLC0415
    from tidepost.publishing.publish import agree  # noqa: PLC0415
    from tidepost.recovery import acts  # noqa: PLC0415 - these bring the whole engine along

    word = written_by_hand(why, time.time())
    project = session.project()
    definition = project.job(job)
    with existing_ledger(project) as ledger:
        stream = None if ledger is None else ledger.plans.find(job, StreamName.INFERENCES)
        if ledger is None or stream is None:
            raise Misconfigured(f"{job} never ran", hint="cursor.start in its file says where it begins.")
        with looking_at(project, definition, time.time) as world:
            agree(ledger, world.records, stream)
            coverage = ledger.plans.coverage(stream)
            acts.refuse_open_cuts(stream, coverage)
            found = _proposal(world, stream, position)
            document = {"job": job, "old": found.old, "new": found.new, "changed": found.move is not None}
            text = f"the frontier of {job} goes from {short(found.old)} to {short(found.new)}"
            if found.move is None:
                session.answer(document, f"the frontier of {job} is at {short(found.old)}: nothing was changed")
                return 0
            forward = "rows below that were not sent are not looked for any more"
            effect = forward if found.move.start is not None else "everything from there on is looked at again"
            if not confirmed(f"{text}: {effect}", "Set it?", yes=yes):
                session.answer({**document, "changed": False}, "nothing was changed")
                return 0
            acts.set_frontier(
                ledger, world.records, stream, found.move, word, coverage=coverage, old=found.old, new=found.new
            )
    session.answer(
        document,
        text.replace(" goes ", " went "),
        *(["  there is no settled row beyond"] if found.clamped else []),
        f"  Go on:  tidepost run {job}",
    )
    return 0


def _proposal(world: World, stream: Stream, position: str) -> Proposal:
    from tidepost.planning.plan import frontier  # noqa: PLC0415
    from tidepost.planning.prospect import start_of  # noqa: PLC0415
    from tidepost.ports import OfLanes  # noqa: PLC0415
    from tidepost.recovery.acts import move_to  # noqa: PLC0415

    if isinstance(world.source, OfLanes):
        raise Misconfigured(
            f"{stream.job} reads lanes, each of which has a frontier of its own; none can be set",
            safe="Nothing was changed.",
            hint=f"Messages that are gone are passed over by:  tidepost run {stream.job} --accept-loss",
        )
    kind = world.source.cursor()
    start, wanted = start_of(world.job, kind), kind.parse(position)
    now = frontier(start, world.ledger.plans.coverage(stream).scanned)
    move = move_to(wanted, start=start, frontier=now, bound=_bound(world, kind, now, wanted))
    reached = now if move is None else move.position
    return Proposal(move, kind.format(now), kind.format(reached), clamped=reached < wanted)


def _bound(world: World, kind: CursorKind, frontier: int, wanted: int) -> int | None:
    """The end of what a run may read between the frontier and a position; None where there is no settled row."""
    from tidepost.planning.plan import bound  # noqa: PLC0415
    from tidepost.ranges import Range  # noqa: PLC0415

    limit = wanted
    if kind.timed:
        settled = min(world.clock(), world.source.clock() or float("inf")) - world.job.cursor.settle.total_seconds()
        limit = min(wanted, kind.floor(int(settled * 1_000_000) * 1_000))
    if limit <= frontier:
        return None
    return bound(limit, world.source.survey(Range(frontier, limit)).highest, kind.tick)


# ------------------------------------------------------------------------------------------------------ history


@of_ledger("history", example="tidepost ledger history flights --limit 5")
def history(
    session: Session,
    *,
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="The job's name. Default: all.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Of the newest entries.")] = 20,
) -> int:
    """Show what was done by hand: when, by whom, and why."""
    from tidepost.ledger.restore import SqlRestore  # noqa: PLC0415 - the ledger's database is heavy

    project = session.project()
    with existing_ledger(project) as ledger:
        found = [] if ledger is None else SqlRestore(ledger).history(job, limit)
    if job is not None and not found:
        project.job(job)  # a name that is none is told so
    session.answer(
        {"history": [_entry(of, one) for of, one in found]},
        table(
            ("when", "job", "who", "what", "old", "new", "why"),
            [(instant(one.at) or "", of, one.who, one.what, one.old, one.new, one.why) for of, one in found],
        )
        if found
        else "nothing was done by hand",
    )
    return 0


def _entry(job: str, of: AuditEntry) -> dict[str, Any]:
    return {
        "job": job,
        "at": instant(of.at),
        "who": of.who,
        "what": of.what,
        "old": of.old,
        "new": of.new,
        "why": of.why,
    }


# --------------------------------------------------------------------------------------------- of all acts by hand


def written_by_hand(why: str, at: float) -> Word:
    """Whose word an act is. Raises Misconfigured where no reason is given."""
    from tidepost.ledger.owner import this_person  # noqa: PLC0415
    from tidepost.recovery.acts import Word  # noqa: PLC0415

    if not why.strip():
        raise Misconfigured("--why is empty", hint="Whoever looks at the record later will want to know.")
    return Word(this_person(), at, why)


def confirmed(what: str, question: str, *, yes: bool) -> bool:
    """Ask on the terminal, unless somebody has said yes already. Raises Misconfigured where nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Misconfigured(
            "there is no terminal to ask on", safe="Nothing was changed.", hint="Say that you mean it:  --yes"
        )
    write(what, sys.stderr)
    return typer.confirm(question, err=True)
