"""What the page's routes share: headers, the threads that read and render, and the declarations."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypeVar

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends
from fastapi.responses import StreamingResponse

from headrace.airflow.connections import deployment
from headrace.airflow.health import HealthCache
from headrace.airflow.page_declarations import DeclarationCache
from headrace.airflow.page_details import DetailReader, one_connection
from headrace.airflow.page_snapshot import Refresher
from headrace.monitor.figures import TimeSeries
from headrace.monitor.problems import Overview, find_problems_by
from headrace.monitor.series import TimeRange
from headrace.monitor.status import read_range, read_status

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
CHUNK_BYTES = 256 * 1024  # Airflow compresses responses on its only serving thread: small pieces let others in
APPLICATION = "headrace page"  # the name of its connections

PageUser = Annotated[BaseUser, Depends(get_user)]
T = TypeVar("T")


def _read() -> Overview:
    ours = deployment()
    limits, faults = declarations.read(ours.settings.datasets_dir)
    found = health.read(is_local=(ours.settings.home / "airflow" / "airflow.cfg").is_file())
    with one_connection:
        status = read_status(ours.connect(APPLICATION))
    return find_problems_by(status, limits, faults, found)


def read_series_of(overview: Overview, wanted: TimeRange) -> TimeSeries:
    """Read the series of a range; for the thread of details."""
    with one_connection:
        return read_range(deployment().connect(APPLICATION), overview.status, wanted)


declarations = DeclarationCache()
health = HealthCache()
refresher = Refresher(_read)
details = DetailReader()
_renderer = ThreadPoolExecutor(1, thread_name_prefix="headrace page")


async def rendered(make: Callable[[], T]) -> T:
    """The result of `make`, computed by the rendering thread."""
    return await asyncio.get_running_loop().run_in_executor(_renderer, make)


def streamed(
    body: bytes, media_type: str, code: int = 200, headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """A response in pieces."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), CHUNK_BYTES):
            yield body[start : start + CHUNK_BYTES]
            await asyncio.sleep(0)  # lets other requests run

    return StreamingResponse(chunks(), code, HEADERS | dict(headers or {}), media_type)
