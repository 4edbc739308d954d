"""The engine's parts as one run, or one piece of it, sets them up."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidepost.confirm import Confirmer
from tidepost.deliver import Courier
from tidepost.events import Notice
from tidepost.joining import Joiner
from tidepost.leases import Keeper
from tidepost.model import Stream, StreamName
from tidepost.outbound import Outbound, Patience
from tidepost.publish import Publisher
from tidepost.restage import Restage
from tidepost.stage import Stage
from tidepost.world import World

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Tools:
    """The engine's parts, which share one set of leases. `confirmers` are by destination."""

    keeper: Keeper
    stage: Stage
    publisher: Publisher
    restage: Restage
    confirmers: Mapping[str, Confirmer]
    notice: Notice


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
        for destination in world.destinations:
            pool = ThreadPoolExecutor(job.destination.connections, thread_name_prefix="tidepost-send")
            stack.callback(pool.shutdown)
            courier = Courier(
                stream, destination, ledger, world.staging, world.records, keeper, pool, notice, world.now
            )
            confirmers[destination.name] = Confirmer(
                courier, job, world.engine, destination.loading, job.destination.shared, world.now
            )
        yield Tools(keeper, stage, publisher, Restage(stage, keeper), confirmers, notice)


def _joiner(world: World, connection: DuckDBPyConnection) -> Joiner | None:
    if world.job.stream is StreamName.INFERENCES:
        return None
    kind = world.source.cursor()
    return Joiner(world.job, kind, world.staging, world.records, world.ledger, connection, world.clock())


@contextmanager
def sending(
    world: World, tools: Tools, stop: threading.Event, errors: list[BaseException]
) -> Iterator[Mapping[str, Outbound]]:
    """Send and confirm beside the staging; at the end every delivery on its way is seen through or left open in
    order. What stopped some of them is added to `errors`."""
    poll, at_once = world.job.destination.poll.total_seconds(), world.job.destination.connections
    outbound = {
        name: Outbound(confirmer.courier, confirmer, Patience(poll, stop, world.wait), tools.notice, at_once=at_once)
        for name, confirmer in tools.confirmers.items()
    }
    try:
        yield outbound
    finally:
        for one in outbound.values():
            one.finish()
            errors += one.errors
