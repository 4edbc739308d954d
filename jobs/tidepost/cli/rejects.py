"""`tidepost rejects`: which rows could not be sent or were refused, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tidepost.cli.command import JobName, command
from tidepost.cli.output import LANES, count, short, table
from tidepost.cli.session import Session, existing_ledger

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tidepost.definition.job import Job
    from tidepost.ledger.sql import SqlLedger
    from tidepost.model import Stream
    from tidepost.ports import StagingArea


@dataclass(frozen=True, slots=True)
class File:
    """A file of rejected rows.

    what:    the cut that set them aside, or the slice and the destination that refused them
    range:   of the cut, as text; empty for a slice
    reasons: reason → rows
    path:    where the file is
    rows:    the rows, each with `reason`, `partner_inference_id` and `row`; empty unless they were asked for
    """

    what: str
    range: str
    reasons: Mapping[str, int]
    path: str
    rows: Sequence[Mapping[str, Any]]

    def document(self, *, with_rows: bool) -> dict[str, Any]:
        rows = {"rows": list(self.rows)} if with_rows else {}
        return {"what": self.what, "range": self.range, "reasons": dict(self.reasons), "file": self.path, **rows}


@command("rejects", example="tidepost rejects flights\ntidepost rejects flights --limit 5 --show-rows")
def rejects(
    session: Session,
    *,
    job: JobName,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Of the newest cuts and slices, and of rows.")] = 20,
    show_rows: Annotated[
        bool, typer.Option("--show-rows", help="Show the rows' values, which appear nowhere else.")
    ] = False,
    stream: Annotated[
        Literal["inferences", "ground_truth"] | None, typer.Option("--stream", help="Of one stream. Default: of all.")
    ] = None,
) -> int:
    """Show how many rows were set aside or refused, and why.

    And in which files they are kept, with all their columns.
    """
    from tidepost.wire import staging_of  # noqa: PLC0415 - adapters are heavy

    project = session.project()
    definition = project.job(job)
    staging = staging_of(project)
    with existing_ledger(project) as ledger:
        found = (
            []
            if ledger is None
            else list(_files(definition, ledger, staging, stream, limit=limit, show_rows=show_rows))
        )
    total: Counter[str] = Counter()
    for one in found:
        total.update(one.reasons)
    session.answer(
        {"job": job, "reasons": dict(total), "files": [one.document(with_rows=show_rows) for one in found]},
        *_text(job, found, total),
    )
    return 0


def _files(
    job: Job, ledger: SqlLedger, staging: StagingArea, only: str | None, *, limit: int, show_rows: bool
) -> Iterator[File]:
    """The newest files of what staging set aside, then of what destinations refused, newest first."""
    from tidepost.model import StreamName  # noqa: PLC0415
    from tidepost.rows.rejects import rejects_key  # noqa: PLC0415
    from tidepost.status import cursor_kind  # noqa: PLC0415

    for name in StreamName:
        stream = ledger.plans.find(job.name, name)
        if stream is None or only not in (None, name):
            continue
        kind = cursor_kind(job, ledger.plans.coverage(stream).scanned)
        for cut in ledger.reports.rejects(stream, limit):
            key = rejects_key(stream, cut.cut)
            between = LANES.get(cut.lane) or " → ".join(
                short(kind.format(end)) for end in (cut.range.start, cut.range.end)
            )
            rows = _rows(staging, key)[:limit] if show_rows else []
            yield File(f"cut {cut.cut}", between, cut.reasons, staging.where(key), rows)
        yield from _refused(staging, stream, limit, show_rows)


def _refused(staging: StagingArea, stream: Stream, limit: int, show_rows: bool) -> Iterator[File]:
    for key in sorted(staging.list(f"{stream.prefix}/_tidepost/refused"), reverse=True)[:limit]:
        sequence, destination = key.rpartition("/")[2].removesuffix(".parquet").split(".", 1)
        rows = _rows(staging, key)
        reasons = Counter(str(row["reason"]) for row in rows)
        shown = rows[:limit] if show_rows else []
        yield File(f"slice {int(sequence)} at {destination}", "", reasons, staging.where(key), shown)


def _rows(staging: StagingArea, key: str) -> list[dict[str, Any]]:
    from tidepost.rows.rejects import read_rejects  # noqa: PLC0415

    rows: list[dict[str, Any]] = read_rejects(staging, key).to_pylist()
    return rows


def _text(job: str, found: Sequence[File], total: Mapping[str, int]) -> Iterator[RenderableType]:
    if not found:
        yield f"{job}: no row was rejected or refused"
        return
    rows = [
        (one.what, one.range, f"{number:,}", reason, one.path)
        for one in found
        for reason, number in one.reasons.items()
    ]
    yield table(("where", "range", "#rows", "reason", "file"), rows)
    for one in found:
        if one.rows:
            yield f"\n{one.what}"
            yield table(
                ("reason", "partner_inference_id", "row"),
                [(row["reason"], row["partner_inference_id"] or "", row["row"]) for row in one.rows],
            )
    yield f"\n{job}: {count(sum(total.values()), 'row')}"
