"""The page in an API server of its own: uvicorn, anyio's 40 threads and a route beside it that needs one of them.

    python -m tests.page_host PORT [DATASETS]

Airflow's connection lookup, hook and plugin are the real ones; every user is an administrator, so that no login is
needed. DATASETS: so many declarations, d00001 and so on, stand in for those that the deployment does not have.
"""

import sys

import uvicorn
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi import FastAPI

from headrace.airflow import page, page_snapshot, page_state, page_template
from headrace.airflow.lazy_app import LazyApp
from headrace.monitor.problems import AlertThresholds
from headrace.repair import preview


def main(port: int, datasets: int = 0) -> None:
    """Serve until killed."""
    page_snapshot.SLOW_S, page_snapshot.FAILURE_S, page_snapshot.CPU_SHARE = 2.0, 0.5, 1  # as short as tests are
    page_template.REFRESH_S = 1
    preview.TIMEOUT_S = 90.0  # beside other tests a new process takes its time
    app = FastAPI()
    create_auth_manager()
    page.app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username="tester", role="ADMIN")
    page_state.health.read = lambda *, is_local: None  # type: ignore[method-assign] # there is no Airflow around it
    if datasets:
        limits = {f"d{number:05d}": AlertThresholds(max_lag=5) for number in range(1, datasets + 1)}
        read = page_state.declarations.read
        page_state.declarations.read = lambda datasets_dir: (  # type: ignore[method-assign]
            {**read(datasets_dir)[0], **limits},
            {},
        )

    @app.get("/api/v2/version")
    def version() -> dict[str, str]:
        return {"version": "a route that takes a thread"}

    app.mount("/headrace", LazyApp("headrace.airflow.page"))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
