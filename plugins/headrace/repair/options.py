"""The options of replay, reload and fill."""

from collections.abc import Callable
from dataclasses import dataclass, field

from headrace.callbacks import Barrier, no_barrier
from headrace.postgres.ledger import RunContext


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """run: the repairing run, for the ledger.

    on_progress: called with the finished and the total number: of offsets, dead letters or values. barrier: called at
    named steps, for tests.
    """

    run: RunContext = field(default_factory=RunContext)
    on_progress: Callable[[int, int], None] = lambda _done, _total: None
    barrier: Barrier = no_barrier


DEFAULT_OPTIONS = RepairOptions()
