"""The routes of Arize's API, and the sandbox's own questions about what arrived there."""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from tidepost.sandbox.arize.message import Message, decoded
from tidepost.sandbox.arize.record import row_of
from tidepost.sandbox.arize.rules import check_columns, check_rows, seconds
from tidepost.sandbox.arize.store import SECONDS, Origin, Store
from tidepost.sandbox.catalog import BadRequest
from tidepost.sandbox.gate import note_rows, share_to_drop
from tidepost.sandbox.platform import Platform

SPACES: Final = ("arize-space-id", "space_id", "arize-space-key", "space")
"""The headers that name a space: the newest first, and those of older SDKs."""
_PREFIX: Final = "grpc-metadata-"


class Arize:
    """Arize's side of a sandbox: one key for all spaces, or any."""

    def __init__(self, platform: Platform) -> None:
        self.store = Store(platform.database)
        self._platform = platform
        self._lock = threading.Lock()
        self._arrivals = self.store.last_arrival()

    def authorized(self, request: Request, interface: str) -> Origin:
        """Who sends. Raises BadRequest (401) for a key or a space that will not do."""
        key, given = self._platform.settings.api_key, request.headers.get("authorization", "")
        if not given or (key is not None and not hmac.compare_digest(given.encode(), key.encode())):
            raise BadRequest("the header authorization holds no valid API key", status=401)
        headers = {name.removeprefix(_PREFIX): value for name, value in request.headers.items()}
        space = next((headers[name] for name in SPACES if headers.get(name)), "")
        if not space:
            raise BadRequest("no header names a space", status=401)
        return Origin(space, interface)

    def take(self, origin: Origin, upload: Path, headers: dict[str, str], *, drop: float) -> int:
        """Check a batch, and store it; returns its rows. Raises BadRequest."""
        try:
            with pa.OSFile(str(upload)) as file, pa.ipc.open_stream(file) as reader:
                message = _message(reader.schema, headers)
                check_columns(message, reader.schema)
                rows = self._counted(upload, message)
                said = headers.get("number-of-rows")
                if said is not None and said != str(rows):
                    raise BadRequest(f"number-of-rows says {said}, and the batch holds {rows}")
                self._store(origin, message, reader, drop=drop)
        except pa.ArrowException as error:
            raise BadRequest(f"the body is no Arrow stream: {error}") from error
        return rows

    def take_record(self, origin: Origin, content: object) -> None:
        """Check a streamed record, and store it. Raises BadRequest."""
        self.store.add_record(origin, row_of(content, now=self.now), arrival=self._next())

    @property
    def now(self) -> float:
        """The time that timestamps are measured by."""
        fixed = self._platform.settings.now
        return time.time() if fixed is None else fixed

    def _counted(self, upload: Path, message: Message) -> int:
        """Look every row through, and count them."""
        rows = 0
        with pa.OSFile(str(upload)) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                check_rows(message, batch, now=self.now)
                rows += batch.num_rows
        return rows

    def _store(self, origin: Origin, message: Message, reader: pa.RecordBatchReader, *, drop: float) -> None:
        timed = message.single.get("timestamp")
        schema = reader.schema if timed is None else reader.schema.append(pa.field(SECONDS, pa.float64()))

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in reader:
                if timed is None:
                    yield batch
                else:
                    arrays = [*batch.columns, seconds(batch.column(timed))]
                    yield pa.record_batch(arrays, schema=schema)

        whole = pa.RecordBatchReader.from_batches(schema, batches())
        self.store.add_batches(origin, message, whole, arrival=self._next(), keep=1 - drop)

    def _next(self) -> int:
        with self._lock:
            self._arrivals += 1
            return self._arrivals


def routes(platform: Platform, arize: Arize) -> APIRouter:
    """Arize's routes under /v1, and the sandbox's own under /sandbox/arize, which need no key."""
    api = APIRouter()

    @api.post("/v1/pandas_arrow")
    async def batch(request: Request) -> Response:
        origin = arize.authorized(request, "batch")
        target = platform.intake.new_upload()
        try:
            with target.open("wb") as file:
                async for block in request.stream():
                    file.write(block)
            headers, drop = dict(request.headers), share_to_drop(request.scope)
            rows = await run_in_threadpool(arize.take, origin, target, headers, drop=drop)
        finally:
            target.unlink(missing_ok=True)
        note_rows(request.scope, rows)
        return JSONResponse({"realTimeIngestionUri": f"{request.base_url}#arize"})

    @api.post("/v1/log")
    async def record(request: Request) -> Response:
        origin = arize.authorized(request, "stream")
        try:
            content = json.loads(await request.body())
        except ValueError as error:
            raise BadRequest("the body is not JSON") from error
        await run_in_threadpool(arize.take_record, origin, content)
        note_rows(request.scope, 1)
        return JSONResponse({})

    @api.get("/sandbox/arize/stats")
    def stats(space: str = "", model: str = "") -> Response:
        return JSONResponse({"models": arize.store.stats(space, model)})

    @api.post("/sandbox/arize/records")
    async def records(request: Request) -> Response:
        asked: dict[str, Any] = json.loads(await request.body())
        space, model, ids = asked["space"], asked["model"], asked.get("ids", [])
        limit = int(asked.get("limit", 10_000))
        return JSONResponse({"records": arize.store.records(space, model, ids, limit=limit)})

    return api


def _message(schema: pa.Schema, headers: dict[str, str]) -> Message:
    """From the schema's metadata, or, as SDKs up to 7.0 send it, from the header `schema`."""
    text = (schema.metadata or {}).get(b"arize-schema") or headers.get("schema", "").encode()
    if not text:
        raise BadRequest("neither the Arrow schema's metadata nor a header holds arize-schema")
    return decoded(text)
