"""The common settings of all DAGs: owner, start, retries, and the asset of a dataset."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset

from headrace.dataset import Dataset
from headrace.retries import TASK_RETRIES

OWNER = "headrace"
START = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULT_ARGS = {"owner": OWNER, "execution_timeout": timedelta(hours=2)} | TASK_RETRIES


def staging_asset(name: str) -> Asset:
    """The asset that a dataset's DAG updates when it has committed something."""
    return Asset(name=f"staging/{name}", uri=f"headrace://staging/{name}")


def shared_asset(key: str) -> Asset:
    """The asset that a shared DAG updates when any of its datasets has committed something; build_marts waits for it.

    Whenever it parses a file, Airflow reads the condition of each DAG once for each asset in it: with the assets of 300
    datasets this took a second of CPU, twice a minute.
    """
    return Asset(name=f"ingest/{key}", uri=f"headrace://ingest/{key}")


def update_assets(events: Any, dataset: Dataset) -> None:
    """Update the assets of a dataset that has new rows; events: the outlet_events of an AssetAlias."""
    events.add(staging_asset(dataset.name))
    if dataset.dag is not None:
        events.add(shared_asset(dataset.dag))
