"""The app: Arthur's and Arize's API, the sandbox's own routes, and the gate before them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tidepost.sandbox import admin, api
from tidepost.sandbox.arize.routes import Arize
from tidepost.sandbox.arize.routes import routes as arize_routes
from tidepost.sandbox.catalog import BadRequest
from tidepost.sandbox.gate import Gate, Recent
from tidepost.sandbox.platform import Platform
from tidepost.sandbox.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The sandbox as an app. It holds its data directory from here until its lifespan ends; Misconfigured when
    another sandbox does. Faults that cut a connection need the server in `server.py`."""
    platform = Platform(settings)
    recent = Recent()
    arize = Arize(platform)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        platform.start()
        yield
        await run_in_threadpool(platform.close)

    # No schema pages: they would fetch their scripts from elsewhere, and this one works offline.
    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(api.routes(platform))
    app.include_router(arize_routes(platform, arize))
    app.include_router(admin.routes(platform, recent, arize))
    app.add_middleware(Gate, plan=lambda: platform.faults, recent=recent)

    @app.exception_handler(BadRequest)
    async def bad_request(_: Request, error: BadRequest) -> Response:
        return api.refused(error)

    @app.exception_handler(HTTPException)
    async def no_such_route(_: Request, error: HTTPException) -> Response:
        return api.refused(BadRequest(str(error.detail), status=error.status_code))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    return app
