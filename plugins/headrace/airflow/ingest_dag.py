"""The DAG of a topic or a stream: plan, then drain."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, dag, task

from headrace.airflow.dag_defaults import DEFAULT_ARGS, START, staging_asset
from headrace.dataset import Dataset
from headrace.output import say, shown

if TYPE_CHECKING:
    from headrace.deployment import Deployment


def ingest_dag(dataset: Dataset) -> DAG:
    """The DAG ingest_<dataset>: plan, then drain, then asset staging/<dataset>. Reads new records exactly once."""

    @dag(
        dag_id=f"ingest_{dataset.name}",
        description=f"{dataset.description or dataset.name}: from its source into staging.{dataset.name}",
        schedule=timedelta(seconds=dataset.schedule_s),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        tags=["headrace", "ingest"],
        doc_md=f"""
Reads records into `staging.{dataset.name}`, up to the source's end at the start of the run.

- **plan** compares the checkpoints with the source and pins the offsets to read. If nothing is new, or while
  `follow_topics` holds the dataset, the run ends there.
- **drain** commits batch by batch; rows, dead letters, checkpoint and ledger line are one transaction. Retrying,
  clearing or running it twice is safe: the checkpoint decides.

Bad records go to `headrace.dead_letters` and do not fail the run.
""",
    )
    def ingest() -> None:
        @task(task_id="plan")
        def plan_task() -> list[dict[str, Any]]:
            """Pin the offsets to read: one share, or one per partition if there are many."""
            return _plan(dataset)

        @task(task_id="drain", outlets=[staging_asset(dataset.name)])
        def drain_task(share: dict[str, Any]) -> dict[str, Any]:
            """Read the share and commit it in batches."""
            return _drain(dataset, share)

        drain_task.expand(share=plan_task())

    return ingest()


def _plan(dataset: Dataset) -> list[dict[str, Any]]:
    from airflow.sdk.exceptions import AirflowSkipException

    from headrace.airflow.connections import deployment, run_context, task_errors
    from headrace.exceptions import TopicMissing
    from headrace.follow.leases import held_lease
    from headrace.ingest import runner as ingest

    ours = deployment()
    with task_errors():
        if lease := held_lease(ours, dataset.name):
            raise AirflowSkipException(shown(f"{lease.holder_name} follows {dataset.name}"))
        try:
            planned = ingest.plan(ours, dataset, run=run_context())
        except TopicMissing as error:
            if ingest.is_known(ours, dataset):
                raise
            raise AirflowSkipException(f"nothing to ingest yet: {error}") from error
    say(f"{dataset.name}: {planned.lag} offsets to read: {dict(planned.ranges)}")
    if not planned.ranges:
        _publish_dead_letters(ours, dataset)  # those that an earlier run could not publish: no drain follows
    parts = ours.settings.drain_parallel_max if planned.lag > ours.settings.drain_parallel_lag else 1
    return [share.to_dict() for share in planned.split(parts)]


def _drain(dataset: Dataset, share: dict[str, Any]) -> dict[str, Any]:
    from headrace.airflow.connections import deployment, run_context, task_errors
    from headrace.ingest import runner as ingest
    from headrace.ingest.plan import Plan

    ours = deployment()
    with task_errors():
        planned = ingest.remaining_plan(ours, Plan.from_dict(share))  # this may be a retry
        result = ingest.drain_plan(ours, dataset, planned, options=ingest.RunOptions(run=run_context()))
    for line in result.log_lines(planned):
        say(line)
    _publish_dead_letters(ours, dataset)
    return {"staged": result.staged, "dead": result.dead, "seconds": round(result.seconds, 2)}


def _publish_dead_letters(deployment: "Deployment", dataset: Dataset) -> None:
    from headrace.publish.dead_letter_topic import publish_after_drain

    published = publish_after_drain(deployment, dataset)
    if published:
        say(f"{dataset.name}: {published} dead letters published")
