"""The engine's parts as one run, or one piece of it, sets them up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tidepost.delivery.checks import Checks, naming
from tidepost.delivery.confirm import Confirmer
from tidepost.delivery.deliver import Courier
from tidepost.delivery.outbound import Outbound, Patience
from tidepost.events import Notice
from tidepost.labels.joining import Joiner
from tidepost.leases import Keeper
from tidepost.model import Stream, StreamName
from tidepost.publishing.publish import Publisher
from tidepost.publishing.restage import Restage
from tidepost.publishing.stage import Stage
from tidepost.world import World

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Tools:
    """The engine's parts, which share one set of leases. `confirmers` are by destination, but for silent ones."""

    keeper: Keeper
    stage: Stage
    publisher: Publisher
    restage: Restage
    confirmers: Mapping[str, Confirmer]
    notice: Notice
    checks: Checks

    def named(self, name: str, error: BaseException) -> BaseException:
        """An error of a destination, which says of which where there are several."""
        return naming(name, error) if len(self.publisher.destinations) > 1 else error


@contextmanager
def equipped(world: World, stream: Stream, notice: Notice) -> Iterator[Tools]:
    """Set the parts up; what they hold is given back at the end."""
    job, ledger = world.job, world.ledger
    with ExitStack() as stack:
        keeper = stack.enter_context(Keeper(ledger, world.owner))
        connection = stack.enter_context(world.engine.connect())
        stage = Stage(
            job,
            world.source,
            world.staging,
            world.records,
            ledger,
            connection,
            _joiner(world, connection),
            world.drops,
        )
        names = [destination.name for destination in world.destinations]
        publisher = Publisher(job, world.staging, world.records, ledger, keeper, names)
        confirmers: dict[str, Confirmer] = {}
        silent = world.silent
        for destination in world.destinations:
            if destination.name in silent:
                continue
            to = job.to(destination.name)
            pool = ThreadPoolExecutor(to.connections, thread_name_prefix="tidepost-send")
            stack.callback(pool.shutdown)
            courier = Courier(
                stream, destination, ledger, world.staging, world.records, keeper, pool, notice, world.now
            )
            confirmers[destination.name] = Confirmer(
                courier, job, world.engine, destination.loading, to.shared, world.now
            )
        asking = stack.enter_context(
            ThreadPoolExecutor(max(1, len(world.destinations)), thread_name_prefix="tidepost-check")
        )
        yield Tools(keeper, stage, publisher, Restage(stage, keeper), confirmers, notice, Checks(asking))


def _joiner(world: World, connection: DuckDBPyConnection) -> Joiner | None:
    if world.job.stream is StreamName.INFERENCES:
        return None
    kind = world.source.cursor()
    return Joiner(world.job, kind, world.staging, world.records, world.ledger, connection, world.clock())


@contextmanager
def sending(
    world: World, tools: Tools, stop: threading.Event, fail: Callable[[str, BaseException], None]
) -> Iterator[Mapping[str, Outbound]]:
    """Send and confirm beside the staging; at the end every delivery on its way is seen through or left open in
    order. `fail` is told what stopped some of them, and of which destination."""
    outbound = {
        name: Outbound(
            confirmer.courier,
            confirmer,
            Patience(confirmer.to.poll.total_seconds(), stop, world.wait),
            tools.notice,
            at_once=confirmer.to.connections,
            ready=partial(tools.checks.ready, name),
        )
        for name, confirmer in tools.confirmers.items()
    }
    try:
        yield outbound
    finally:
        for name, one in outbound.items():
            one.finish()
            for error in one.errors:
                fail(name, tools.named(name, error))
