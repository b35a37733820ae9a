"""Opens the source of a dataset with the services and limits of a deployment."""

from pathlib import Path

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.settings import Settings
from headrace.sources.base import Source
from headrace.sources.bounds import Bounds


def open_source(deployment: Deployment, dataset: Dataset, path: Path | None = None) -> Source:
    """The dataset's source; `path` replaces a file dataset's declared one. The caller closes it."""
    return dataset.source.open(deployment, dataset.compiled.columns, bounds(deployment.settings, dataset), path)


def bounds(settings: Settings, dataset: Dataset) -> Bounds:
    """The limits on the bytes that are kept of the dataset's records."""
    return Bounds(max(settings.record_bytes_max, 2 * dataset.max_value_bytes), settings.unpacked_bytes_max)
