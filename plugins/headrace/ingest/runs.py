"""What the command line and the DAGs do with a dataset: init, plan, drain; the same code for both."""

import gc
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, closing, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

from psycopg import Connection
from psycopg.sql import SQL

from headrace.command import Command
from headrace.dataset import Dataset, dataset_names
from headrace.deployment import Deployment
from headrace.exceptions import (
    DatasetError,
    DatasetsRejected,
    DrainKilled,
    PermanentError,
    RetriableError,
)
from headrace.ingest import observations
from headrace.ingest.batch import Barrier, Committer, no_barrier
from headrace.ingest.drain import DrainCallback, DrainLimits, DrainResult, drain
from headrace.ingest.journal import Journal
from headrace.ingest.plan import Plan, make_plan
from headrace.logs import configure
from headrace.postgres import checkpoints, staging
from headrace.postgres.connection import database, translated_errors
from headrace.postgres.ledger import RunContext
from headrace.postgres.lock_watchdog import drain_name
from headrace.postgres.migrations import locked, migrate, while_locked
from headrace.postgres.roles import separate
from headrace.settings import Settings
from headrace.sources.base import Source
from headrace.sources.bounds import Bounds

logger = logging.getLogger(__name__)

COLLECTED_FROM = 200_000  # objects that were made and not let go of
PRELOADED = ["headrace.cli", "headrace.contracts.copy_text", "headrace.sources.kafka"]  # and all that these import


def initialise(deployment: Deployment, print_line: Callable[[str], None] = lambda _line: None) -> list[str]:
    """Migrate headrace.*, make every dataset's staging table, grant the roles; return the migrations that were new.

    print_line: is told what an administrator has to do, in one line, and why datasets are rejected, one line each.
    Raises DatasetsRejected, when all of the others are made, if there were such; of a single one with its reason.
    """
    rejected: dict[str, DatasetError] = {}
    with database(deployment.connect("headrace init")) as connection:
        applied = migrate(connection)
        names = dataset_names(deployment.settings.datasets_dir)
        for name in names:
            try:
                while_locked(connection, partial(_make_table, connection, deployment.dataset(name)))
            except DatasetError as error:
                rejected[name] = error
        todo = separate(connection)
    if todo is not None:
        print_line(todo)
    if len(rejected) == 1:
        raise DatasetsRejected(str(*rejected.values()))
    if rejected:
        for reason in rejected.values():
            print_line(str(reason))
        raise DatasetsRejected(
            f"{len(rejected)} of {len(names)} datasets are rejected: {', '.join(rejected)}; the others are ready; "
            "correct these and run `headrace init` again",
            command=Command("init"),
        )
    return applied


def _make_table(connection: Connection[Any], dataset: Dataset) -> None:
    with locked(connection, f"staging.{dataset.name}"):
        checkpoints.register(connection, dataset.name)
        staging.ensure_table(connection, dataset)


def open_source(deployment: Deployment, dataset: Dataset, path: Path | None = None) -> Source:
    """The dataset's source; `path` stands in for a file dataset's own."""
    return dataset.source.open(deployment, dataset.compiled.columns, bounds(deployment.settings, dataset), path)


def bounds(settings: Settings, dataset: Dataset) -> Bounds:
    """How much is kept of the dataset's records."""
    return Bounds(max(settings.record_bytes_max, 2 * dataset.max_value_bytes), settings.unpacked_bytes_max)


def plan(
    deployment: Deployment,
    dataset: Dataset,
    *,
    source: Source | None = None,
    path: Path | None = None,
    run: RunContext | None = None,
) -> Plan:
    """Pin what a drain of the dataset reads; see `make_plan`.

    source: one that is open already, and stays so. Not tried again here: who finds a service down from the start hears
    of it at once.
    """
    connect = deployment.connect(f"headrace plan {dataset.name}")
    try:
        with _opened(source, deployment, dataset, path) as source, database(connect) as connection:
            with connection.transaction():
                # a new column waits for every reader of the table, and all drains would wait behind it
                limit = f"{deployment.settings.lock_timeout_ms}ms"
                connection.execute(SQL("set local lock_timeout = {}").format(limit))
                checkpoints.register(connection, dataset.name)
                staging.ensure_table(connection, dataset)
            planned = make_plan(connection, dataset, source, run)
            observations.save_observation(connection, dataset.name)
            return planned
    except Exception as error:
        if path is None:  # a file given by name is no state of the dataset
            observations.save_failure(connect, dataset.name, error, is_task=run is not None)
        raise


def remaining_plan(deployment: Deployment, planned: Plan) -> Plan:
    """What is left of a plan that was made a while ago: an attempt that was killed, or another run, committed some.

    A retried task is handed the share that its plan pinned, however far its last attempt came. Only what is committed
    is taken off: a checkpoint of another generation, or before the plan's start, is the drain's to refuse.
    """
    with database(deployment.connect(drain_name(planned.dataset))) as connection:
        generation = checkpoints.open_generation(connection, planned.dataset)
    if generation is None or generation.generation != planned.generation:
        return planned
    passed = {p: n for p, n in generation.next_offsets.items() if p in planned.ranges and n > planned.ranges[p].start}
    return planned.remaining(passed, {partition: generation.positions[partition] for partition in passed})


