"""The platform behind the API: what a request does, apart from HTTP."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidepost.sandbox.catalog import BadRequest, Model, Stream, check_definition
from tidepost.sandbox.database import Database
from tidepost.sandbox.faults import FaultPlan
from tidepost.sandbox.intake import Intake
from tidepost.sandbox.loader import Loader
from tidepost.sandbox.loading import (
    Dropping,
    Loaded,
    known_repeats,
    load_inferences,
    load_labels,
    load_reference,
    unknown_ids,
)
from tidepost.sandbox.lock import DataLock
from tidepost.sandbox.offer import Offer, inspect
from tidepost.sandbox.query import compile_query
from tidepost.sandbox.rows import RowCheck, convert_file, write_rows
from tidepost.sandbox.settings import Settings

_REPEATED = "partner_inference_id is already there: inferences are immutable"
_UNKNOWN = "no inference has this partner_inference_id"


def status_of(reason: str) -> int:
    """The status that a row's failure is answered with."""
    return {_REPEATED: 409, _UNKNOWN: 404}.get(reason, 400)


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """What is known of a file when it is accepted: its rows, and the failures by reason."""

    rows: int
    failures: Mapping[str, int]

    @property
    def failed(self) -> int:
        """Rows that failed."""
        return sum(self.failures.values())


