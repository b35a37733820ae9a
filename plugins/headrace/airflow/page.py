"""The page "Headrace" inside Airflow, the same figures as JSON, and Prometheus's metrics.

Every route asks Airflow for the user: 401 without a login, 403 without the permission to see Airflow's website. The
page changes nothing: actions are DAGs, linked for users who may trigger them. The beginnings of dead letters are shown
to users who may read the logs of the dataset's DAG.

No route occupies one of the API server's threads or waits for a database or a lock (see page_snapshot.py). Slow work is
done by a thread of the page, once for all requests.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.batch_apis import IsAuthorizedDagRequest
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user, requires_access_view
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from headrace.airflow.connections import deployment
from headrace.airflow.health import HealthCache
from headrace.airflow.page_declarations import DeclarationCache
from headrace.airflow.page_selection import Selection, select
from headrace.airflow.page_snapshot import FigureSnapshot, Refresher
from headrace.airflow.page_template import render_figures, render_login, render_page, render_runbook
from headrace.monitor.problems import Overview, find_problems_by
from headrace.monitor.status import read_status

STATIC = Path(__file__).with_name("static")
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".LICENSE": "text/plain"}
FILES = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in TYPES}
VERSION = hashlib.sha256(b"".join(FILES[name] for name in sorted(FILES))).hexdigest()[:12]
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # holds for any payload: only the page's own scripts and styles are used, and only Airflow may frame it
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
    ),
}
READING = "The figures are being read for the first time."
READING_S, FAILING_S = 2, 10  # seconds after which a page without figures asks again
BODIES = 64  # the most bodies kept per snapshot
CHUNK_BYTES = 256 * 1024  # Airflow compresses responses on its only serving thread: small pieces let others in
ASKED_MAX = 500  # the most datasets for which the auth manager is asked one by one, for dead letters in the JSON

PageUser = Annotated[BaseUser, Depends(get_user)]
T = TypeVar("T")

app = FastAPI(
    title="Headrace",
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
    dependencies=[Depends(requires_access_view(AccessView.WEBSITE))],
)


def _read() -> Overview:
    ours = deployment()
    limits, faults = _declarations.read(ours.settings.datasets_dir)
    health = _health.read(is_local=(ours.settings.home / "airflow" / "airflow.cfg").is_file())
    return find_problems_by(read_status(ours.connect("headrace page")), limits, faults, health)


class _Bodies:
    """Rendered bodies of the newest figures, for equal requests; used only by the rendering thread."""

    def __init__(self) -> None:
        self._overview: Overview | None = None
        self._made: dict[object, Any] = {}

    def get(self, overview: Overview, key: object, make: Callable[[], T]) -> T:
        """The result of `make`, computed once."""
        if overview is not self._overview or len(self._made) >= BODIES:
            self._overview, self._made = overview, {}
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found


_declarations = DeclarationCache()
_health = HealthCache()
_refresher = Refresher(_read)
_bodies = _Bodies()
_renderer = ThreadPoolExecutor(1, thread_name_prefix="headrace page")


async def _rendered(make: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_renderer, make)


@app.get("/")
async def page(user: PageUser, q: str = "", page: str = "") -> Response:
    """The page with the last figures; q: a search, page: the number of its result page."""
    snapshot = await _refresher.current()
    if snapshot.overview is None:
        stale_reason = snapshot.stale_reason()
        html = render_page(VERSION, error=stale_reason or READING, again_s=FAILING_S if stale_reason else READING_S)
        return HTMLResponse(html, status_code=503, headers=HEADERS)
    html = await _rendered(lambda: _figures(snapshot, user, q, page))
    return HTMLResponse(render_page(VERSION, html), headers=HEADERS)


@app.get("/figures")
async def figures(user: PageUser, q: str = "", page: str = "") -> Response:
    """The part of the page that changes, which it fetches to refresh itself: the figures of /headrace/status."""
    snapshot = await _refresher.current()
    if snapshot.overview is None:
        return PlainTextResponse(snapshot.stale_reason() or READING, status_code=503, headers=HEADERS)
    html = await _rendered(lambda: _figures(snapshot, user, q, page))
    return HTMLResponse(html, headers=HEADERS)


@app.get("/status")
async def status(user: PageUser) -> Response:
    """The document of `headrace status --json`; with an error and 503 if it is stale or missing."""
    snapshot = await _refresher.current()
    stale_reason = snapshot.stale_reason()
    if snapshot.overview is None:
        return JSONResponse({"error": stale_reason or READING}, status_code=503, headers=HEADERS)
    overview = snapshot.overview
    body = await _rendered(lambda: _document(overview, user))
    if stale_reason is not None:
        extra = _encode({"error": stale_reason, "age_s": round(snapshot.age_s() or 0.0, 1)})
        body = extra.removesuffix("}").encode() + b"," + body.removeprefix(b"{")
    return _streamed(body, "application/json", 200 if stale_reason is None else 503)


@app.get("/metrics")
async def metrics() -> Response:
    """Prometheus's text format; headrace_up is 0 when Postgres does not answer."""
    from headrace.monitor.metrics import CONTENT_TYPE, exposition

    snapshot = await _refresher.current()
    if snapshot.overview is None or snapshot.error is not None:
        return Response(exposition(None), headers=HEADERS, media_type=CONTENT_TYPE)
    overview = snapshot.overview
    body = await _rendered(lambda: _bodies.get(overview, "metrics", lambda: exposition(overview)))
    return _streamed(body, CONTENT_TYPE)


