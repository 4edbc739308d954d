"""From a job to the adapters that it names. With `sourcing.py` the only file that knows them and resolves secrets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tidepost.definition.reference import resolve
from tidepost.engine import Engine
from tidepost.errors import Misconfigured
from tidepost.model import StreamName
from tidepost.s3.account import s3_of
from tidepost.sourcing import CACHE, drops_of, source_of

if TYPE_CHECKING:
    from tidepost.definition.arize import ArizeDefinition
    from tidepost.definition.job import ArthurDefinition, Job
    from tidepost.definition.project import Project
    from tidepost.ledger.sql import SqlLedger
    from tidepost.ports import Destination, StagingArea
    from tidepost.ranges import Range
    from tidepost.recovery.acts import Word
    from tidepost.world import World


def wire(
    project: Project,
    job: Job,
    ledger: SqlLedger,
    *,
    env: Mapping[str, str] | None = None,
    clock: Callable[[], float],
    sleep: Callable[[float], None] = time.sleep,
    accept_loss: Word | None = None,
) -> World:
    """The world of one job. Nothing is connected to yet. Raises Misconfigured for a reference without its variable,
    or for an adapter whose extra is not installed. `sleep` is how destinations wait between two attempts;
    `accept_loss` is who gives up rows that the source has lost, and why."""
    from tidepost.ledger.owner import this_process  # noqa: PLC0415 - adapters are imported when they are named
    from tidepost.world import World  # noqa: PLC0415

    resolved = job.resolved(env)
    staging = staging_of(project, env)
    engine = Engine(job.limits.memory, job.limits.threads, staging.spill)
    with suppress(OSError):  # without it the run only takes longer
        (project.root / CACHE).mkdir(parents=True, exist_ok=True)
    source = source_of(resolved, engine, env, lose=_losing(resolved, ledger, staging, accept_loss))
    world = World(
        job=resolved,
        source=source,
        staging=staging,
        records=staging,
        ledger=ledger,
        destinations=destinations_of(resolved, env, clock=clock, sleep=sleep),
        engine=engine,
        owner=this_process(),
        clock=clock,
        identity=identity_of(resolved),
    )
    return replace(world, labels=labels_of(world, env))


def join_windows_of(job: Job) -> dict[str, float]:
    """Seconds after the receipt of an inference in which its labels join, by destination; those that join them
    whenever they come are not among them."""
    names = [to.name for to in job.destinations if to.type == "arize"]
    if not names:
        return {}
    from tidepost.destinations.arize.destination import JOINS_WITHIN  # noqa: PLC0415

    return dict.fromkeys(names, JOINS_WITHIN)


def labels_of(world: World, env: Mapping[str, str] | None = None) -> World | None:
    """The world of a job's ground truth; None where it has none. Raises as `wire` does."""
    labels = world.job.of_labels()
    if labels is None:
        return None

    return replace(
        world,
        job=labels,
        source=source_of(
            labels,
            world.engine,
            env,
            stream=lambda: world.ledger.plans.find(labels.name, labels.stream),
            records=world.records,
        ),
        identity=identity_of(labels),
        drops=drops_of(labels, env),
    )


def _losing(
    job: Job, ledger: SqlLedger, staging: StagingArea, word: Word | None
) -> Callable[[str, Range], None] | None:
    """What records the positions of a lane that were given up."""
    from tidepost.recovery.acts import Loss, lose  # noqa: PLC0415

    def record(lane: str, window: Range) -> None:
        stream = ledger.plans.find(job.name, StreamName.INFERENCES)
        if stream is not None and word is not None:
            lose(ledger, staging, stream, Loss(lane, window.start, window.end), word)

    return None if word is None else record


def ledger_of(project: Project, env: Mapping[str, str] | None = None) -> SqlLedger:
    from tidepost.ledger import open_ledger  # noqa: PLC0415

    return open_ledger(project.ledger_url(env))


