"""`tidepost plan`: what the next run would do, without doing any of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidepost.cli.backfill import window
from tidepost.cli.command import JobName, Now, command
from tidepost.cli.looking import looking_at
from tidepost.cli.output import count, short, table
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
) -> int:
    """Show the cuts of the next run, or of a backfill.

    Each with the rows that it may hold. Touches nothing: no ledger is created, nothing is logged.
    """
    from tidepost.model import Request, ScanKind, StreamName  # noqa: PLC0415 - these bring the whole engine along
    from tidepost.prospect import prospect  # noqa: PLC0415

    if (start is None) != (end is None):
        raise Misconfigured("--from and --to go together")
    project = session.project()
    with looking_at(project, project.job(job), clock_at(now)) as world:
        kind = world.source.cursor()
        asked = None if start is None or end is None else window(kind, start, end)
        scan = ScanKind.INCREMENTAL if asked is None else ScanKind.BACKFILL
        stream = world.ledger.plans.find(job, StreamName.INFERENCES)
        found = prospect(world, stream, Request("", scan, asked))
        left = world.ledger.plans.open_cuts(stream) if stream is not None else ()
        names = [to.name for to in world.job.destinations] if stream is not None else []
        deliveries = sum(len(world.ledger.deliveries.open(stream, name)) for name in names if stream is not None)
    bound = None if found.bound is None else kind.format(found.bound)
    document = {
        "job": job,
        "bound": bound,
        "cuts": [_document(cut, kind) for cut in found.cuts],
        "rows": sum(cut.estimated or 0 for cut in found.cuts),
        "finished_first": {"cuts": [_document(cut, kind) for cut in left], "deliveries": deliveries},
        "null_cursors": found.survey.null_cursors,
    }
    session.answer(document, *_text(job, found.cuts, kind, bound), *_first(left, deliveries))
    return 0


def _document(cut: Cut, kind: CursorKind) -> dict[str, Any]:
    return {
        "kind": cut.kind,
        "start": kind.format(cut.range.start),
        "end": kind.format(cut.range.end),
        "lane": cut.lane,
        "estimated": cut.estimated,
    }


def _text(job: str, cuts: Sequence[Cut], kind: CursorKind, bound: str | None) -> Iterator[RenderableType]:
    if not cuts:
        yield f"{job}: nothing new to scan"
        return
    rows = [
        (
            str(number),
            cut.kind,
            short(kind.format(cut.range.start)),
            short(kind.format(cut.range.end)),
            f"{cut.estimated or 0:,}",
        )
        for number, cut in enumerate(cuts, 1)
    ]
    yield table(("#cut", "scan", "from", "to", "#rows, about"), rows)
    total = sum(cut.estimated or 0 for cut in cuts)
    yield f"\n{job}: {count(len(cuts), 'cut')}, about {count(total, 'row')}, up to {short(bound or '')}"


def _first(left: Sequence[Cut], deliveries: int) -> Iterator[str]:
    if left or deliveries:
        cuts = count(len(left), "open cut")
        yield f"before that, what earlier runs began: {cuts}, {count(deliveries, 'delivery', 'deliveries')}"
