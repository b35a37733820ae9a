"""Airflow DAG `replay_dead_letters`: dead letters that the contract of today lets pass become staged rows."""

from datetime import timedelta
from typing import Any

from airflow.sdk import AssetAlias, Param, dag, task

from headrace.airflow.dag_factory import DEFAULT_ARGS, START, declared_datasets, staging_asset
from headrace.describe import reasons

DATASETS = declared_datasets()
REASONS = sorted({reason for dataset in DATASETS for reason in reasons(dataset)})
REPLAYED = AssetAlias("staging/replayed")  # stands for the staging asset of the dataset that was replayed

DOC = """
For when a contract was too strict and has been corrected: judges a dataset's dead letters again.

- What passes moves into `staging`, under the coordinates that its record had, as new batches of kind `replay`;
  `build_marts` runs then. What still fails stays in `headrace.dead_letters` with the reason that it has.
- All of it is one transaction. Running it twice finds nothing the second time.
- **dry_run** says what would happen and changes nothing.

In a shell: `headrace dead-letters events`, `headrace replay events --reason missing_field --dry-run`.
"""


@dag(
    schedule=None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args={**DEFAULT_ARGS, "execution_timeout": timedelta(hours=2)},
    tags=["headrace", "replay"],
    description="Dead letters that the contract of today lets pass become staged rows",
    doc_md=DOC,
    params={
        "dataset": Param(
            DATASETS[0].name,
            type="string",
            enum=[dataset.name for dataset in DATASETS],
            title="Dataset",
            description="Whose dead letters.",
        ),
        "reason": Param(
            "",
            type="string",
            pattern="^([a-z][a-z0-9_]*)?$",
            maxLength=100,
            title="Reason",
            description=f"Only those of this reason; empty for all. The contracts know {', '.join(REASONS)}.",
        ),
        "dry_run": Param(
            False, type="boolean", title="Dry run", description="Say what would happen and change nothing."
        ),
    },
)
def replay_dead_letters() -> None:
    @task(outlets=[REPLAYED])
    def replay(params: dict[str, Any], outlet_events: Any = None) -> dict[str, Any]:
        """Judge the dead letters again and stage what passes."""
        from headrace.airflow.connections import deployment, run_context, task_errors
        from headrace.replay import replay as replay_letters

        with task_errors():
            ours = deployment()
            result = replay_letters(
                ours,
                ours.dataset(params["dataset"]),
                reason=params["reason"] or None,
                dry_run=params["dry_run"],
                run=run_context(),
            )
        print(result.story())
        if result.passed and not result.dry_run:
            outlet_events[REPLAYED].add(staging_asset(result.dataset))
        return {"staged": result.staged, "tombstones": result.tombstones, "remaining": dict(result.remaining)}

    replay()


replay_dead_letters()
