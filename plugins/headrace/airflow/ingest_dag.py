"""The DAG of a topic or a stream: plan, then drain."""

from datetime import timedelta

from airflow.sdk import DAG, dag

from headrace.airflow.dag_defaults import DEFAULT_ARGS, START, staging_asset
from headrace.airflow.operators import DrainOperator, PlanOperator
from headrace.airflow.project import AirflowProject
from headrace.dataset import Dataset


def ingest_dag(dataset: Dataset, project: AirflowProject = AirflowProject()) -> DAG:  # noqa: B008 - frozen
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
        plan = PlanOperator(
            task_id="plan", dataset=dataset.name, datasets=project.datasets, priority_weight=dataset.priority
        )
        DrainOperator.partial(
            task_id="drain",
            dataset=dataset.name,
            datasets=None if project.datasets is None else str(project.datasets),
            priority_weight=dataset.priority,
            outlets=[staging_asset(dataset.name)],
        ).expand(share=plan.output)

    return ingest()
