"""`tidepost stream`: follow a topic, micro-batch after micro-batch, until it is stopped."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from tidepost.cli.command import AcceptLoss, JobName, command
from tidepost.cli.failures import document_of
from tidepost.cli.log import tell
from tidepost.cli.output import count
from tidepost.cli.session import Session, world_of
from tidepost.cli.stopping import stoppable
from tidepost.cli.upload import accepting
from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from tidepost.outcome import Outcome


@dataclass(slots=True)
class Followed:
    """What came of the batches so far."""

    job: str
    batches: int = 0
    published: int = 0
    arrived: int = 0

    def __call__(self, outcome: Outcome) -> None:
        self.batches += outcome.cuts > 0
        self.published += outcome.tally.published
        self.arrived += outcome.arrived
        for error in outcome.errors:
            tell(logging.WARNING, document_of(error)["message"], event="error")
        if outcome.cuts or outcome.arrived:
            fields = {"cuts": outcome.cuts, "published": outcome.tally.published, "arrived": outcome.arrived}
            rows = count(outcome.tally.published, "row")
            tell(logging.INFO, f"batch of {rows} published, {outcome.arrived:,} arrived", event="batch", **fields)


@command("stream", example="tidepost stream flights\ntidepost stream flights --partitions 0,1,2 --seconds 5")
def stream(
    session: Session,
    *,
    job: JobName,
    partitions: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,…",
            help="Follow these partitions. Default: those that the consumer group gives this process.",
            show_default=False,
        ),
    ] = None,
    events: Annotated[int, typer.Option(min=1, help="Events at which a batch begins, and that it holds at most.")] = (
        100_000
    ),
    seconds: Annotated[
        float, typer.Option(min=0.1, help="How long the first event of a batch waits at most.")
    ] = 10.0,
    accept_loss: AcceptLoss = False,
) -> int:
    """Upload the messages of a Kafka topic as they come.

    Batch after batch is published, delivered and confirmed; only then the group's offsets are committed. The first
    SIGTERM or Ctrl-C ends it in order. Labels go with `tidepost run JOB --stream ground_truth`.
    """
    from tidepost.cli.progress import Teller  # noqa: PLC0415 - these bring the whole engine along
    from tidepost.follow import Pace, follow  # noqa: PLC0415
    from tidepost.ports import OfLanes  # noqa: PLC0415
    from tidepost.wire import ledger_of  # noqa: PLC0415

    only = None if partitions is None else _numbers(partitions)
    project, followed = session.project(), Followed(job)
    definition = project.job(job)
    with (
        stoppable(session.log_format) as stop,
        ledger_of(project) as ledger,
        world_of(
            project, definition, ledger, clock=time.time, accept_loss=accepting(definition, accept=accept_loss)
        ) as world,
    ):
        if world.labels is not None:
            text = f"only inferences are followed; for the labels:  tidepost run {job} --stream ground_truth"
            tell(logging.INFO, text, event="labels")
        notice = Teller(world.source.cursor(), None)
        if isinstance(world.source, OfLanes):
            with world.source.share(only) as source:
                follow(replace(world, source=source), Pace(events, seconds), notice=notice, stop=stop, told=followed)
        else:
            follow(world, Pace(events, seconds), notice=notice, stop=stop, told=followed)
    document = {
        "job": job,
        "batches": followed.batches,
        "published": followed.published,
        "arrived": followed.arrived,
    }
    session.answer(
        document,
        f"{job}: {count(followed.published, 'row')} published in {count(followed.batches, 'batch', 'batches')}, "
        f"{followed.arrived:,} arrived",
    )
    return 0


def _numbers(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise Misconfigured(f"--partitions {text}: write their numbers as 0,1,2") from None
