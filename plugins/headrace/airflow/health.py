"""Airflow's own health, read in its API server: what its stable REST API answers, by the functions behind it.

The page's thread reads for all users and has no login of any, so it cannot ask the REST API itself. Versions of Airflow
that lack one of these functions leave the health out.
"""

import logging
import time
from functools import cache
from itertools import islice

from headrace.masking import mask
from headrace.monitor.airflow_health import AirflowHealth, DagImportError, components_of, import_error_of

AGAIN_S = 10.0  # the shortest interval between reads: the page reads figures every two seconds
IMPORT_ERRORS_MAX = 100

logger = logging.getLogger(__name__)


class HealthCache:
    """The last health; used by one thread."""

    def __init__(self) -> None:
        self._health: AirflowHealth | None = None
        self._read_at = float("-inf")

    def read(self, *, is_local: bool) -> AirflowHealth | None:
        """The health, at most AGAIN_S old; None if this Airflow cannot tell it."""
        if time.monotonic() - self._read_at >= AGAIN_S:
            self._health, self._read_at = read_health(is_local=is_local), time.monotonic()
        return self._health


def read_health(*, is_local: bool) -> AirflowHealth | None:
    """Read Airflow's components and import errors from its database; None if this version has no such functions."""
    try:
        from airflow.api.common.airflow_health import get_airflow_health

        components = components_of(get_airflow_health())
        return AirflowHealth(components, _import_errors(), is_local=is_local)
    except ImportError as error:
        _report_once(f"{error}")
        return None
    except Exception as error:  # of Airflow's database: the figures are shown without it
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return AirflowHealth(error=mask(f"its health is not known: {text}"), is_local=is_local)


def _import_errors() -> list[DagImportError]:
    from airflow.models.errors import ParseImportError
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        rows = session.scalars(select(ParseImportError).order_by(ParseImportError.id)).all()
        found = [(row.filename, row.stacktrace, row.timestamp) for row in islice(rows, IMPORT_ERRORS_MAX)]
    return [import_error_of(*row) for row in found]


@cache
def _report_once(text: str) -> None:
    logger.warning("headrace page: this Airflow does not tell its health: %s", text)
