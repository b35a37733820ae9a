"""The page "Headrace" inside Airflow, the same figures as JSON, and Prometheus's metrics.

Every route asks Airflow for the user: 401 without a login, 403 without the permission to see Airflow's website. The
page changes nothing: actions are DAGs, linked for users who may trigger them. The beginnings of dead letters are shown
to users who may read the logs of the dataset's DAG.

No route occupies one of the API server's threads or waits for a database or a lock (see page_snapshot.py). Slow work is
done by a thread of the page, once for all requests.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from headrace.airflow import page_dataset
from headrace.airflow.page_charts import NO_BUCKETS, Charted, range_of
from headrace.airflow.page_files import FILES, TYPES, VERSION
from headrace.airflow.page_permissions import permissions_of, readable_datasets
from headrace.airflow.page_selection import select
from headrace.airflow.page_snapshot import FigureSnapshot
from headrace.airflow.page_state import (
    FAILING_S,
    HEADERS,
    READING,
    READING_S,
    PageUser,
    details,
    read_series_of,
    refresher,
    rendered,
    streamed,
)
from headrace.airflow.page_template import render_figures, render_login, render_page, render_runbook
from headrace.monitor.problems import Overview
from headrace.monitor.series import HOUR

BODIES = 64  # the most bodies kept per snapshot

T = TypeVar("T")

app = FastAPI(
    title="Headrace",
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
    dependencies=[Depends(requires_access_view(AccessView.WEBSITE))],
)
app.include_router(page_dataset.routes)


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


_bodies = _Bodies()


@dataclass(frozen=True, slots=True)
class View:
    """The page's parameters. q: a search, page: the number of its result page, scale: shared, or each chart's own."""

    q: str = ""
    page: str = ""
    range: str = ""
    scale: str = ""


PageView = Annotated[View, Depends(View)]


@app.get("/")
async def page(user: PageUser, view: PageView) -> Response:
    """The page with the last figures."""
    snapshot = await refresher.current()
    if snapshot.overview is None:
        stale_reason = snapshot.stale_reason()
        html = render_page(VERSION, error=stale_reason or READING, again_s=FAILING_S if stale_reason else READING_S)
        return HTMLResponse(html, status_code=503, headers=HEADERS)
    charted = await _charted(snapshot.overview, view)
    html = await rendered(lambda: _figures(snapshot, user, view, charted))
    return HTMLResponse(render_page(VERSION, html), headers=HEADERS)


@app.get("/figures")
async def figures(user: PageUser, view: PageView) -> Response:
    """The part of the page that changes, which it fetches to refresh itself: the figures of /headrace/status."""
    snapshot = await refresher.current()
    if snapshot.overview is None:
        return PlainTextResponse(snapshot.stale_reason() or READING, status_code=503, headers=HEADERS)
    charted = await _charted(snapshot.overview, view)
    html = await rendered(lambda: _figures(snapshot, user, view, charted))
    return HTMLResponse(html, headers=HEADERS)


@app.get("/status")
async def status(user: PageUser) -> Response:
    """The document of `headrace status --json`; with an error and 503 if it is stale or missing."""
    snapshot = await refresher.current()
    stale_reason = snapshot.stale_reason()
    if snapshot.overview is None:
        return JSONResponse({"error": stale_reason or READING}, status_code=503, headers=HEADERS)
    overview = snapshot.overview
    body = await rendered(lambda: _document(overview, user))
    if stale_reason is not None:
        extra = _encode({"error": stale_reason, "age_s": round(snapshot.age_s() or 0.0, 1)})
        body = extra.removesuffix("}").encode() + b"," + body.removeprefix(b"{")
    return streamed(body, "application/json", 200 if stale_reason is None else 503)


@app.get("/metrics")
async def metrics() -> Response:
    """Prometheus's text format; headrace_up is 0 when Postgres does not answer."""
    from headrace.monitor.metrics import CONTENT_TYPE, exposition

    snapshot = await refresher.current()
    if snapshot.overview is None or snapshot.error is not None:
        return Response(exposition(None), headers=HEADERS, media_type=CONTENT_TYPE)
    overview = snapshot.overview
    body = await rendered(lambda: _bodies.get(overview, "metrics", lambda: exposition(overview)))
    return streamed(body, CONTENT_TYPE)


@app.get("/runbook")
async def runbook() -> Response:
    """The runbook, to whose sections the problems lead."""
    try:
        return HTMLResponse(await rendered(lambda: render_runbook(VERSION)), headers=HEADERS)
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


async def _charted(overview: Overview, view: View) -> Charted:
    """The charts' figures: the hour is that of the snapshot, longer ranges are read rarely and when asked for."""
    wanted, is_shared = range_of(view.range), view.scale == "shared"
    if wanted is HOUR:
        return Charted(HOUR, overview.status.history, is_shared=is_shared)
    max_age_s = wanted.bucket_s / 20
    detail = await details.get(wanted, lambda: read_series_of(overview, wanted), max_age_s)
    note = detail.error or (None if detail.value else f"The last {wanted.label} are being read.")
    return Charted(wanted, detail.value or NO_BUCKETS, note, detail.next_at, is_shared)


# --- on the rendering thread ---


def _figures(snapshot: FigureSnapshot, user: BaseUser, view: View, charted: Charted) -> str:
    overview = snapshot.overview
    assert overview is not None
    shown = _for_user(overview, user)
    is_whole = shown is overview
    number = int(view.page) if view.page.isascii() and view.page.isdigit() and len(view.page) < 10 else 1
    key = view.q, number, charted.range, charted.version, charted.note, charted.is_shared, is_whole
    selection = _bodies.get(overview, key, lambda: select(shown, view.q, number, charted))
    permissions = permissions_of(overview, user, selection)
    stale_reason = snapshot.stale_reason()
    return _bodies.get(
        overview,
        (key, permissions, stale_reason),
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
    readable = readable_datasets(
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