@app.get("/runbook")
async def runbook() -> Response:
    """The runbook, to whose sections the problems lead."""
    try:
        return HTMLResponse(await _rendered(lambda: render_runbook(VERSION)), headers=HEADERS)
    except FileNotFoundError as error:
        raise HTTPException(404, "this installation has no docs/runbook.md") from error


@app.get("/static/{name}")
async def static(name: str) -> Response:
    """One of the page's own files."""
    content = FILES.get(name)
    if content is None:
        raise HTTPException(404, "no such file")
    headers = HEADERS | {"Cache-Control": "private, max-age=86400"}  # their addresses contain their version
    return Response(content, media_type=TYPES[Path(name).suffix], headers=headers)


@app.exception_handler(StarletteHTTPException)
async def refused(request: Request, error: StarletteHTTPException) -> Response:
    """401 as a page with a link to the login for browsers, as JSON otherwise."""
    headers = HEADERS | dict(error.headers or {})
    if error.status_code in (401, 403) and "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(render_login(error.status_code), status_code=error.status_code, headers=headers)
    return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=headers)


def _streamed(body: bytes, media_type: str, code: int = 200) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), CHUNK_BYTES):
            yield body[start : start + CHUNK_BYTES]
            await asyncio.sleep(0)  # lets other requests run

    return StreamingResponse(chunks(), code, HEADERS, media_type)


# --- on the rendering thread ---


def _figures(snapshot: FigureSnapshot, user: BaseUser, query: str, page: str) -> str:
    overview = snapshot.overview
    assert overview is not None
    shown = _for_user(overview, user)
    is_whole = shown is overview
    number = int(page) if page.isascii() and page.isdigit() and len(page) < 10 else 1
    selection = _bodies.get(overview, (query, number, is_whole), lambda: select(shown, query, number))
    permissions = _permissions(overview, user, selection)
    stale_reason = snapshot.stale_reason()
    return _bodies.get(
        overview,
        (query, number, is_whole, permissions, stale_reason),
        lambda: render_figures(
            shown, permissions.triggerable, selection, stale_reason=stale_reason, readable=permissions.readable
        ),
    )


def _for_user(overview: Overview, user: BaseUser) -> Overview:
    """The overview, without the messages of import errors for users whom Airflow does not show them."""
    if all(problem.kind != "import_error" for problem in overview.problems):
        return overview
    if get_auth_manager().is_authorized_view(access_view=AccessView.IMPORT_ERRORS, user=user):
        return overview
    return _bodies.get(overview, "without import errors", overview.without_import_messages)


def _document(overview: Overview, user: BaseUser) -> bytes:
    shown = _for_user(overview, user)
    readable = _readable(
        overview, user, dict.fromkeys(dead_letter.dataset for dead_letter in overview.status.dead_letters)
    )

    def make() -> bytes:
        dead_letters = [dead_letter for dead_letter in overview.status.dead_letters if dead_letter.dataset in readable]
        document = replace(shown, status=replace(shown.status, dead_letters=dead_letters)).document()
        return _json(document, depth=2).encode()

    return _bodies.get(overview, (readable, shown is overview), make)


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _json(value: Any, depth: int) -> str:
    """JSON, encoded in pieces so that other threads can run: the encoder is a single call into C."""
    if depth and isinstance(value, dict):
        return "{" + ",".join(f"{_encode(key)}:{_json(each, depth - 1)}" for key, each in value.items()) + "}"
    if depth and isinstance(value, list):
        return "[" + ",".join(_json(each, depth - 1) for each in value) + "]"
    return _encode(value)


@dataclass(frozen=True, slots=True)
class Permissions:
    """A user's permissions in Airflow: datasets whose dead letters are readable, DAGs that may be triggered."""

    readable: frozenset[str]
    triggerable: frozenset[str]


def _permissions(overview: Overview, user: BaseUser, selection: Selection) -> Permissions:
    """The permissions that affect this page: an auth manager may ask another server about each of them."""
    ingesting = {overview.dag_of(problem.dataset) for problem in selection.problems if problem.dataset is not None}
    return Permissions(
        readable=_readable(overview, user, [each.dataset for each in selection.datasets if each.dead_by_reason]),
        triggerable=frozenset(
            dag_id
            for dag_id in (*sorted(ingesting), "build_marts", "replay_dead_letters", "verify_ingestion")
            if _may(user, "POST", DagAccessEntity.RUN, dag_id)
        ),
    )


def _readable(overview: Overview, user: BaseUser, datasets: Iterable[str]) -> frozenset[str]:
    """The datasets whose dead letters the user may read."""
    dags = {dataset: overview.dag_of(dataset) for dataset in datasets}
    requests = [
        IsAuthorizedDagRequest(method="GET", access_entity=DagAccessEntity.TASK_LOGS, details=DagDetails(id=dag_id))
        for dag_id in dags.values()
    ]
    if get_auth_manager().batch_is_authorized_dag(requests, user=user):
        return frozenset(dags)
    asked = list(dags)[:ASKED_MAX]
    return frozenset(each for each in asked if _may(user, "GET", DagAccessEntity.TASK_LOGS, dags[each]))


def _may(user: BaseUser, method: Any, entity: DagAccessEntity, dag_id: str) -> bool:
    return get_auth_manager().is_authorized_dag(
        method=method, access_entity=entity, details=DagDetails(id=dag_id), user=user
    )
