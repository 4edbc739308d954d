"""The page's application: who may see it is what Airflow says of its DAGs. It only reads.

    GET /             the page
    GET /api/status   the same as JSON
    GET /page.css, /page.js

A stranger gets 401, and somebody who may read no DAG 403. Of the jobs one sees those whose DAGs one may read, as in
Airflow's own lists; the files that are wrong one sees who may see Airflow's import errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends, FastAPI, Response
from fastapi.responses import JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import select

from tidepost.airflow.names import dag_id
from tidepost.airflow.page.document import document
from tidepost.airflow.page.reading import Reading, Recent, read
from tidepost.airflow.page.shown import Dag, of_stream, shown, visible
from tidepost.model import StreamName

FRESH: Final = 5.0
"""Seconds for which a reading is good enough for everybody who asks."""
REFRESH: Final = 15
"""Seconds between two looks of an open page."""

_PACKAGE: Final = "tidepost.airflow.page"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def uploads_app(fresh: float = FRESH) -> FastAPI:
    """The application, to be mounted in Airflow's; `fresh` as `FRESH`."""
    # Without FastAPI's own pages, which would be open to everybody.
    app = FastAPI(
        title="tidepost uploads",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(requires_access_dag(method="GET"))],
    )
    recent = Recent(read, fresh)
    parts = {name: (files(_PACKAGE) / name).read_text() for name in ("page.css", "page.js")}
    version = hashlib.sha256("".join(parts.values()).encode()).hexdigest()[:12]
    template = _environment().get_template("page.html")

    @app.get("/")
    def page(user: GetUserDep, session: SessionDep) -> Response:
        found, dags = _allowed(recent(), user, session)
        html = template.render(page=shown(found, dags), version=version, refresh=REFRESH)
        return Response(html, media_type="text/html; charset=utf-8", headers=_HEADERS)

    @app.get("/api/status")
    def status(user: GetUserDep, session: SessionDep) -> Response:
        found, dags = _allowed(recent(), user, session)
        return JSONResponse(document(found, dags), headers=_HEADERS)

    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        app.get(f"/{name}")(_static(parts[name], f"{kind}; charset=utf-8"))
    return app


def _static(text: str, kind: str) -> Callable[[], Response]:
    # Its address changes with its content.
    headers = {**_HEADERS, "Cache-Control": "private, max-age=86400"}
    return lambda: Response(text, media_type=kind, headers=headers)


def _allowed(reading: Reading, user: Any, session: Any) -> tuple[Reading, dict[str, Dag]]:
    """What of a reading somebody may see, and the DAGs of these jobs, as far as Airflow has them: by job, and those
    for labels alone by `of_stream`."""
    manager = get_auth_manager()
    ids = {found.name: dag_id(found.name) for found in reading.jobs}
    of_labels = {of_stream(job, StreamName.GROUND_TRUTH): dag_id(job, labels=True) for job in ids}
    ids |= {of: found for of, found in of_labels.items() if found not in ids.values()}
    allowed = manager.filter_authorized_dag_ids(dag_ids=set(ids.values()), user=user, method="GET")
    broken = manager.is_authorized_view(access_view=AccessView.IMPORT_ERRORS, user=user)
    known = select(DagModel.dag_id, DagModel.is_paused).where(DagModel.dag_id.in_(allowed), ~DagModel.is_stale)
    dags = {row.dag_id: Dag(row.dag_id, row.is_paused) for row in session.execute(known)}
    jobs = {found.name for found in reading.jobs if ids[found.name] in allowed}
    return visible(reading, jobs, broken=broken), {of: dags[found] for of, found in ids.items() if found in dags}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "."),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["clock"] = lambda iso: iso.replace("T", " ").replace("Z", " UTC")
    environment.filters["word"] = lambda care: care.name.lower()
    return environment
