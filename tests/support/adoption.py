"""A new generation of a source that is what it was: `headrace adopt` refuses that."""

from headrace.dataset import Dataset
from headrace.deployment import Deployment, open_source
from headrace.ingest.exclusive import exclusive
from headrace.ingest.prepare import begin_generation
from headrace.postgres.ledger import RunContext


def force_adopt(deployment: Deployment, dataset: Dataset) -> int:
    """Close the open generation and begin the next, as `adopt` does where it is needed; return its number."""
    source = open_source(deployment, dataset)
    try:
        state = source.describe()
    finally:
        source.close()
    with exclusive(deployment, dataset, "adopt") as connection:
        return begin_generation(connection, dataset, state, RunContext(), always_line=True).generation
