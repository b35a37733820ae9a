"""What the DAGs have in common: owner, start, retries, and the asset of a dataset."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import Asset

OWNER = "headrace"
START = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULT_ARGS = {
    "owner": OWNER,
    "retries": 3,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=2),
}


def staging_asset(name: str) -> Asset:
    """The asset that a dataset's DAG updates when it committed something."""
    return Asset(name=f"staging/{name}", uri=f"headrace://staging/{name}")
