"""`tidepost backfill`: look at a range again, whatever was scanned there."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from tidepost.cli.command import End, JobName, Now, OfStream, Start, command
from tidepost.cli.output import short
from tidepost.cli.session import Session, clock_at
from tidepost.cli.upload import Carried, carry_out, finish
from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from tidepost.cursor import CursorKind
    from tidepost.model import Request
    from tidepost.ranges import Range


@command(
    "backfill",
    example="tidepost backfill flights --from 2013-01-03 --to 2013-01-05\n"
    "tidepost backfill flights --from 2013-01-03T05:00Z --to 2013-01-03T06:00Z",
)
def backfill(
    session: Session, *, job: JobName, start: Start, end: End, now: Now = None, stream: OfStream = "inferences"
) -> int:
    """Upload what a range holds and was not uploaded yet.

    Looks at the range whatever was scanned there. Rows that were uploaded are not sent again.
    """
    clock = clock_at(now)
    project = session.project()
    definition = project.job(job)
    kinds: list[CursorKind] = []

    def asked(kind: CursorKind) -> Request:
        from tidepost.model import Request, ScanKind  # noqa: PLC0415

        kinds.append(kind)
        return Request(f"cli/{uuid.uuid4()}", ScanKind.BACKFILL, window(kind, start, end))

    carried = carry_out(session, project, definition, asked, clock=clock, stream=stream)
    return finish(session, carried, *_clamped(carried, kinds[0], end))


def window(kind: CursorKind, start: str, end: str) -> Range:
    """The range between two texts. Raises Misconfigured where one names no position, or the range is empty."""
    from tidepost.ranges import Range  # noqa: PLC0415

    first, last = kind.parse(start), kind.parse(end)
    if last <= first:
        raise Misconfigured(
            f"the range from {start} to {end} is empty", hint="--to is where it ends, not part of it."
        )
    return Range(first, last)


def _clamped(carried: Carried, kind: CursorKind, end: str) -> list[str]:
    """A note where the range goes on beyond what a run may read, or beyond the newest row."""
    planned = carried.teller.planned
    if planned is None:
        return []
    if planned.bound is None:
        return ["  the range holds no row that has settled"]
    if kind.parse(planned.bound) < kind.parse(end):
        return [f"  the range was looked at up to {short(planned.bound)}: it holds no settled row beyond"]
    return []
