"""The sandbox's own routes: what it is, what it holds, and how it is to misbehave. They need no key."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from tidepost.errors import Misconfigured
from tidepost.sandbox.arize.routes import Arize
from tidepost.sandbox.catalog import BadRequest
from tidepost.sandbox.gate import Recent
from tidepost.sandbox.page import render
from tidepost.sandbox.platform import Platform
from tidepost.sandbox.settings import Fault
from tidepost.sandbox.stats import doubled_ids, model_stats, rows_a_day


def routes(platform: Platform, recent: Recent, arize: Arize) -> APIRouter:
    """The page at `/`, and everything under /sandbox."""
    api = APIRouter()

    @api.get("/")
    def page() -> Response:
        models = [(model_stats(platform, model), rows_a_day(platform, model)) for model in platform.models()]
        spaces = [(stats, arize.store.days(stats["space"], stats["model"])) for stats in arize.store.stats()]
        return HTMLResponse(render(models, spaces, recent.shown(), platform.faults.shown()))

    @api.get("/sandbox")
    def identity() -> Response:
        version = importlib.metadata.version("tidepost")
        return JSONResponse(
            {"name": "tidepost sandbox", "version": version, "data": str(platform.settings.data.resolve())}
        )

    @api.get("/sandbox/queue")
    def queue() -> Response:
        return JSONResponse({"pending": len(platform.intake.pending()), "loading_errors": platform.loader.errors()})

    @api.get("/sandbox/stats")
    def stats(model: str = "") -> Response:
        models = [platform.model(model)] if model else platform.models()
        return JSONResponse(
            {
                "models": [model_stats(platform, each) for each in models],
                "loading_errors": platform.loader.errors(),
                "requests": recent.shown(),
            }
        )

    @api.get("/sandbox/models/{model_id}/ids")
    def ids(model_id: str, limit: int = 100) -> Response:
        return JSONResponse(doubled_ids(platform, platform.model(unquote(model_id)), limit=limit))

    @api.get("/sandbox/settings")
    def settings() -> Response:
        return JSONResponse(platform.settings.shown() | {"faults": platform.faults.shown()})

    @api.patch("/sandbox/settings")
    async def configure(request: Request) -> Response:
        body = await _object(request)
        try:
            changed = platform.configure(body)
        except Misconfigured as error:
            raise BadRequest(error.message) from error
        return JSONResponse(changed.shown() | {"faults": platform.faults.shown()})

    @api.post("/sandbox/faults")
    async def add_fault(request: Request) -> Response:
        body = await _object(request)
        try:
            platform.faults.add(Fault.from_mapping(body))
        except Misconfigured as error:
            raise BadRequest(error.message) from error
        return JSONResponse({"faults": platform.faults.shown()}, status_code=201)

    @api.post("/sandbox/models/{model_id}/lose")
    async def lose(model_id: str, request: Request) -> Response:
        body = await _object(request)
        ids, stream = body.get("ids"), body.get("stream", "inferences")
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise BadRequest("ids must be a list of partner inference ids")
        return JSONResponse({"rows": platform.lose(platform.model(unquote(model_id)), ids, stream=stream)})

    return api


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise BadRequest("the body is not JSON") from error
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body
