"""`tidepost reconcile`: the source, what was published, and what a platform shows, compared row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tidepost.cli.command import JobName, Now, OfStream, command
from tidepost.cli.covered import coverage_text, covered
from tidepost.cli.failures import code_of, show, told
from tidepost.cli.ledger import Yes, confirmed
from tidepost.cli.output import count, rendered, short, table, write
from tidepost.cli.session import Session, clock_at, existing_ledger, world_of
from tidepost.cli.stopping import stoppable
from tidepost.errors import Differs, Misconfigured, Refused, TidepostError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tidepost.comparing.numbers import Bucket, LaneNumbers, Reconciled
    from tidepost.comparing.reconcile import Reconciling, Scope
    from tidepost.comparing.results import Difference
    from tidepost.cursor import CursorKind
    from tidepost.outcome import Outcome
    from tidepost.ports import Destination
    from tidepost.world import World

SHOWN: Final = 20
_WHY: Final = "reconciled: rows that had arrived are not there any more"


class Every(StrEnum):
    HOUR = "hour"
    DAY = "day"


class By(StrEnum):
    CURSOR = "cursor"
    EVENT = "event"


From = Annotated[str | None, typer.Option("--from", metavar="START", help="Where the range starts.")]
To = Annotated[str | None, typer.Option("--to", metavar="END", help="Where it ends; not part of it.")]
OnlyAt = Annotated[
    str | None,
    typer.Option("--destination", metavar="NAME", help="Only this destination. Default: all of the job."),
]
ByWhat = Annotated[By, typer.Option("--by", help="What the range is of: the cursor, or the inferences' own time.")]


@command(
    "reconcile",
    example="tidepost reconcile flights\n"
    "tidepost reconcile flights --from 2013-01-03 --to 2013-01-05 --by event --every hour\n"
    "tidepost reconcile flights --destination arthur --repair\n"
    "tidepost reconcile flights --stream ground_truth",
)
def reconcile(
    session: Session,
    *,
    job: JobName,
    start: From = None,
    end: To = None,
    by: ByWhat = By.CURSOR,
    every: Annotated[Every, typer.Option(help="Count by hour or by day of the inferences' time.")] = Every.DAY,
    destination: OnlyAt = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the numbers there: .parquet, .json or .csv.")
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all ids that differ there: .parquet, .json or .csv."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Send what is lost or missing, then compare again.")
    ] = False,
    yes: Yes = False,
    now: Now = None,
    stream: OfStream = "inferences",
) -> int:
    """Compare every row of the source with what was published and what has arrived.

    Shows for each hour or day how many rows are where, and the ids that differ; of a destination that cannot be
    asked, what it took. Only reads, unless --repair is given: then it asks, and sends what is lost or missing. Ends
    with 7 where rows are lost, missing or doubled, and with what kept a repair from its end.
    """
    with reconciling(session, job, every, now, stream=stream) as found:
        if found is None:
            raise Misconfigured(f"{job} never ran", hint=f"tidepost run {job}")
        world, kind, it = found
        scope, chosen = scope_of(kind, start, end, by), at(world, destination)
        result = it.reconcile(scope, chosen)
        document = _document(job, kind, result, it.differences() if session.as_json else ())
        if not session.as_json:
            write(rendered(*_text(job, kind, result, it)))
        repaired: dict[str, Any] | None = None
        unfinished = 0
        if repair and _asked(job, result, yes=yes):
            outcomes = _repaired(session, it, result)
            repaired = _told(outcomes, sum(sum(of.values()) for of in result.lost.values()))
            unfinished = _code(outcomes)
            result = it.reconcile(scope, chosen)
            document = _document(job, kind, result, it.differences() if session.as_json else ())
            if not session.as_json:
                write(rendered(_summary(job, repaired, unfinished), *_text(job, kind, result, it)))
            for each in [error for one in outcomes for error in one.errors]:
                show(told(each, verbose=session.verbose), as_json=False)
        _write_files(it, out, ids)
        project = session.project()
        of = None if stream == "inferences" else covered(project, project.job(job), it.ledger, world.clock())
        if of is not None and not session.as_json:
            write(rendered("", *coverage_text(of)))
    where = "" if destination is None else f" --destination {destination}"
    failure = _failure(job, result, where + ("" if stream == "inferences" else f" --stream {stream}"))
    more = {} if repaired is None else {"repaired": repaired}
    if of is not None:
        more["coverage"] = asdict(of)
    error = {} if failure is None else {"error": told(failure, verbose=session.verbose)}
    if session.as_json:
        session.answer({**document, **more, **error})
    elif failure is not None:
        show(told(failure, verbose=session.verbose), as_json=False)
    return unfinished if failure is None else failure.exit_code


# ------------------------------------------------------------------------------------------------------ shared


@contextmanager
def reconciling(
    session: Session, job: str, every: str, now: str | None, *, stream: str = "inferences"
) -> Iterator[tuple[World, CursorKind, Reconciling] | None]:
    """What comparing a job needs; None where it never ran. Raises Misconfigured where what may not change has."""
    from tidepost.agenda import registered  # noqa: PLC0415
    from tidepost.comparing.reconcile import Reconciling  # noqa: PLC0415
    from tidepost.model import StreamName  # noqa: PLC0415 - these bring the whole engine along

    project = session.project()
    definition = project.job(job)
    with existing_ledger(project) as ledger:
        known = None if ledger is None else ledger.plans.find(job, StreamName(stream))
        if ledger is None or known is None:
            yield None
            return
        with (
            world_of(project, definition, ledger, clock=clock_at(now)) as both,
            both.engine.connect() as connection,
        ):
            world = both.labels if stream == StreamName.GROUND_TRUTH else both
            if world is None:
                raise Misconfigured(f"{job} has no ground_truth section")
            registered(world)  # another model would show everything as lost
            it = Reconciling(world, ledger, known, connection, "hour" if every == "hour" else "day")
            yield world, world.source.cursor(), it


def at(world: World, destination: str | None) -> list[Destination]:
    """The destination of that name, or all. Raises Misconfigured where there is none."""
    found = [one for one in world.destinations if destination in (None, one.name)]
    if not found:
        names = ", ".join(one.name for one in world.destinations)
        raise Misconfigured(f"{world.job.name} has no destination {destination!r}", hint=f"It has: {names}")
    return found


def scope_of(kind: CursorKind, start: str | None, end: str | None, by: By) -> Scope:
    """What two texts ask for. Raises Misconfigured where they name no range."""
    from tidepost.cli.backfill import window  # noqa: PLC0415
    from tidepost.comparing.reconcile import Scope  # noqa: PLC0415
    from tidepost.cursor import CursorKind, CursorType  # noqa: PLC0415
    from tidepost.ranges import Range  # noqa: PLC0415

    if (start is None) != (end is None):
        raise Misconfigured("--from and --to go together")
    if start is None or end is None:
        return Scope()
    if by is By.CURSOR:
        return Scope(cursor=window(kind, start, end))
    times = window(CursorKind(CursorType.TIMESTAMP, zone=kind.zone), start, end)
    return Scope(events=Range(times.start // 1000, -(-times.end // 1000)))


# ------------------------------------------------------------------------------------------------------ repair


def _asked(job: str, result: Reconciled, *, yes: bool) -> bool:
    """Whether there is something to repair, and somebody wants it."""
    parts = [
        f"{count(sum(of.values()), 'row')} of {count(len(of), 'slice')} lost at {name} would be sent again"
        for name, of in result.lost.items()
        if of
    ]
    if result.missing:
        ranges = count(len(result.missing.items), "range")
        parts.append(f"{count(result.total.here.missing, 'row')} missing here would be looked for in {ranges}")
    return bool(parts) and confirmed("\n".join(f"{job}: {part}" for part in parts), "Do that?", yes=yes)


def _repaired(session: Session, it: Reconciling, result: Reconciled) -> list[Outcome]:
    from tidepost.cli.progress import teller  # noqa: PLC0415
    from tidepost.comparing.resend import fill, resend  # noqa: PLC0415
    from tidepost.ledger.owner import this_person  # noqa: PLC0415

    outcomes: list[Outcome] = []
    world, kind = it.world, it.world.source.cursor()
    with stoppable(session.log_format) as stop, teller(kind, session.log_format) as notice:
        lost = {name: of for name, of in result.lost.items() if of}
        if lost:
            outcomes.append(
                resend(world, it.ledger, it.stream, lost, who=this_person(), why=_WHY, notice=notice, stop=stop)
            )
        outcomes += fill(world, result.missing, notice=notice, stop=stop)
    return outcomes


def _code(outcomes: Sequence[Outcome]) -> int:
    """The exit code of what kept a repair from its end; 0 where all of it has arrived."""
    worst = next((error for one in outcomes if (error := one.worst()) is not None), None)
    return code_of(worst) if worst is not None else Refused.exit_code if any(one.held for one in outcomes) else 0


def _told(outcomes: Sequence[Outcome], lost: int) -> dict[str, Any]:
    return {
        "lost": lost,
        "published": sum(one.tally.published for one in outcomes),
        "arrived": sum(one.arrived for one in outcomes),
        "held": sum(one.held for one in outcomes),
        "errors": [str(error) for one in outcomes for error in one.errors if isinstance(error, TidepostError)],
    }


def _summary(job: str, repaired: Mapping[str, Any], unfinished: int) -> str:
    if unfinished:
        return (
            f"\n{job}: not everything has arrived again; tidepost status {job} shows what is left; compared again\n"
        )
    parts = [f"{count(repaired['lost'], 'lost row')} sent again"] if repaired["lost"] else []
    if repaired["published"] or not parts:
        parts.append(f"{count(repaired['published'], 'row')} published")
    return f"\n{job}: repaired, {', '.join(parts)}, and compared again\n"


# ------------------------------------------------------------------------------------------------------ shown


def _failure(job: str, result: Reconciled, option: str) -> TidepostError | None:
    parts = [f"{one.lost:,} lost at {name}" for name, one in result.total.there.items() if one.lost]
    parts += [f"{one.doubled:,} doubled at {name}" for name, one in result.total.there.items() if one.doubled]
    if result.total.here.missing:
        parts.append(f"{result.total.here.missing:,} missing here")
    if not parts:
        return None
    lost = result.total.here.missing or any(result.lost.values())
    return Differs(
        f"{job}: of {count(result.total.here.source or result.total.here.published, 'row')} {', '.join(parts)}",
        safe="Nothing was changed." if lost else "A copy that is there too often can only be removed there.",
        hint=f"Send what is not there:  tidepost reconcile {job}{option} --repair" if lost else "",
    )


_HERE: Final = (
    *("source", "gone", "published", "duplicates", "superseded", "conflicts", "rejected", "unmatched", "orphans"),
    *("waiting", "missing"),
)
_THERE: Final = (
    *("arrived", "taken", "replaced", "in_flight", "held", "refused", "skipped"),
    *("lost", "doubled", "others"),
)
_ALWAYS: Final = ("source", "published", "duplicates", "conflicts", "rejected", "held", "in_flight")


def _text(job: str, kind: CursorKind, result: Reconciled, it: Reconciling) -> Iterator[RenderableType]:
    whose = "inferences" if it.stream.name == "inferences" else "labels"
    what = "what was published"
    if result.lanes:
        what = "what the source still holds of what was scanned"
    elif result.cursor is not None:
        ends = (short(kind.format(result.cursor.start)), short(kind.format(result.cursor.end)))
        what = f"the source from {ends[0]} to {ends[1]}"
    elif not result.buckets:
        yield f"{job}: nothing was scanned yet"
        return
    yield f"{job}: {what}, by {it.every} of the {whose}' time"
    here = [name for name in _HERE if name in _ALWAYS or getattr(result.total.here, name)]
    for name, total in result.total.there.items():
        asked = name not in result.taken
        always = (*_ALWAYS, "arrived" if asked else "taken")
        there = [each for each in _THERE if each in always or getattr(total, each)]
        heads = [f"#{each.replace('_', ' ')}" for each in (*here, *there)]
        rows = [(_start(one, it.every), *_cells(one, name, here, there)) for one in result.buckets]
        yield ""
        yield table((it.every, *heads), rows, total=("total", *_cells(result.total, name, here, there)))
        yield f"at {name}" if asked else f"at {name}, which cannot be asked: taken is what it accepted"
        if result.unnamed.get(name):
            yield f"  of these it refused {count(result.unnamed[name], 'row')}, and did not say which"
        if result.lanes:
            lanes = [(one.name, *_held(one, kind), *_cells(one, name, here, there)) for one in result.lanes]
            yield ""
            yield table(("lane", "#scanned to", "#held from", *heads), lanes)
    for reason, rejected in result.reasons.items():
        yield f"  rejected: {rejected:,} {reason}"
    yield from _differing(it)


def _differing(it: Reconciling) -> Iterator[RenderableType]:
    number = it.differing()
    if not number:
        return
    rows = [
        (one.what, one.id or "", _instant(one.event), str(one.sequence or ""), one.destination or "", one.detail)
        for one in it.differences(SHOWN)
    ]
    yield ""
    yield table(("what", "id", "inference time", "#slice", "at", "why"), rows)
    if number > SHOWN:
        yield f"and {count(number - SHOWN, 'id')} more; all of them:  --json, or --ids FILE"


def _held(one: LaneNumbers, kind: CursorKind) -> tuple[str, str]:
    """Where a lane ends that was compared, and where it begins now."""
    return kind.format(one.window.end), "gone" if one.held is None else kind.format(one.held.first)


def _cells(one: Bucket | LaneNumbers, name: str, here: Sequence[str], there: Sequence[str]) -> list[str]:
    return [
        *(f"{getattr(one.here, each):,}" for each in here),
        *(f"{getattr(one.there[name], each):,}" for each in there),
    ]


def _start(one: Bucket, every: str) -> str:
    text = _instant(one.start)
    return "no time" if not text else text[:10] if every == "day" else text


def _instant(microseconds: int | None) -> str:
    from tidepost.cursor import format_instant  # noqa: PLC0415

    return "" if microseconds is None else short(format_instant(microseconds * 1000))


def _document(job: str, kind: CursorKind, result: Reconciled, differing: Any) -> dict[str, Any]:
    return {
        "job": job,
        "cursor": None
        if result.cursor is None
        else {"start": kind.format(result.cursor.start), "end": kind.format(result.cursor.end)},
        "agrees": result.agrees,
        "unnamed": dict(result.unnamed),
        "total": _numbers(result.total),
        "lanes": [
            {
                "name": one.name,
                "start": kind.format(one.window.start),
                "end": kind.format(one.window.end),
                "held": None
                if one.held is None
                else {"start": kind.format(one.held.first), "end": kind.format(one.held.end)},
                **_numbers(one),
            }
            for one in result.lanes
        ],
        "reasons": dict(result.reasons),
        "buckets": [{"start": _instant(one.start) or None, **_numbers(one)} for one in result.buckets],
        "differences": [_difference(one) for one in differing],
    }


def _numbers(one: Bucket | LaneNumbers) -> dict[str, Any]:
    return {
        **{each: getattr(one.here, each) for each in _HERE},
        "at": {name: {each: getattr(there, each) for each in _THERE} for name, there in one.there.items()},
    }


def _difference(one: Difference) -> dict[str, Any]:
    return {
        "what": one.what,
        "id": one.id,
        "event": _instant(one.event) or None,
        "destination": one.destination,
        "slice": one.sequence,
        "detail": one.detail,
    }


# ------------------------------------------------------------------------------------------------------- files

_FORMATS: Final = {
    ".parquet": "FORMAT parquet",
    ".json": "FORMAT json, ARRAY true",
    ".csv": "FORMAT csv, HEADER true",
}


def _write_files(it: Reconciling, out: Path | None, ids: Path | None) -> None:
    for path, write_to in ((out, it.write_numbers), (ids, it.write_differences)):
        if path is not None:
            _write_file(path, write_to)


def _write_file(path: Path, write_to: Callable[[Path, str], None]) -> None:
    form = _FORMATS.get(path.suffix)
    if form is None:
        raise Misconfigured(f"{path} ends with none of {', '.join(_FORMATS)}", hint="Name the file by its format.")
    draft = path.with_name(f".{path.name}.draft")
    try:
        write_to(draft, form)
        draft.replace(path)
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
