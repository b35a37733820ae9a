"""A run of a dataset: prepare and plan, then drain with retries, a journal, observations and the mirrored offsets."""

import gc
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from headrace.callbacks import Barrier, no_barrier
from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import DatasetPaused, PermanentError, RetriableError
from headrace.ingest import identity, observations, prepare
from headrace.ingest.commit import Committer
from headrace.ingest.drain import DrainCallback, DrainOptions, DrainResult, drain
from headrace.ingest.journal import Journal
from headrace.ingest.opening import open_source
from headrace.ingest.plan import Plan, make_plan
from headrace.ingest.rate_limit import RateLimit
from headrace.postgres.checkpoints import Checkpoints
from headrace.postgres.connection import database, translated_errors
from headrace.postgres.ledger import RunContext
from headrace.postgres.lock_watchdog import drain_name
from headrace.postgres.pauses import PauseWatch, refuse_paused
from headrace.sources.base import Source, assign

logger = logging.getLogger(__name__)

COLLECTED_FROM = 200_000  # objects allocated and not freed, before a collection


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The fields of `DrainOptions` that a run's caller sets.

    is_paced: the drain keeps the dataset's rate limit; False: its caller does.
    """

    run: RunContext | None = None
    max_seconds: float | None = None
    is_paced: bool = True
    stop: Callable[[], bool] = lambda: False
    on_progress: DrainCallback = lambda _: None
    barrier: Barrier = no_barrier


DEFAULT_OPTIONS = RunOptions()


def plan(
    deployment: Deployment,
    dataset: Dataset,
    *,
    source: Source | None = None,
    path: Path | None = None,
    run: RunContext | None = None,
) -> Plan:
    """Prepare the dataset and pin the offsets of a drain; store the observation, or the error.

    source: an open source; it stays open. run: of a task or a follower; None for a shell's, whose own settings' errors
    are not stored. Raises the errors of `prepare.prepare_generation`. Nothing is retried: a service that is down from
    the start is reported at once. DatasetPaused for a dataset that is paused: its source is not asked.
    """
    connect = deployment.connect(f"headrace plan {dataset.name}")
    try:
        with database(connect) as connection:
            refuse_paused(connection, dataset.name)
            with _opened(source, deployment, dataset, path) as opened:
                prepare.prepare_table(connection, dataset, deployment.settings.lock_timeout_ms)
                stored = Checkpoints(connection, dataset.name)
                state = identity.describe(opened, stored.open_generation())
                observations.save_state(stored, state)
                generation = prepare.prepare_generation(stored, dataset, opened, state, run or RunContext())
                planned = make_plan(generation, state)
                observations.save_observation(stored)
                return planned
    except DatasetPaused:
        raise
    except Exception as error:
        if path is None:  # the error of a file given by path says nothing about the dataset
            observations.save_failure(connect, dataset.name, error, run)
        raise


def remaining_plan(deployment: Deployment, planned: Plan) -> Plan:
    """The part of an earlier plan that is not committed yet; a killed attempt or another run may have committed some.

    A retried task receives the share that its plan pinned, even if its last attempt committed a part of it. Only
    committed offsets are removed: the drain itself refuses a checkpoint of another generation, or one before the
    plan's start. Raises DatasetPaused if the dataset was paused since.
    """
    with database(deployment.connect(drain_name(planned.dataset))) as connection:
        refuse_paused(connection, planned.dataset)
        generation = Checkpoints(connection, planned.dataset).open_generation()
    if generation is None or generation.generation != planned.generation:
        return planned
    passed = {p: n for p, n in generation.next_offsets.items() if p in planned.ranges and n > planned.ranges[p].start}
    return planned.remaining(passed, {partition: generation.positions[partition] for partition in passed})


def _opened(
    source: Source | None, deployment: Deployment, dataset: Dataset, path: Path | None
) -> AbstractContextManager[Source]:
    """The given source, which stays open, or a new one, which is closed at the end."""
    return nullcontext(source) if source is not None else closing(open_source(deployment, dataset, path))


def is_known(deployment: Deployment, dataset: Dataset) -> bool:
    """Whether the dataset has a generation: if so, a missing topic is a loss; if not, nothing was produced yet."""
    with database(deployment.connect(f"headrace plan {dataset.name}")) as connection:
        return Checkpoints(connection, dataset.name).open_generation() is not None


def drain_plan(
    deployment: Deployment,
    dataset: Dataset,
    plan: Plan,
    *,
    source: Source | None = None,
    path: Path | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
) -> DrainResult:
    """Drain a plan (see `drain.drain`); open nothing if the plan is empty.

    source: an open source; it stays open. If a service does not answer, the drain is retried and continues after the
    last committed batch. If the dataset is paused meanwhile, the drain commits what it has read and ends.
    """
    result = DrainResult(dataset.name)
    if not plan.ranges:
        return result
    _freeze()
    retries, journal = deployment.retries(), Journal(deployment.settings)
    connect = deployment.connect(drain_name(dataset.name))
    watch = PauseWatch(connect, dataset.name)
    rate_limit = RateLimit.of(dataset, plan.part) if options.is_paced else None
    drain_options = _drain_options(deployment, options, journal, watch, rate_limit)
    committer = Committer(connect, retries, limits=deployment.lock_timeouts, barrier=options.barrier)

    def work() -> None:
        with _opened(source, deployment, dataset, path) as opened:
            assign(opened, plan.origins)
            if dataset.source.is_file:
                opened.describe()  # stores the file's identity, to notice a change while it is read
            remaining = plan.remaining(result.next_offsets, result.positions)
            with translated_errors():
                drain(dataset, opened, remaining, committer, drain_options, result)
            _mirror(opened, result)

    try:
        retries.run(work)
    except BaseException as error:
        journal.end(plan, result, error)
        if path is None and not isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            observations.save_drain_failure(connect, plan, error, options.run)
        raise
    finally:
        committer.close()
    journal.end(plan, result)
    if watch.pause is not None:
        logger.warning("%s: %s; this drain ended after its last batch", dataset.name, watch.pause.text())
    return result


def _drain_options(
    deployment: Deployment, options: RunOptions, journal: Journal, watch: PauseWatch, rate_limit: RateLimit | None
) -> DrainOptions:
    batch_rows = deployment.settings.batch_rows
    return DrainOptions(
        batch_rows=batch_rows if rate_limit is None else min(batch_rows, rate_limit.burst),
        batch_bytes=deployment.settings.batch_bytes,
        max_seconds=options.max_seconds,
        rate_limit=rate_limit,
        stop=lambda: options.stop() or watch.is_paused(),
        run=options.run,
        on_progress=options.on_progress,
        on_commit=journal.batch,
        barrier=options.barrier,
    )


@cache
def _freeze() -> None:
    """Exclude imported modules from garbage collection and raise its threshold, once per process.

    Records are never in a cycle, but the collector counts each. With the default threshold it walked all modules and
    all records of the open batches repeatedly, for an eighth of a drain's time. The batches of a few partitions hold
    fewer objects than COLLECTED_FROM.
    """
    gc.freeze()
    gc.set_threshold(COLLECTED_FROM)


def _mirror(source: Source, result: DrainResult) -> None:
    try:
        if result.batches:
            source.mirror(f"headrace.{result.dataset}", result.next_offsets, result.positions)
    except (RetriableError, PermanentError) as error:
        logger.info("%s: its consumer group, which only lag tools read, was not moved: %s", result.dataset, error)
