"""The DAG of datasets that share one: plan all, drain those with new records in packs, report what failed."""

from collections.abc import Sequence
from datetime import timedelta

from airflow.sdk import DAG, AssetAlias, XComArg, dag

from headrace.airflow.dag_defaults import DEFAULT_ARGS, START
from headrace.airflow.project import AirflowProject
from headrace.airflow.shared_operators import (
    FAILURES,
    PackDrainOperator,
    ReportOperator,
    SharedPlanOperator,
    alias_of,
)
from headrace.catalog import Declarations, dag_of
from headrace.dataset import Dataset

NAMED_MAX = 100  # datasets that the documentation of a DAG lists


def shared_dag(
    key: str,
    declared: Declarations,
    project: AirflowProject = AirflowProject(),  # noqa: B008 - frozen
) -> DAG:
    """The DAG ingest_<key> of the datasets with dag=key: plan, then drain, then the assets of those with new rows.

    It runs as often as the most frequent of them asks. An idle run has one task.
    """
    datasets = declared.shared[key]
    weight = max(dataset.priority for dataset in datasets)

    @dag(
        dag_id=dag_of(key, is_file=False),
        description=f"{len(datasets)} datasets: from their sources into staging",
        schedule=timedelta(seconds=min(dataset.schedule_s for dataset in datasets)),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS | {"priority_weight": weight},
        tags=["headrace", "ingest"],
        doc_md=f"""
Reads the records of {len(datasets)} datasets, each up to its source's end at the start of the run.

- **plan** compares the checkpoints of all of them with the sources: one query of Postgres and one of the broker, not
  one per dataset. If nothing is new, the run ends there.
- **drain** has a mapped task for each pack of datasets with something new, and more than one for a dataset with much
  to read. Rows, dead letters, checkpoint and ledger line of a batch are one transaction. Retrying, clearing or running
  it twice is safe: the checkpoint decides.
- **report** fails with the datasets that could not be planned or drained. They stop none of the others.

Bad records go to `headrace.dead_letters` and do not fail the run. Datasets: {_listed(datasets)}.
""",
    )
    def ingest() -> None:
        folder = None if project.datasets is None else str(project.datasets)
        plan = SharedPlanOperator(task_id="plan", dag_key=key, datasets=folder, declared=declared)
        outlets = [AssetAlias(alias_of(key))]
        partial = PackDrainOperator.partial(task_id="drain", datasets=folder, dag_key=key, outlets=outlets)
        drain = partial.expand(pack=plan.output)
        # not if plan was skipped: nothing was new, and nothing failed
        ReportOperator(
            task_id="report",
            planned=XComArg(plan, key=FAILURES),
            drained=drain.output,
            datasets=folder,
            trigger_rule="none_failed_min_one_success",
        )

    return ingest()


def _listed(datasets: Sequence[Dataset]) -> str:
    names = [f"`{dataset.name}`" for dataset in datasets[:NAMED_MAX]]
    rest = len(datasets) - NAMED_MAX
    return ", ".join(names) + (f" and {rest} others" if rest > 0 else "")
