"""A new generation of a source that is what it was: `headrace adopt` refuses that."""

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.ingest.exclusive import exclusive
from headrace.ingest.opening import open_source
from headrace.ingest.prepare import AdoptLines, begin_generation
from headrace.postgres.checkpoints import Checkpoints
from headrace.postgres.ledger import RunContext


def force_adopt(deployment: Deployment, dataset: Dataset) -> int:
    """Close the open generation and begin the next, as `adopt` does where it is needed; return its number."""
    source = open_source(deployment, dataset)
    try:
        state = source.describe()
    finally:
        source.close()
    with exclusive(deployment, dataset, "adopt") as connection:
        stored = Checkpoints(connection, dataset.name)
        return begin_generation(stored, state, RunContext(), lines=AdoptLines.ALL).generation
