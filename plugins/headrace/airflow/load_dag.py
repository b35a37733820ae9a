"""The DAG of a file: load it, then update the asset."""

from airflow.sdk import DAG, Param, dag, task

from headrace.airflow.dag_defaults import DEFAULT_ARGS, START, staging_asset
from headrace.airflow.operators import LoadOperator
from headrace.airflow.project import AirflowProject
from headrace.dataset import Dataset

FIELDS = ("file", "replace", "max_removed", "again")


def load_dag(dataset: Dataset, project: AirflowProject = AirflowProject()) -> DAG:  # noqa: B008 - frozen
    """The DAG load_<dataset>: load the file, then update the asset staging/<dataset>."""
    declared_path = dataset.source.name

    @dag(
        dag_id=f"load_{dataset.name}",
        description=f"{dataset.description or dataset.name}: from data-files/{declared_path}",
        schedule="@hourly",
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        tags=["headrace", "load"],
        params=_params(declared_path),
        doc_md=f"Loads a file into `staging.{dataset.name}`. Lines that break the contract become dead letters.",
    )
    def load() -> None:
        load_task = LoadOperator(
            task_id="load",
            dataset=dataset.name,
            datasets=project.datasets,
            **{name: f"{{{{ params.{name} if params.{name} is not none else '' }}}}" for name in FIELDS},
        )

        @task(task_id="announce", outlets=[staging_asset(dataset.name)])
        def announce_task() -> None:
            """Update the asset, which starts build_marts."""

        load_task >> announce_task()

    return load()


def _params(declared_path: str) -> dict[str, Param]:
    return {
        "file": Param(
            declared_path,
            type=["null", "string"],
            title="File",
            description="Below data-files/; empty for the declared one. An unchanged file (by sha256) is skipped.",
        ),
        "replace": Param(
            False,
            type="boolean",
            title="Replace",
            description="Tombstone the entities that the file no longer names; otherwise they are kept.",
        ),
        "max_removed": Param(
            10,
            type="number",
            minimum=0,
            maximum=100,
            title="Removed at most (%)",
            description="Replace is refused if more than this part of the entities would be tombstoned.",
        ),
        "again": Param(
            False,
            type="boolean",
            title="Again",
            description="Load an unchanged file again, over one that was loaded since.",
        ),
    }
