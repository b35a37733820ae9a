"""The page of a dataset, and that of a dead letter with a dry run of its replay; behind the page's own checks.

A page of a dead letter, and its bytes, are for users who may read the logs of the dataset's DAG, as those of its drains
are. What these pages show is read when asked for (page_details.py).
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse

from headrace.airflow.connections import deployment
from headrace.airflow.page_dataset_template import (
    DeadLetterPage,
    render_dataset,
    render_dead_letter,
    render_message,
)
from headrace.airflow.page_details import Detail, one_connection
from headrace.airflow.page_permissions import may, readable_datasets
from headrace.airflow.page_state import (
    APPLICATION,
    FAILING_S,
    HEADERS,
    READING,
    READING_S,
    PageUser,
    declarations,
    details,
    refresher,
    rendered,
    streamed,
)
from headrace.exceptions import DatasetError
from headrace.monitor.dataset_detail import DatasetDetail, read_dead_letter, read_detail, read_whole
from headrace.monitor.problems import Overview
from headrace.postgres.connection import Connect
from headrace.postgres.dead_letter_pages import DeadLetterCoordinate
from headrace.repair.preview import Preview, preview_apart

MAX_AGE_S = 2.0  # of what a page shows, for any number of requests
FIGURES_MAX_AGE_S = 15.0  # where they only tell which datasets there are
PREVIEW_MAX_AGE_S = 10.0  # a process is started for each

_COORDINATE = re.compile(r"(\d{1,9}):(\d{1,9}):(\d{1,18})", re.ASCII)

T = TypeVar("T")

routes = APIRouter(prefix="/datasets/{name}")


class _Refused(Exception):
    """A page without contents: its code, heading and text."""

    def __init__(self, code: int, title: str, text: str, again_s: int | None = None, again_query: str = "") -> None:
        super().__init__(code, title, text, again_s, again_query)
        self.code, self.title, self.text = code, title, text
        self.again_s, self.again_query = again_s, again_query

    def response(self, root: str) -> HTMLResponse:
        """The page; root: the way from it to the main page."""
        html = render_message(root, self.title, self.text, self.again_s, self.again_query)
        return HTMLResponse(html, status_code=self.code, headers=HEADERS)


@routes.get("")
async def dataset_page(name: str, user: PageUser) -> Response:
    """The page of a dataset."""
    try:
        overview = await _overview_with(name)
        found = await details.get(("dataset", name), lambda: _read(name), MAX_AGE_S)
        detail: DatasetDetail = _value(found)
    except _Refused as refused:
        return refused.response("../")
    html = await rendered(lambda: _dataset(overview, name, detail, user))
    return HTMLResponse(html, headers=HEADERS)


@routes.get("/dead-letters/{coordinate}")
async def dead_letter_page(
    name: str, coordinate: str, user: PageUser, dry_run: Annotated[str, Query(alias="dry-run")] = ""
) -> Response:
    """The page of a dead letter; with dry-run=1 what a replay would do with it."""
    try:
        overview, at = await _readable(name, coordinate, user)
        found = await details.get(("dead letter", name, at), lambda: _read_dead_letter(name, at), MAX_AGE_S)
        dead_letter = _value(found)[0]
        if dead_letter is None:
            raise _no_dead_letter(name, coordinate)
        page = DeadLetterPage(overview, dead_letter, declarations.dataset(name))
        if dry_run and dead_letter.replayed_seq is None:
            key = "preview", name, at
            found = await details.get(key, lambda: _preview(name, coordinate), PREVIEW_MAX_AGE_S)
            page.preview, page.preview_error = found.value, found.error
            if found.value is None and found.error is None:
                raise _Refused(503, "Dry run", "The contract is deciding.", READING_S, "dry-run=1")
    except _Refused as refused:
        return refused.response("../../../")
    html = await rendered(lambda: _dead_letter(page, user))
    return HTMLResponse(html, headers=HEADERS)


@routes.get("/dead-letters/{coordinate}/value")
async def value(name: str, coordinate: str, user: PageUser) -> Response:
    """All bytes of a dead letter's value, as a file."""
    try:
        _, at = await _readable(name, coordinate, user)
        found = _value(await details.get(("value", name, at), lambda: _whole(name, at, coordinate), 0.0))
        if not found:
            raise _no_dead_letter(name, coordinate)
    except _Refused as refused:
        return refused.response("../../../../")
    finally:
        details.forget("value")
    disposition = f'attachment; filename="{name}-{coordinate.replace(":", "-")}.bin"'
    return streamed(found[0] or b"", "application/octet-stream", headers={"Content-Disposition": disposition})


