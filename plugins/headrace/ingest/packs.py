"""A pack: the drains of several datasets in one task, one after another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import CheckpointMoved, DatasetPaused, SourceUnavailable
from headrace.ingest import observations
from headrace.ingest.drain import DrainResult
from headrace.ingest.plan import Plan
from headrace.ingest.runner import RunOptions, drain_plan, remaining_plan

# Of a drain with a rate limit: the next run of the DAG, which waits for this one, continues it.
PACED_S = 45.0

Opened = Callable[[str], tuple[Deployment, Dataset]]


@dataclass(slots=True)
class PackResult:
    """What the drains of a pack committed.

    committed: the datasets with new batches, also those of an earlier attempt at the same pack. drained: the results,
    of datasets with something left to read. errors: why others failed.
    """

    committed: set[str] = field(default_factory=set)
    drained: list[DrainResult] = field(default_factory=list)
    errors: dict[str, Exception] = field(default_factory=dict)


def drain_pack(
    opened: Opened,
    pack: Sequence[Plan],
    options: RunOptions,
    on_drained: Callable[[Deployment, Dataset, Plan, DrainResult], None] = lambda *_: None,
) -> PackResult:
    """Drain what is left of each plan; a dataset that fails does not stop the others.

    opened: gives a dataset and its deployment. Where another run committed first, what is left is drained after all
    others. Once a source did not answer, the following drains do not wait for theirs. Raises DatabaseUnavailable, at
    once, if Postgres cannot be reached: a new process continues with what is left.
    """
    result = PackResult()
    again: list[Plan] = []
    for plans in (pack, again):
        for plan in plans:
            try:
                _drain(opened, plan, options, result, on_drained)
            except DatasetPaused:  # since it was planned: what it has committed stays
                result.errors.pop(plan.dataset, None)
            except Exception as error:
                if observations.is_unreachable(error):
                    raise
                if isinstance(error, CheckpointMoved) and plans is pack:
                    again.append(plan)
                result.errors[plan.dataset] = error
            else:
                result.errors.pop(plan.dataset, None)
    return result


def _drain(
    opened: Opened,
    plan: Plan,
    options: RunOptions,
    result: PackResult,
    on_drained: Callable[[Deployment, Dataset, Plan, DrainResult], None],
) -> None:
    deployment, dataset = opened(plan.dataset)
    remaining = remaining_plan(deployment, plan)
    if remaining.ranges != plan.ranges:
        result.committed.add(dataset.name)
    if any(isinstance(error, SourceUnavailable) for error in result.errors.values()):
        deployment = replace(deployment, settings=replace(deployment.settings, max_retries=0))

    def note(progress: DrainResult) -> None:  # also of a drain that fails after its first batches
        if progress.batches:
            result.committed.add(dataset.name)

    max_seconds = None if dataset.max_records_per_s is None else PACED_S
    drained = drain_plan(
        deployment, dataset, remaining, options=replace(options, on_progress=note, max_seconds=max_seconds)
    )
    note(drained)
    if drained.batches:
        result.drained.append(drained)
        on_drained(deployment, dataset, remaining, drained)
