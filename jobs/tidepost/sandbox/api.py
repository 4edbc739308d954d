"""The routes of Arthur's API.

Arthur API v3, as its Python SDK 3.33.3 speaks it; what it does with mistakes is this sandbox's reading of the
documentation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tidepost.sandbox.auth import TOKEN_SECONDS, Keys
from tidepost.sandbox.catalog import BadRequest, Model, Stream
from tidepost.sandbox.gate import note_rows, share_to_drop
from tidepost.sandbox.multipart import receive
from tidepost.sandbox.platform import FileAnswer, Platform, status_of
from tidepost.sandbox.rows import parse_rows

ORGANIZATION: Final = "5a9d0000-0000-4000-8000-000000000001"
_ENRICHMENTS: Final = ("anomaly_detection", "bias_mitigation", "explainability", "hotspots")
_FILE_STREAMS: Final[dict[str, Stream]] = {"inference_data": "inferences", "ground_truth_data": "ground_truth"}
_SUCCESS: Final = 200


def answer(status: int, body: object) -> Response:
    """A JSON answer."""
    return JSONResponse(body, status_code=status)


def refused(error: BadRequest) -> Response:
    """The answer to a request that is refused as a whole."""
    return answer(error.status, {"message": error.message, "status": error.status})


def routes(platform: Platform) -> APIRouter:
    """Every route under /api/v3."""
    keys = Keys(platform.settings.api_key)

    def authorized(request: Request) -> None:
        if not keys.accepts(request.headers.get("Authorization")):
            raise BadRequest("the header Authorization holds no valid access key", status=401)

    api = APIRouter(prefix="/api/v3")
    api.include_router(_login(keys))
    for part in (_users(), _models(platform), _data(platform), _questions(platform)):
        api.include_router(part, dependencies=[Depends(authorized)])
    return api


def _login(keys: Keys) -> APIRouter:
    api = APIRouter()

    @api.post("/login")
    async def login(request: Request) -> Response:
        body = await _json(request)
        if not isinstance(body, dict) or not isinstance(body.get("login"), str):
            raise BadRequest("login and password must be given")
        token = keys.login(str(body.get("password", "")))
        if token is None:
            raise BadRequest("login or password is wrong", status=401)
        response = answer(200, {"login": body["login"], "organization_id": ORGANIZATION})
        response.set_cookie("Authorization", token, max_age=TOKEN_SECONDS, httponly=True)
        return response

    return api


def _users() -> APIRouter:
    api = APIRouter()

    @api.get("/users/me")
    def me() -> Response:
        return answer(200, {"login": "sandbox", "organization_id": ORGANIZATION})

    @api.get("/users/me/auth_info")
    def auth_info() -> Response:
        return answer(
            200,
            {
                "issuer": "tidepost sandbox",
                "username": "sandbox",
                "first_name": "Sandbox",
                "last_name": "User",
                "email": "sandbox@example.invalid",
                "roles": ["Administrator"],
                "organization_ids": [ORGANIZATION],
            },
        )

    return api


def _models(platform: Platform) -> APIRouter:
    api = APIRouter()

    @api.post("/models")
    async def register(request: Request) -> Response:
        body = await _json(request)
        later = request.query_params.get("async_model_provisioning", "").lower() == "true"
        model = await run_in_threadpool(platform.register, body, at_once=not later)
        shown = _shown(model, attributes=True)
        return answer(201, shown | {"status": "Pending"} if later else shown)

    @api.get("/models/{model_id}")
    def get(model_id: str, id_type: str = "id", expand: str = "") -> Response:
        if id_type not in ("id", "partner_model_id"):
            raise BadRequest(f"id_type {id_type!r} is neither 'id' nor 'partner_model_id'")
        model = platform.model(unquote(model_id), by=id_type)
        return answer(200, _shown(model, attributes="attributes" in expand.split(",")))

    @api.delete("/models/{model_id}")
    def archive(model_id: str) -> Response:
        platform.archive(platform.model(unquote(model_id)))
        return Response(status_code=204)

    @api.get("/models/{model_id}/enrichments")
    def enrichments(model_id: str) -> Response:
        platform.model(unquote(model_id))
        return answer(200, {name: {"enabled": False, "status": "Disabled"} for name in _ENRICHMENTS})

    return api


def _data(platform: Platform) -> APIRouter:
    api = APIRouter()

    async def rows(request: Request, model_id: str, stream: Stream) -> Response:
        model = platform.ready_model(unquote(model_id))
        offered = parse_rows(await request.body())
        note_rows(request.scope, len(offered))
        results = await run_in_threadpool(
            platform.take_rows, model, stream, offered, drop=share_to_drop(request.scope)
        )
        return answer(207, _row_answer(results))

    async def upload(request: Request, model_id: str, streams: dict[str, Stream]) -> Response:
        model = platform.ready_model(unquote(model_id))
        target = platform.intake.new_upload()
        try:
            form = await receive(
                request.stream(),
                request.headers.get("content-type", ""),
                file_parts=frozenset(streams),
                target=target,
            )
            taken = await run_in_threadpool(
                platform.take_file,
                model,
                streams[form.file_part],
                target,
                batch_id=form.fields.get("batch_id") or None,
                drop=share_to_drop(request.scope),
            )
        finally:
            target.unlink(missing_ok=True)
        note_rows(request.scope, taken.rows)
        return answer(207, _file_answer(taken))

    @api.post("/models/{model_id}/inferences")
    async def inferences(request: Request, model_id: str) -> Response:
        return await rows(request, model_id, "inferences")

    @api.patch("/models/{model_id}/inferences")
    @api.patch("/models/{model_id}/ground_truth")
    async def ground_truth(request: Request, model_id: str) -> Response:
        return await rows(request, model_id, "ground_truth")

    @api.post("/models/{model_id}/inferences/file")
    async def file(request: Request, model_id: str) -> Response:
        return await upload(request, model_id, _FILE_STREAMS)

    @api.post("/models/{model_id}/reference_data")
    async def reference(request: Request, model_id: str) -> Response:
        return await upload(request, model_id, {"reference_data": "reference"})

    @api.patch("/models/{model_id}/reference_data")
    async def close_reference(request: Request, model_id: str) -> Response:
        total = _closing(await _json(request))
        model = platform.ready_model(unquote(model_id))
        await run_in_threadpool(platform.close_reference, model, total)
        return answer(200, {"status": "uploaded", "total_record_count": total})

    @api.patch("/models/{model_id}/batches/{batch_id}")
    async def close_batch(request: Request, model_id: str, batch_id: str) -> Response:
        total = _closing(await _json(request))
        model = platform.ready_model(unquote(model_id))
        await run_in_threadpool(platform.close_batch, model, unquote(batch_id), total)
        return answer(200, {"batch_id": unquote(batch_id), "status": "uploaded", "total_record_count": total})

    @api.post("/models/{model_id}/inferences/integrations/sagemaker_data_capture")
    def sagemaker(model_id: str) -> Response:
        platform.model(unquote(model_id))
        raise BadRequest("this sandbox does not take SageMaker's captured data", status=501)

    return api


def _questions(platform: Platform) -> APIRouter:
    api = APIRouter()

    @api.post("/models/{model_id}/inferences/query")
    async def query(request: Request, model_id: str) -> Response:
        model = platform.model(unquote(model_id))
        pieces = await run_in_threadpool(platform.query, model, await _json(request))
        return StreamingResponse(_streamed(pieces), media_type="application/json")

    return api


def _streamed(pieces: Iterator[list[str]]) -> Iterator[str]:
    yield '{"query_result": ['
    separator = ""
    for piece in pieces:
        yield separator + ",".join(piece)
        separator = ","
    yield "]}"


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except ValueError as error:
        raise BadRequest("the body is not JSON") from error


def _shown(model: Model, *, attributes: bool) -> dict[str, Any]:
    shown = dict(model.definition)
    if not attributes:
        del shown["attributes"]
    return shown | {"status": "Ready" if model.ready_at <= time.time() else "Creating"}


def _closing(body: object) -> int | None:
    """The count in a closing body; BadRequest when it is none."""
    if not isinstance(body, dict) or body.get("status") != "uploaded":
        raise BadRequest("status must be 'uploaded'")
    total = body.get("total_record_count")
    if total is not None and (not isinstance(total, int) or isinstance(total, bool) or total < 0):
        raise BadRequest("total_record_count must be a whole number from 0")
    return total


def _counts(rows: int, failed: int) -> dict[str, int]:
    return {"success": rows - failed, "failure": failed, "total": rows}


def _row_answer(results: Sequence[tuple[str, int]]) -> dict[str, Any]:
    failed = sum(status != _SUCCESS for _, status in results)
    return {
        "counts": _counts(len(results), failed),
        "results": [{"message": message, "status": status} for message, status in results],
    }


def _file_answer(taken: FileAnswer) -> dict[str, Any]:
    """The answer to a file; a failure says how many rows it stands for, and names none."""
    failures = [
        {"message": f"{rows} rows: {reason}", "status": status_of(reason)} for reason, rows in taken.failures.items()
    ]
    return {"counts": _counts(taken.rows, taken.failed), "failures": failures}