async def _overview_with(name: str, max_age_s: float = 0.0) -> Overview:
    snapshot = await refresher.current(max_age_s)
    overview = snapshot.overview
    if overview is None:
        reason = snapshot.stale_reason()
        raise _Refused(503, "Headrace", reason or READING, FAILING_S if reason else READING_S)
    if name not in overview.states and not overview.is_declared(name):
        raise _Refused(404, "No such dataset", "Neither a declaration nor the database has a dataset of this name.")
    return overview


async def _readable(name: str, coordinate: str, user: BaseUser) -> tuple[Overview, DeadLetterCoordinate]:
    """The figures and the coordinate, for a user who may read the dataset's dead letters."""
    overview = await _overview_with(name, FIGURES_MAX_AGE_S)
    found = _COORDINATE.fullmatch(coordinate)
    if found is None:
        raise _Refused(404, "No such dead letter", "Expected GENERATION:PARTITION:OFFSET in the address.")
    if not await rendered(lambda: readable_datasets(overview, user, [name])):
        dag_id = overview.dag_of(name)
        raise _Refused(403, "No permission", f"Dead letters are shown to those who may read the logs of {dag_id}.")
    generation, partition, offset = map(int, found.groups())
    return overview, (generation, partition, offset)


def _no_dead_letter(name: str, coordinate: str) -> _Refused:
    return _Refused(404, "No such dead letter", f"{name} has no dead letter at {coordinate}.")


def _value(detail: Detail) -> Any:
    """What was read; raises _Refused while it is not, or could not be."""
    if detail.value is None:
        reason = detail.error
        raise _Refused(503, "Headrace", reason or "It is being read.", FAILING_S if reason else READING_S)
    return detail.value


# --- on the thread of details ---


def _read(name: str) -> DatasetDetail:
    return _with_connection(lambda connect: read_detail(connect, name))


def _read_dead_letter(name: str, at: DeadLetterCoordinate) -> tuple[Any]:
    return (_with_connection(lambda connect: read_dead_letter(connect, name, at)),)


def _whole(name: str, at: DeadLetterCoordinate, coordinate: str) -> tuple[bytes | None] | tuple[()]:
    """The value; nothing if there is no such dead letter."""
    if _read_dead_letter(name, at)[0] is None:
        return ()
    return (_with_connection(lambda connect: read_whole(connect, name, coordinate)).value,)


def _preview(name: str, coordinate: str) -> Preview:
    declared = declarations.dataset(name)
    if declared is None:
        raise DatasetError(f"{name}: found no usable declaration, expected one; correct it, then try again")
    dead_letter = _with_connection(lambda connect: read_whole(connect, name, coordinate))
    return preview_apart(deployment(registry=declared.asks_registry).settings, name, dead_letter)


def _with_connection(read: Callable[[Connect], T]) -> T:
    with one_connection:
        return read(deployment().connect(APPLICATION))


# --- on the rendering thread ---


def _dataset(overview: Overview, name: str, detail: DatasetDetail, user: BaseUser) -> str:
    is_readable = bool(readable_datasets(overview, user, [name]))
    return render_dataset(overview, name, detail, declarations.dataset(name), is_readable=is_readable)


def _dead_letter(page: DeadLetterPage, user: BaseUser) -> str:
    page.may_replay = may(user, "POST", DagAccessEntity.RUN, "replay_dead_letters")
    return render_dead_letter(page)
