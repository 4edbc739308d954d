"""`tidepost plan`: what the next run would do, without doing any of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidepost.cli.backfill import window
from tidepost.cli.command import JobName, Now, OfStream, command
from tidepost.cli.looking import looking_at
from tidepost.cli.output import LANES, count, short, table
from tidepost.cli.session import Session, clock_at
from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tidepost.cursor import CursorKind
    from tidepost.model import Cut


@command("plan", example="tidepost plan flights\ntidepost plan flights --from 2013-01-03 --to 2013-01-05")
def plan(
    session: Session,
    *,
    job: JobName,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="START", help="Plan a backfill that starts there.", show_default=False),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="END", help="Where that backfill ends.", show_default=False)
    ] = None,
    now: Now = None,
    stream: OfStream = "inferences",
) -> int:
    """Show the cuts of the next run, or of a backfill.

    Each with the rows that it may hold. Touches nothing: no ledger is created, nothing is logged.
    """
    from tidepost.model import Request, ScanKind, StreamName  # noqa: PLC0415 - these bring the whole engine along
    from tidepost.planning.prospect import prospect  # noqa: PLC0415

    if (start is None) != (end is None):
        raise Misconfigured("--from and --to go together")
    project = session.project()
    with looking_at(project, project.job(job), clock_at(now)) as both:
        world = both.labels if stream == "ground_truth" else both
        if world is None:
            raise Misconfigured(f"{job} has no ground_truth section")
        kind = world.source.cursor()
        asked = None if start is None or end is None else window(kind, start, end)
        scan = ScanKind.INCREMENTAL if asked is None else ScanKind.BACKFILL
        known = world.ledger.plans.find(job, StreamName(stream))
        found = prospect(world, known, Request("", scan, asked))
        left = world.ledger.plans.open_cuts(known) if known is not None else ()
        names = [to.name for to in world.job.destinations] if known is not None else []
        deliveries = sum(len(world.ledger.deliveries.open(known, name)) for name in names if known is not None)
    bound = None if found.bound is None else kind.format(found.bound)
    document = {
        "job": job,
        "stream": stream,
        "bound": bound,
        "cuts": [_document(cut, kind) for cut in found.cuts],
        "rows": sum(cut.estimated or 0 for cut in found.cuts),
        "finished_first": {"cuts": [_document(cut, kind) for cut in left], "deliveries": deliveries},
        "null_cursors": found.survey.null_cursors,
    }
    session.answer(document, *_text(job, found.cuts, kind, bound), *_first(left, deliveries))
    return 0


def _ends(cut: Cut, kind: CursorKind) -> tuple[str | None, str | None]:
    """Where a cut begins and ends, as text; None for one that takes up a file."""
    if cut.lane in LANES:
        return None, None
    return kind.format(cut.range.start), kind.format(cut.range.end)


def _document(cut: Cut, kind: CursorKind) -> dict[str, Any]:
    start, end = _ends(cut, kind)
    return {
        "kind": cut.kind,
        "start": start,
        "end": end,
        "lane": cut.lane,
        "estimated": cut.estimated,
    }


def _text(job: str, cuts: Sequence[Cut], kind: CursorKind, bound: str | None) -> Iterator[RenderableType]:
    if not cuts:
        yield f"{job}: nothing new to scan"
        return
    lanes = any(cut.lane and cut.lane not in LANES for cut in cuts)
    rows = [
        (
            str(number),
            cut.kind,
            *([cut.lane] if lanes else []),
            *(short(end) if end else LANES[cut.lane] for end in _ends(cut, kind)),
            f"{cut.estimated or 0:,}",
        )
        for number, cut in enumerate(cuts, 1)
    ]
    yield table(("#cut", "scan", *(["lane"] if lanes else []), "from", "to", "#rows, about"), rows)
    total = sum(cut.estimated or 0 for cut in cuts)
    up_to = f", up to {short(bound)}" if bound and not lanes else ""
    yield f"\n{job}: {count(len(cuts), 'cut')}, about {count(total, 'row')}{up_to}"


def _first(left: Sequence[Cut], deliveries: int) -> Iterator[str]:
    if left or deliveries:
        cuts = count(len(left), "open cut")
        yield f"before that, what earlier runs began: {cuts}, {count(deliveries, 'delivery', 'deliveries')}"
