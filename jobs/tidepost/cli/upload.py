"""`tidepost run`: do what is new; and what every command that uploads has in common."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tidepost.cli.command import AcceptLoss, JobName, Now, OnlyStream, command
from tidepost.cli.failures import code_of, document_of, show, told
from tidepost.cli.log import tell
from tidepost.cli.output import count, short, size, span
from tidepost.cli.session import Session, clock_at, world_of
from tidepost.cli.stopping import stoppable
from tidepost.errors import HeldElsewhere, Misconfigured, Refused, Retryable, TidepostError, Unknown

if TYPE_CHECKING:
    from tidepost.cli.progress import Teller
    from tidepost.cursor import CursorKind
    from tidepost.definition.job import Job
    from tidepost.definition.project import Project
    from tidepost.ledger.sql import SqlLedger
    from tidepost.model import Request
    from tidepost.outcome import Outcome
    from tidepost.recovery.acts import Word
    from tidepost.status import StreamStatus
    from tidepost.world import World


@dataclass(frozen=True, slots=True)
class Carried:
    """A request that was carried out, as far as it went.

    after:   the stream's status afterwards
    failure: what the caller should act on first, or None
    seconds: that it took
    """

    job: str
    outcome: Outcome
    after: StreamStatus
    failure: BaseException | None
    teller: Teller
    seconds: float
    labels: Carried | None = None

    @property
    def worst(self) -> BaseException | None:
        """What to act on first, of both streams."""
        return self.failure if self.failure is not None or self.labels is None else self.labels.failure

    @property
    def code(self) -> int:
        """The process's exit code."""
        return 0 if self.worst is None else code_of(self.worst)

    def document(self) -> dict[str, Any]:
        """What was done, as JSON values."""
        outcome = self.outcome
        return {
            "job": self.job,
            "stream": outcome.stream.name,
            "cuts": outcome.cuts,
            "slices": outcome.slices,
            "bytes": outcome.size,
            "scanned": outcome.tally.scanned,
            "published": outcome.tally.published,
            "duplicates": outcome.tally.duplicates,
            "known": outcome.tally.known,
            "rejected": dict(outcome.tally.rejected),
            "arrived": outcome.arrived,
            "held": self.after.held,
            "left": self.after.open,
            "stopped": outcome.stopped,
            "bound": None if self.teller.planned is None else self.teller.planned.bound,
            "marks": {one.name: one.mark for one in self.after.destinations},
            "seconds": round(self.seconds, 3),
            **self._of_labels(),
        }

    def _of_labels(self) -> dict[str, Any]:
        tally = self.outcome.tally
        if self.outcome.stream.name == "ground_truth":
            return {"superseded": tally.superseded, "waiting": tally.waiting}
        return {} if self.labels is None else {"ground_truth": self.labels.document()}

    def text(self) -> str:
        """What was done, for people."""
        outcome, tally = self.outcome, self.outcome.tally
        of_labels = outcome.stream.name == "ground_truth"
        what = f"{self.job}, ground truth" if of_labels else self.job
        if not outcome.cuts and not outcome.arrived:
            lines = [f"{what}: nothing new" if self.failure is None else f"{what}: nothing was done"]
        else:
            rows, slices = count(tally.published, "label" if of_labels else "row"), count(outcome.slices, "slice")
            lines = [
                f"{what}: {rows} published in {slices} ({size(outcome.size)}), {outcome.arrived:,} arrived, "
                f"in {span(self.seconds)}"
            ]
        if tally.duplicates:
            lines.append(f"  {count(tally.duplicates, 'duplicate')} left out")
        if tally.known:
            lines.append(f"  {count(tally.known, 'row')} known from earlier scans")
        if tally.superseded:
            lines.append(f"  {count(tally.superseded, 'label')} older than one that is known")
        if tally.waiting:
            lines.append(f"  {count(tally.waiting, 'label')} held until the inference is there")
        if tally.rejects:
            reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in tally.rejected.items())
            lines.append(f"  {count(tally.rejects, 'row')} rejected: {reasons}")
        lines += [f"  mark at {one.name}: {short(one.mark)}" for one in self.after.destinations if one.mark]
        return "\n".join(lines if self.labels is None else [*lines, self.labels.text()])


def carry_out(
    session: Session,
    project: Project,
    job: Job,
    request: Callable[[CursorKind], Request],
    *,
    clock: Callable[[], float],
    env: Mapping[str, str] | None = None,
    again: str = "",
    stream: str | None = None,
    accept_loss: Word | None = None,
) -> Carried:
    """Run a request of a job, telling of it on standard error, until it is done or stopped by a signal. A request for
    what is new is one for labels too, which go after the inferences.

    stream: the only one that the request is of
    again: the command that goes on where this one was stopped; `tidepost run JOB` if it is empty
    accept_loss: who gives up what the source has lost, and why
    Raises what `run` raises where nothing could be begun, and Misconfigured as `wire` does.
    """
    from tidepost.wire import ledger_of  # noqa: PLC0415 - these bring the whole engine along
    from tidepost.world import labels_of  # noqa: PLC0415

    again = again or f"tidepost run {job.name}"
    with (
        stoppable(session.log_format) as stop,
        ledger_of(project, env) as ledger,
        world_of(project, job, ledger, clock=clock, env=env, accept_loss=accept_loss) as world,
    ):
        if stream == "ground_truth":
            return _one(session, labels_of(world), ledger, request, stop=stop, again=again)
        carried = _one(session, world, ledger, request, stop=stop, again=again)
        both = stream is None and request is incremental
        if world.labels is None or carried.outcome.stopped or not both:
            return carried
        try:
            return replace(carried, labels=_one(session, world.labels, ledger, request, stop=stop, again=again))
        except TidepostError as error:  # what was done of the inferences is told all the same
            return replace(carried, failure=carried.failure or error)