def _opened(
    source: Source | None, deployment: Deployment, dataset: Dataset, path: Path | None
) -> AbstractContextManager[Source]:
    """The source that was given, left open at the end, or one that is closed then."""
    return nullcontext(source) if source is not None else closing(open_source(deployment, dataset, path))


def is_known(deployment: Deployment, dataset: Dataset) -> bool:
    """Whether the dataset has met its source before: a topic that is gone is then a loss, not a beginning."""
    with database(deployment.connect(f"headrace plan {dataset.name}")) as connection:
        return checkpoints.open_generation(connection, dataset.name) is not None


def drain_plan(
    deployment: Deployment,
    dataset: Dataset,
    plan: Plan,
    *,
    source: Source | None = None,
    path: Path | None = None,
    run: RunContext | None = None,
    max_seconds: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_progress: DrainCallback = lambda _: None,
    barrier: Barrier = no_barrier,
) -> DrainResult:
    """Drain what was planned; see `drain`. With nothing planned nothing is opened.

    source: one that is open already, and stays so. When a service does not answer it is asked again, and the drain goes
    on behind what is committed.
    """
    result = DrainResult(dataset.name)
    if not plan.ranges:
        return result
    _freeze()
    settings = deployment.settings
    limits = DrainLimits(
        batch_rows=settings.batch_rows, batch_bytes=settings.batch_bytes, max_seconds=max_seconds, stop=stop
    )
    retries = deployment.retries()
    connect, journal = deployment.connect(drain_name(dataset.name)), Journal(settings)
    committer = Committer(connect, retries, limits=deployment.lock_timeouts, barrier=barrier)

    def work() -> None:
        with _opened(source, deployment, dataset, path) as opened:
            if dataset.source.is_file:
                opened.describe()  # remembers the file that is read, to notice when it changes
            with translated_errors():
                drain(
                    dataset,
                    opened,
                    plan.remaining(result.next_offsets, result.positions),
                    committer,
                    limits,
                    run=run,
                    result=result,
                    on_progress=on_progress,
                    on_commit=journal.batch,
                    barrier=barrier,
                )
            _mirror(opened, dataset, result)

    try:
        retries.run(work)
    except BaseException as error:
        journal.end(plan, result, error)
        if path is None and not isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            ends = {partition: bounds.end for partition, bounds in plan.ranges.items()}
            observations.save_drain_failure(connect, dataset.name, plan.generation, ends, error)
        raise
    finally:
        committer.close()
    journal.end(plan, result)
    return result


@cache
def _freeze() -> None:
    """Keep the garbage collector off what was imported and off records on their way, once per process.

    Every record is an object that it counts, and none is in a cycle: it looked at all modules, and at all records of
    the open batches, again and again, for an eighth of a drain's time. So what is imported is frozen, and it begins
    with more objects than the batches of a few partitions hold.
    """
    gc.freeze()
    gc.set_threshold(COLLECTED_FROM)


def _mirror(source: Source, dataset: Dataset, result: DrainResult) -> None:
    try:
        if result.batches:
            source.mirror(f"headrace.{dataset.name}", result.next_offsets, result.positions)
    except (RetriableError, PermanentError) as error:
        logger.info("%s: its consumer group, which is for lag tools alone, was not moved: %s", dataset.name, error)


def drain_dataset(
    deployment: Deployment,
    name: str,
    *,
    parallel: int = 1,
    max_records: int | None = None,
    max_seconds: float | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[Plan, DrainResult]:
    """Plan and drain a dataset, in `parallel` processes of whole partitions; return the plan and what was done."""
    dataset = deployment.dataset(name)
    dataset.refuse_file()
    # Not forked from here: neither Kafka clients nor Postgres connections survive that. Forked from a server of
    # multiprocessing's, which has neither, and imports for all of them, while this process plans.
    context = multiprocessing.get_context("forkserver")
    if parallel > 1:
        from multiprocessing.forkserver import ensure_running

        context.set_forkserver_preload(PRELOADED)
        ensure_running()
    planned = plan(deployment, dataset).limited(max_records)
    shares = planned.split(parallel)
    if len(shares) <= 1:
        result = drain_plan(
            deployment,
            dataset,
            planned,
            max_seconds=max_seconds,
            on_progress=lambda so_far: on_progress(so_far.records + so_far.empty, planned.lag),
        )
        return planned, result
    result = DrainResult(name)
    with ProcessPoolExecutor(len(shares), mp_context=context, initializer=_end_with_parent) as pool:
        futures = [pool.submit(_drain_share, deployment.settings, name, share, max_seconds) for share in shares]
        try:
            for future in as_completed(futures):
                result.add(future.result())
                on_progress(result.records + result.empty, planned.lag)
        except BrokenProcessPool as error:
            killed = DrainKilled(f"{name}: a process of the drain was killed; what it had committed stays; drain again")
            ends = {partition: bounds.end for partition, bounds in planned.ranges.items()}
            connect = deployment.connect(drain_name(name))
            observations.save_drain_failure(connect, name, planned.generation, ends, killed)
            raise killed from error
    return planned, result


def _drain_share(settings: Settings, name: str, share: Plan, max_seconds: float | None) -> DrainResult:
    configure(settings)
    deployment = Deployment.from_settings(settings)
    return drain_plan(deployment, deployment.dataset(name), share, max_seconds=max_seconds)


def _end_with_parent() -> None:
    # a worker whose parent was killed would finish its share unasked, and then wait for another one for ever
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
