"""The page "Headrace" inside Airflow, the same figures as JSON, and Prometheus's metrics.

Every route asks Airflow who is there: 401 without a login, 403 without the permission to see Airflow's website. Nothing
here changes anything: what there is to do is a DAG of Airflow, linked for those whom Airflow lets trigger it. The
beginnings of dead letters are shown to those who may read the logs of the dataset's DAG.
"""

import hashlib
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user, requires_access_view
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from headrace.airflow.connections import deployment
from headrace.airflow.page_template import render_figures, render_login, render_page
from headrace.exceptions import HeadraceError
from headrace.problems import Overview, judge
from headrace.status import read_status

CACHE_S = 2.0  # however many look at once, the database is asked this often
STATIC = Path(__file__).with_name("static")
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".LICENSE": "text/plain"}
FILES = {path.name: path for path in STATIC.iterdir() if path.suffix in TYPES}
VERSION = hashlib.sha256(b"".join(FILES[name].read_bytes() for name in sorted(FILES))).hexdigest()[:12]
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # whatever a payload holds: nothing but the page's own files runs or is styled, and only Airflow may frame it
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    ),
}

User = Annotated[BaseUser, Depends(get_user)]

app = FastAPI(
    title="Headrace",
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
    dependencies=[Depends(requires_access_view(AccessView.WEBSITE))],
)


@dataclass(frozen=True, slots=True)
class Permissions:
    """What Airflow lets a user do: the datasets whose dead letters may be read, the DAGs that may be triggered."""

    readable: Collection[str]
    triggerable: Collection[str]


class _Reader:
    """Reads the status at most every CACHE_S seconds; those who ask meanwhile share what was read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._overview: Overview | None = None

    def read(self) -> Overview:
        with self._lock:
            if self._overview is None or time.monotonic() - self._read_at > CACHE_S:
                ours = deployment()
                self._overview = None
                self._overview = judge(read_status(ours.connect("headrace page")), ours.settings)
                self._read_at = time.monotonic()
            return self._overview


_reader = _Reader()


@app.get("/")
def page(user: User) -> Response:
    """The page, with the figures as they are now."""
    try:
        overview, permissions = _read_for(user)
    except HeadraceError as error:
        return HTMLResponse(render_page(VERSION, error=str(error)), status_code=503, headers=HEADERS)
    return HTMLResponse(render_page(VERSION, render_figures(overview, permissions.triggerable)), headers=HEADERS)


@app.get("/figures")
def figures(user: User) -> Response:
    """The part of the page that changes: what it fetches to refresh itself. The figures of /headrace/status."""
    try:
        overview, permissions = _read_for(user)
    except HeadraceError as error:
        return PlainTextResponse(str(error), status_code=503, headers=HEADERS)
    return HTMLResponse(render_figures(overview, permissions.triggerable), headers=HEADERS)


@app.get("/status")
def status(user: User) -> Response:
    """The document of `headrace status --json`."""
    try:
        overview, _ = _read_for(user)
    except HeadraceError as error:
        return JSONResponse({"error": str(error)}, status_code=503, headers=HEADERS)
    return JSONResponse(overview.document(), headers=HEADERS)


@app.get("/metrics")
def metrics() -> Response:
    """Prometheus's text format; headrace_up is 0 when Postgres does not answer."""
    from headrace.metrics import CONTENT_TYPE, exposition

    try:
        overview = _reader.read()
    except HeadraceError:
        return Response(exposition(None), headers=HEADERS, media_type=CONTENT_TYPE)
    return Response(exposition(overview), headers=HEADERS, media_type=CONTENT_TYPE)


@app.get("/static/{name}")
def static(name: str) -> Response:
    """One of the page's own files."""
    path = FILES.get(name)
    if path is None:
        raise HTTPException(404, "no such file")
    headers = HEADERS | {"Cache-Control": "private, max-age=86400"}  # their addresses carry their version
    return FileResponse(path, media_type=TYPES[path.suffix], headers=headers)


@app.exception_handler(StarletteHTTPException)
async def refused(request: Request, error: StarletteHTTPException) -> Response:
    """401 as a page that leads to the login where a person asked, as JSON otherwise."""
    headers = HEADERS | dict(error.headers or {})
    if error.status_code in (401, 403) and "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(render_login(error.status_code), status_code=error.status_code, headers=headers)
    return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=headers)


def _read_for(user: BaseUser) -> tuple[Overview, Permissions]:
    overview = _reader.read()
    permissions = _permissions(overview, user)
    letters = [letter for letter in overview.status.dead_letters if letter.dataset in permissions.readable]
    return replace(overview, status=replace(overview.status, dead_letters=letters)), permissions


def _permissions(overview: Overview, user: BaseUser) -> Permissions:
    dags = {dataset.dataset: overview.dag_of(dataset.dataset) for dataset in overview.status.datasets}
    return Permissions(
        readable={dataset for dataset, dag_id in dags.items() if _may(user, "GET", DagAccessEntity.TASK_LOGS, dag_id)},
        triggerable={
            dag_id
            for dag_id in (*dags.values(), "build_marts", "replay_dead_letters", "verify_ingestion")
            if _may(user, "POST", DagAccessEntity.RUN, dag_id)
        },
    )


def _may(user: BaseUser, method: Any, entity: DagAccessEntity, dag_id: str) -> bool:
    return get_auth_manager().is_authorized_dag(
        method=method, access_entity=entity, details=DagDetails(id=dag_id), user=user
    )