class Platform:
    """One data directory, served. Raises Misconfigured when another sandbox holds it."""

    def __init__(self, settings: Settings) -> None:
        self._lock = DataLock(settings.data)
        self._settings = settings
        self.database = Database(settings.data, memory_limit=settings.memory_limit)
        self.intake = Intake(settings.data, last_arrival=self.database.last_arrival(), loaded=self.database.loaded)
        self.faults = FaultPlan(settings.faults, seed=settings.seed)
        self._registering = threading.Lock()
        self._models = {model.number: model for model in self.database.models(archived=True)}
        self._active = {model.id for model in self.database.models()}
        self.loader = Loader(
            self.database, self.intake, settings=lambda: self._settings, model=self._models.__getitem__
        )

    def start(self) -> None:
        """Begins to load."""
        self.loader.start()

    def close(self) -> None:
        """Stops loading; what is queued stays queued."""
        self.loader.stop()
        self.database.close()
        self._lock.release()

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def configure(self, values: Mapping[str, Any]) -> Settings:
        """Changes settings while running; Misconfigured names a bad one, and nothing is changed then."""
        changed = self._settings.changed(values)
        if "faults" in values or "seed" in values:
            self.faults = FaultPlan(changed.faults, seed=changed.seed)
        self._settings = changed
        with self.intake.changed:
            self.intake.changed.notify_all()
        return changed

    # -- models

    def register(self, definition: object, *, at_once: bool) -> Model:
        """Registers a model; it is Ready after the provisioning delay, or now when the caller does not wait."""
        attributes = check_definition(definition)
        assert isinstance(definition, dict)  # noqa: S101  # check_definition has seen to it
        with self._registering:
            if any(m.partner_model_id == definition["partner_model_id"] for m in self.models()):
                raise BadRequest(f"partner_model_id {definition['partner_model_id']!r} is taken", status=409)
            now = datetime.now(UTC).isoformat()
            own = {"id": str(uuid.uuid4()), "is_batch": definition.get("is_batch", False), "archived": False}
            times = {"created_at": now, "updated_at": now}
            ids = [{"id": str(uuid.uuid4())} | entry for entry in definition["attributes"]]
            model = Model(
                number=self.database.next_number(),
                id=own["id"],
                partner_model_id=definition["partner_model_id"],
                is_batch=own["is_batch"],
                attributes=attributes,
                definition=definition | own | times | {"attributes": ids},
                ready_at=time.time() + (0 if at_once else self._settings.provisioning_delay),
            )
            self.database.add_model(model)
            self._models[model.number] = model
            self._active.add(model.id)
        return model

    def models(self) -> list[Model]:
        """Every model that is not archived, oldest first."""
        return [model for model in list(self._models.values()) if model.id in self._active]

    def model(self, identifier: str, *, by: str = "id") -> Model:
        """The model with that `id` or `partner_model_id`."""
        for model in self.models():
            if identifier == (model.id if by == "id" else model.partner_model_id):
                return model
        raise BadRequest(f"no model has the {by} {identifier!r}", status=404)

    def ready_model(self, identifier: str) -> Model:
        """The model, when it takes data already."""
        model = self.model(identifier)
        if model.ready_at > time.time():
            raise BadRequest("the model is not Ready yet", status=409)
        return model

    def archive(self, model: Model) -> None:
        """Archives a model; what it holds stays on disk."""
        self.database.archive(model)
        self._active.discard(model.id)

    # -- rows

    def take_rows(self, model: Model, stream: Stream, rows: list[Any], *, drop: float) -> list[tuple[str, int]]:
        """Loads rows and answers each, in order, with a message and a status; durable when it returns."""
        refuses = self._settings.on_repeat == "refuse"
        with self._upload() as upload:
            faults = write_rows(RowCheck(model, stream), rows, upload)
            with self.database.cursor() as cur:
                offer = inspect(cur, upload, model, stream, batch_id=None)
            loaded = self._load(offer, "rows", left_out=len(rows) - faults.count(None), drop=drop)
        answers = []
        position = 0
        for fault in faults:
            if fault is not None:
                answers.append((fault, status_of(fault)))
                continue
            if position in loaded.unknown:
                answers.append((_UNKNOWN, status_of(_UNKNOWN)))
            elif position in loaded.repeated and refuses:
                answers.append((_REPEATED, status_of(_REPEATED)))
            else:
                answers.append(("success", 200))
            position += 1
        return answers

    def _load(self, offer: Offer, via: str, *, left_out: int, drop: float) -> Loaded:
        arrival = self.intake.next_arrival()
        received = datetime.now(UTC)
        dropping = Dropping(drop, self._settings.seed)
        with self.database.transaction() as cur:
            if offer.stream == "reference":
                loaded = load_reference(cur, offer, arrival=arrival)
            elif offer.stream == "ground_truth":
                loaded = load_labels(cur, offer, received=received, dropping=dropping, name_rows=True)
            else:
                loaded = load_inferences(
                    cur,
                    offer,
                    arrival=arrival,
                    received=received,
                    on_repeat=self._settings.on_repeat,
                    dropping=dropping,
                    name_rows=True,
                )
            load = replace(
                loaded.load, offered=loaded.load.offered + left_out, refused=loaded.load.refused + left_out
            )
            self.database.log(cur, arrival, offer.model, via=via, stream=offer.stream, load=load)
        return loaded

    # -- files

    def take_file(
        self, model: Model, stream: Stream, upload: Path, *, batch_id: str | None, drop: float
    ) -> FileAnswer:
        """Checks an uploaded file quickly and queues it; accepted, and safe from a crash, when it returns."""
        data, failures = self._as_parquet(model, stream, upload, batch_id)
        left_out = failures.total()
        with self.database.cursor() as cur:
            offer = inspect(cur, data, model, stream, batch_id=batch_id)
            ((rows,),) = offer.run(cur, f"SELECT count(*) FROM {offer.sql}")
            failures.update(offer.failures(cur))
            if stream == "reference":
                self._load(offer, "file", left_out=left_out, drop=0)
                data.unlink()
                return FileAnswer(int(str(rows)) + left_out, failures)
            batches = offer.batches(cur)
            if stream == "inferences" and self._settings.on_repeat == "refuse":
                failures[_REPEATED] += known_repeats(cur, offer)
            elif stream == "ground_truth" and not self._inferences_pending(model):
                failures[_UNKNOWN] += unknown_ids(cur, offer)
        self.intake.accept(
            data,
            model=model,
            stream=stream,
            batch_id=batch_id,
            batches=batches,
            present=offer.present,
            rows=int(str(rows)),
            left_out=left_out,
            drop=drop,
        )
        return FileAnswer(int(str(rows)) + left_out, +failures)

    def _as_parquet(
        self, model: Model, stream: Stream, upload: Path, batch_id: str | None
    ) -> tuple[Path, Counter[str]]:
        """The upload as parquet; from a JSON array, its good rows, and the others counted by fault."""
        with upload.open("rb") as head:
            if head.read(4) == b"PAR1":
                return upload, Counter()
        converted = self.intake.new_upload()
        try:
            faults = convert_file(RowCheck(model, stream, batch_id=batch_id), upload, converted)
        except BadRequest:
            converted.unlink(missing_ok=True)
            raise
        upload.unlink()
        return converted, faults

    def _inferences_pending(self, model: Model) -> bool:
        return any(e.model == model.number and e.stream == "inferences" for e in self.intake.pending())

    @contextmanager
    def _upload(self) -> Iterator[Path]:
        path = self.intake.new_upload()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    # -- batches, reference sets, queries

    def close_batch(self, model: Model, batch_id: str, total: int | None) -> None:
        """Marks a batch as uploaded; BadRequest when no row was ever offered for it."""
        pending = any(e.model == model.number and batch_id in e.batches for e in self.intake.pending())
        rows = f'SELECT count(*) FROM inferences_{model.number} WHERE "#batch" = ?'
        if not pending and not self.database.value(rows, [batch_id]):
            raise BadRequest(f"no batch {batch_id!r}", status=404)
        with self.database.transaction() as cur:
            cur.execute(
                "INSERT OR REPLACE INTO batches VALUES (?, ?, 'uploaded', ?)", [model.number, batch_id, total]
            )

    def close_reference(self, model: Model, total: int | None) -> None:
        """Marks the reference set as complete; BadRequest when there is none."""
        if not self.database.value(f"SELECT count(*) FROM reference_{model.number}"):
            raise BadRequest("the model has no reference data", status=404)
        with self.database.transaction() as cur:
            cur.execute("INSERT OR REPLACE INTO references_closed VALUES (?, ?)", [model.number, total])

    def lose(self, model: Model, ids: Sequence[str], *, stream: Stream = "inferences") -> int:
        """Forget rows that were stored, as a platform does after an accident; an inference takes its label along.
        Returns how many rows of the stream went."""
        tables = {"inferences": ("labels", "inferences"), "ground_truth": ("labels",)}.get(stream)
        if tables is None:
            raise BadRequest(f"stream {stream!r} is neither 'inferences' nor 'ground_truth'")
        gone = []
        with self.database.transaction() as cur:
            for table in tables:
                gone = cur.execute(
                    f'DELETE FROM {table}_{model.number} WHERE "#id" IN (SELECT unnest($ids::VARCHAR[])) RETURNING 1',
                    {"ids": list(ids)},
                ).fetchall()
        return len(gone)

    def query(self, model: Model, body: object, *, piece: int = 10_000) -> Iterator[list[str]]:
        """The answer's rows as JSON texts, in pieces, of one snapshot; a query that cannot be answered raises
        BadRequest before the first piece."""
        statement = compile_query(model, body)
        cur = self.database.open_cursor()
        try:
            cur.execute(statement.sql, statement.params)
        except BaseException:
            cur.close()
            raise
        return _pieces(cur.fetchmany, cur.close, piece)


def _pieces(
    fetch: Callable[[int], list[tuple[Any, ...]]], close: Callable[[], object], size: int
) -> Iterator[list[str]]:
    try:
        while rows := fetch(size):
            yield [text for (text,) in rows]
    finally:
        close()