def _one(
    session: Session,
    world: World,
    ledger: SqlLedger,
    request: Callable[[CursorKind], Request],
    *,
    stop: threading.Event,
    again: str,
) -> Carried:
    """Run a request of one stream of a job."""
    from tidepost.cli.progress import teller  # noqa: PLC0415 - these bring the whole engine along
    from tidepost.run import run  # noqa: PLC0415
    from tidepost.status import read_status  # noqa: PLC0415

    began, name = time.monotonic(), world.job.name
    with world.job.placed():
        kind = world.source.cursor()
        with teller(kind, session.log_format) as notice:
            outcome = run(world, request(kind), notice=notice, stop=stop)
    for error in outcome.errors:
        if isinstance(error, TidepostError):
            world.job.place(error)
    streams = read_status(world.job.whole, ledger, world.clock()).streams
    after = next(one for one in streams if one.name == outcome.stream.name)
    failure = _failure(name, outcome, after, again)
    return Carried(name, outcome, after, failure, notice, time.monotonic() - began)


def finish(session: Session, carried: Carried, *notes: str) -> int:
    """Write what was done and what went wrong; returns the exit code."""
    errors = [*carried.outcome.errors, *(carried.labels.outcome.errors if carried.labels is not None else ())]
    for error in errors:
        if error is not carried.worst:
            tell(logging.WARNING, document_of(error)["message"], event="error")
    failure = None if carried.worst is None else told(carried.worst, verbose=session.verbose)
    session.answer({**carried.document(), **({} if failure is None else {"error": failure})}, carried.text(), *notes)
    if failure is not None and not session.as_json:
        show(failure, as_json=False)
    return carried.code


def _failure(job: str, outcome: Outcome, after: StreamStatus, again: str) -> BaseException | None:
    """What the caller should act on first: a bug, the definition, held rows, a stop, an unknown outcome, the rest."""
    worst = outcome.worst()
    if worst is not None and (not isinstance(worst, TidepostError) or isinstance(worst, Misconfigured)):
        return worst
    waiting = [(one, each) for one in after.destinations if one.sends for each in one.waiting]
    held = [(one, each) for one, each in waiting if each.state == "held"]
    if held:
        where, first = held[0]
        others = f", and {len(held) - 1} more" if len(held) > 1 else ""
        mark = f"the mark stays at {short(where.mark)}" if where.mark else "the mark does not move"
        return Refused(
            f"{job}: slice {first.sequence} is held at {where.name}{others}: {first.reason}",
            safe=f"Nothing was lost: its rows are kept, later slices are still delivered, {mark}.",
            hint=f"See them:  tidepost rejects {job} --show-rows   Let it go:  {first.remedy}",
        )
    if outcome.stopped and after.open:
        return Retryable(
            f"{job}: stopped with {count(after.open, 'cut or delivery', 'cuts and deliveries')} left",
            safe="What was begun is recorded; nothing is sent twice.",
            hint=f"Go on:  {again}",
        )
    if isinstance(worst, HeldElsewhere):
        return worst  # all that this run could do is done; the rest is the other one's
    unknown = [(one, each) for one, each in waiting if each.state == "unknown"]
    if unknown:
        where, first = unknown[0]
        return Unknown(
            f"{job}: {where.name} was sent {count(len(unknown), 'slice')} and nobody knows yet whether they arrived: "
            f"{first.reason}",
            safe="Nothing is sent again before the destination was asked.",
            hint=f"When it answers again:  {again}",
        )
    return worst


@command("run", example="tidepost run flights\ntidepost run flights --now 2013-01-08T06:00Z --json")
def run_job(
    session: Session,
    *,
    job: JobName,
    now: Now = None,
    stream: OnlyStream = None,
    accept_loss: AcceptLoss = False,
) -> int:
    """Upload what is new.

    Finishes what earlier runs began, then takes everything up to now that has settled.
    """
    clock = clock_at(now)
    project = session.project()
    definition = project.job(job)
    word = accepting(definition, accept=accept_loss)
    carried = carry_out(session, project, definition, incremental, clock=clock, stream=stream, accept_loss=word)
    return finish(session, carried)


def accepting(job: Job, *, accept: bool) -> Word | None:
    """Who gives up, with `--accept-loss`, what the source has lost. Raises Misconfigured where it is no topic."""
    from tidepost.ledger.owner import this_person  # noqa: PLC0415
    from tidepost.recovery.acts import Word  # noqa: PLC0415

    if accept and job.source.kafka is None:
        raise Misconfigured(
            f"{job.where('source')}: --accept-loss is for topics, whose messages may be gone, and this is none",
            hint=f"Without it:  tidepost run {job.name}",
        )
    return Word(this_person(), time.time(), "--accept-loss") if accept else None


def incremental(_: CursorKind) -> Request:
    """A request for what is new, which no other invocation has made."""
    from tidepost.model import Request, ScanKind  # noqa: PLC0415

    return Request(f"cli/{uuid.uuid4()}", ScanKind.INCREMENTAL)
