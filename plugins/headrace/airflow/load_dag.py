"""The DAG of a file: load it, then update the asset."""

from airflow.sdk import DAG, Param, dag, task

from headrace.airflow import forms
from headrace.airflow.dag_defaults import DEFAULT_ARGS, START, staging_asset
from headrace.dataset import Dataset
from headrace.output import say


def load_dag(dataset: Dataset) -> DAG:
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
        @task.short_circuit(task_id="load", ignore_downstream_trigger_rules=False)
        def load_task() -> bool:
            """Load the file; False if it was unchanged: then the run ends here."""
            return _load(dataset.name, declared_path)

        @task(task_id="announce", outlets=[staging_asset(dataset.name)])
        def announce_task() -> None:
            """Update the asset, which starts build_marts."""

        load_task() >> announce_task()

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


def _load(name: str, declared_path: str) -> bool:
    from airflow.sdk import get_current_context

    from headrace.airflow.connections import deployment, run_context, task_errors
    from headrace.ingest.load import LoadOptions, load_file
    from headrace.sources.file import below

    params = get_current_context()["params"]
    with task_errors():
        ours = deployment()
        file = forms.read_text(params, "file")
        path = None if file is None or file == declared_path else below(ours.settings.data_dir, file)
        outcome = load_file(
            ours,
            name,
            path=path,
            options=LoadOptions(
                replace=params["replace"],
                max_removed=params["max_removed"],
                again=params["again"],
                run=run_context(),
            ),
        )
    say(outcome.summary())
    return not outcome.unchanged or bool(outcome.replaced)
