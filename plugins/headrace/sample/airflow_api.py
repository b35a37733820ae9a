"""A small client of Airflow's REST API: trigger a DAG, wait for its run, read a result."""

import time
from typing import Any, Self

import httpx

from headrace.command import Command
from headrace.exceptions import PermanentError, RetriableError
from headrace.private_files import read_bounded
from headrace.settings import SECRET_BYTES_MAX, Settings

POLL_S = 0.3
PARSE_LIMIT_S = 90.0  # a new DAG file is parsed within seconds; a machine under load takes longer
RUN_LIMIT_S = 900.0

DagRun = tuple[str, str]  # dag_id, run_id


class AirflowUnavailable(RetriableError):
    """airflow did not answer"""


class DagRunFailed(PermanentError):
    """a DAG run failed"""


class AirflowApi:
    """Airflow, logged in as one user."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url.rstrip("/")
        self._client = httpx.Client(base_url=f"{self._url}/api/v2", timeout=30)
        response = self._send("POST", f"{self._url}/auth/token", json={"username": user, "password": password})
        self._client.headers["Authorization"] = f"Bearer {response['access_token']}"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The Airflow of the settings or of `headrace up`."""
        from headrace.local.addresses import airflow_password_file

        path = settings.airflow_password_file or airflow_password_file(settings)
        try:
            password = read_bounded(path, SECRET_BYTES_MAX).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise PermanentError(
                f"{path}: the password cannot be read: {reason}; run `headrace up`", command=Command("up")
            ) from error
        return cls(settings.require_airflow_url(), settings.airflow_user, password)

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> DagRun:
        """Start a run, as the form does, once Airflow has parsed the DAG."""
        deadline = time.monotonic() + PARSE_LIMIT_S
        while self._client.get(f"/dags/{dag_id}").status_code == 404:
            if time.monotonic() > deadline:
                errors = self._send("GET", "/importErrors").get("import_errors", [])
                found = "; ".join(f"{e['filename']}: {e['stack_trace'].splitlines()[-1]}" for e in errors)
                raise PermanentError(f"{dag_id}: no such DAG at {self._url}; import errors: {found or 'none'}")
            time.sleep(POLL_S)
        run = self._send("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf})
        return dag_id, run["dag_run_id"]

    def wait(self, run: DagRun) -> None:
        """Wait for the run's success; raises DagRunFailed with the failed task and the log's address."""
        dag_id, run_id = run
        deadline = time.monotonic() + RUN_LIMIT_S
        while True:
            state = self._send("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"]
            if state == "success":
                return
            if state == "failed" or time.monotonic() > deadline:
                tasks = self._send("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
                states = ", ".join(f"{task['task_id']} {task['state']}" for task in tasks)
                raise DagRunFailed(
                    f"{dag_id}: run {run_id} is {state}, expected success; tasks: {states}; the log is at "
                    f"{self._url}/dags/{dag_id}/runs/{run_id}"
                )
            time.sleep(POLL_S)

    def result(self, run: DagRun, task_id: str) -> Any:
        """The result of a task."""
        dag_id, run_id = run
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self._send("GET", path)["value"]

    def _send(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._client.request(method, path, **arguments)
            response.raise_for_status()
            return response.json()
        except httpx.HTTPStatusError as error:
            text = " ".join(error.response.text.split())[:300]
            raise PermanentError(f"airflow: {method} {path} gave {error.response.status_code}: {text}") from error
        except httpx.HTTPError as error:
            raise AirflowUnavailable(
                f"airflow: {self._url} did not answer: {error}; run `headrace up`", command=Command("up")
            ) from error
