"""Airflow's health for a shell, by Airflow's REST API: components without a login, import errors with one."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from headrace.command import ShellCommand
from headrace.exceptions import HeadraceError
from headrace.masking import remember
from headrace.monitor.airflow_health import AirflowHealth, DagImportError, components_of, import_error_of
from headrace.private_files import read_bounded
from headrace.settings import SECRET_BYTES_MAX, Settings

TIMEOUT_S = 2.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024
IMPORT_ERRORS_MAX = 100

logger = logging.getLogger(__name__)


class AirflowProbe:
    """Asks the Airflow of the settings; keeps its login from one look to the next."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        local = settings.services.get("airflow", {}).get("address")
        self._is_local = settings.airflow_url is None or settings.airflow_url == local
        self._url = settings.airflow_url or (str(local) if local else None)
        self._token: str | None = None

    def read(self) -> AirflowHealth | None:
        """The health; None without an address, or if a local Airflow was stopped."""
        if self._url is None:
            return None
        try:
            components = components_of(self._ask("/api/v2/monitor/health"))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            if self._is_local and isinstance(error, OSError):
                return None  # `headrace down`, or one that was never begun
            text = " ".join(str(error).split())
            return AirflowHealth(
                error=f"{self._url} does not tell its health: {text}; start it or correct HEADRACE_AIRFLOW_URL",
                remedy=ShellCommand("airflow", "api-server"),
            )
        errors: list[DagImportError] = []
        with suppress(OSError, ValueError, KeyError, TypeError, HeadraceError):  # a login that may not see them
            errors = self._import_errors()
        return AirflowHealth(components, errors, is_local=self._is_local)

    def _import_errors(self) -> list[DagImportError]:
        if self._token is None:
            self._token = self._login()
        if self._token is None:
            return []
        found = self._ask(f"/api/v2/importErrors?limit={IMPORT_ERRORS_MAX}", token=self._token)
        return [
            import_error_of(each["filename"], each["stack_trace"], datetime.fromisoformat(each["timestamp"]))
            for each in found["import_errors"]
        ]

    def _login(self) -> str | None:
        path = self._settings.airflow_password_file
        if path is None and self._is_local:
            path = self._settings.home / "airflow" / "password"
        if path is None or not path.is_file():
            return None
        password = read_bounded(path, SECRET_BYTES_MAX).decode().strip()
        remember(password)
        answer = self._ask("/auth/token", {"username": self._settings.airflow_user, "password": password})
        token = str(answer["access_token"])
        remember(token)
        return token

    def _ask(self, path: str, body: Mapping[str, str] | None = None, token: str | None = None) -> Mapping[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        # the URL is a setting, checked to be http(s)
        request = Request(f"{str(self._url).rstrip('/')}{path}", data, headers)  # noqa: S310
        try:
            with urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                found: Mapping[str, Any] = json.loads(answer.read(ANSWER_BYTES_MAX))
        except HTTPError as error:
            self._token = None  # it may have expired
            raise OSError(f"it answered {error.code}") from error
        return found