def existing_ledger_of(
    project: Project, env: Mapping[str, str] | None = None, *, migrate: bool | None = None
) -> SqlLedger | None:
    """The ledger to read from; None where its file does not exist, which this does not create."""
    from tidepost.ledger import open_ledger  # noqa: PLC0415

    file = project.ledger_file(env)
    return None if file is not None and not file.exists() else open_ledger(project.ledger_url(env), migrate=migrate)


def staging_of(project: Project, env: Mapping[str, str] | None = None) -> StagingArea:
    url = project.staging_url(env)
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme == "s3":
        from tidepost.s3.connection import Store  # noqa: PLC0415
        from tidepost.staging.s3 import S3Staging  # noqa: PLC0415

        return S3Staging(Store.at(url, s3_of(project.s3, env, "tidepost.yaml: s3")), project.scratch(env))
    from tidepost.staging.local import LocalStaging  # noqa: PLC0415

    if scheme not in ("", "file"):
        raise Misconfigured(
            f"staging: {scheme}:// is not a kind of staging that this version has",
            hint="Name a folder, or s3://BUCKET/PREFIX.",
        )
    return LocalStaging(Path(url.removeprefix("file://")))


def destinations_of(
    job: Job,
    env: Mapping[str, str] | None = None,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Destination, ...]:
    """The adapters of a resolved job's destinations. `clock` is what they measure timestamps by."""
    found: list[Destination] = []
    for number, to in enumerate(job.destinations):
        key = resolve(str(to.api_key), env, where=job.where(*job.at(number), "api_key"))
        found.append(_arthur(job, to, key, sleep) if to.type == "arthur" else _arize(job, to, key, clock, sleep))
    return tuple(found)


def _arthur(job: Job, to: ArthurDefinition, key: str, sleep: Callable[[float], None]) -> Destination:
    from tidepost.destinations.arthur.destination import ArthurDestination, ArthurOptions  # noqa: PLC0415

    options = ArthurOptions(
        url=to.url,
        api_key=key,
        organization=to.organization,
        model=to.model.id or to.model.partner_id or "",
        model_is_id=to.model.id is not None,
        batches=job.mapping.batch_id is not None,
        timeout=to.timeout.total_seconds(),
        retries=to.retries,
        connections=to.connections,
        ca_file=Path(to.ca_file) if to.ca_file else None,
        loading=to.loading.total_seconds(),
        name=to.name,
    )
    return ArthurDestination(options, sleep=sleep)


def _arize(
    job: Job, to: ArizeDefinition, key: str, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Destination:
    from tidepost.destinations.arize.destination import ArizeDestination, ArizeOptions  # noqa: PLC0415

    options = ArizeOptions(
        url=to.url,
        api_key=key,
        space_id=to.space_id,
        model=to.model,
        version=to.version,
        environment=to.environment,
        model_type=to.model_type,
        batch_id=to.batch_id or "",
        predictions=tuple(one.name for one in job.mapping.predictions),
        inputs=tuple(one.name for one in job.mapping.inputs),
        non_inputs=tuple(one.name for one in job.mapping.non_inputs),
        prediction_label=to.prediction_label or "",
        prediction_score=to.prediction_score or "",
        actual_label=to.actual_label or "",
        actual_score=to.actual_score or "",
        group=to.group or "",
        rank=to.rank or "",
        shap=dict(to.shap),
        request_rows=to.request_rows,
        request_bytes=to.request_bytes,
        timeout=to.timeout.total_seconds(),
        retries=to.retries,
        connections=to.connections,
        ca_file=Path(to.ca_file) if to.ca_file else None,
        name=to.name,
    )
    return ArizeDestination(options, clock=clock, sleep=sleep)


def identity_of(job: Job) -> dict[str, str]:
    """What may not change under a job that has sent rows, entry by entry, as the ledger keeps it, but for the
    cursor: its type is the source's to say."""
    found = job.identity
    del found["cursor"]
    if job.stream is StreamName.GROUND_TRUTH:
        del found["partner_inference_id"]  # a template that finds no inference is mended, and its labels were held
    destinations = {f"destination {name}": _text(what) for name, what in found.pop("destinations").items()}
    return {**{entry: _text(what) for entry, what in found.items()}, **destinations}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
