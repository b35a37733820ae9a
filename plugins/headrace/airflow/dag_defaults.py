"""The common settings of all DAGs: owner, start, retries, and the asset of a dataset."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import Asset

from headrace.retries import TASK_RETRIES

OWNER = "headrace"
START = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULT_ARGS = {"owner": OWNER, "execution_timeout": timedelta(hours=2)} | TASK_RETRIES


def staging_asset(name: str) -> Asset:
    """The asset that a dataset's DAG updates when it has committed something."""
    return Asset(name=f"staging/{name}", uri=f"headrace://staging/{name}")
