"""A drain in several processes; each drains whole partitions."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from headrace.deployment import Deployment
from headrace.exceptions import DrainKilled
from headrace.ingest import observations
from headrace.ingest.drain import DrainResult
from headrace.ingest.plan import Plan
from headrace.ingest.runner import RunOptions, drain_plan, plan
from headrace.logs import configure
from headrace.postgres.lock_watchdog import drain_name
from headrace.settings import Settings

# imported once, by the fork server
PRELOADED = ["headrace.cli", "headrace.contracts.copy_text", "headrace.sources.kafka"]


def drain_dataset(
    deployment: Deployment,
    name: str,
    *,
    parallel: int = 1,
    max_records: int | None = None,
    max_seconds: float | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[Plan, DrainResult]:
    """Plan and drain a dataset in up to `parallel` processes; return the plan and the result."""
    dataset = deployment.dataset(name)
    dataset.refuse_file()
    # Kafka clients and Postgres connections do not survive a fork. multiprocessing's fork server has neither; it
    # imports the modules for all processes while this one plans.
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
            options=RunOptions(
                max_seconds=max_seconds,
                on_progress=lambda so_far: on_progress(so_far.offsets, planned.lag),
            ),
        )
        return planned, result
    result = DrainResult(name)
    with ProcessPoolExecutor(len(shares), mp_context=context, initializer=_end_with_parent) as pool:
        futures = [pool.submit(_drain_share, deployment.settings, name, share, max_seconds) for share in shares]
        try:
            for future in as_completed(futures):
                result.add(future.result())
                on_progress(result.offsets, planned.lag)
        except BrokenProcessPool as error:
            killed = DrainKilled(f"{name}: a process of the drain was killed; its commits stay; drain again")
            connect = deployment.connect(drain_name(name))
            observations.save_drain_failure(connect, planned, killed)
            raise killed from error
    return planned, result


def _drain_share(settings: Settings, name: str, share: Plan, max_seconds: float | None) -> DrainResult:
    configure(settings)
    deployment = Deployment.from_settings(settings)
    return drain_plan(deployment, deployment.dataset(name), share, options=RunOptions(max_seconds=max_seconds))


def _end_with_parent() -> None:
    # without this a worker whose parent was killed would finish its share and then wait for ever
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
