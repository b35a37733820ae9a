"""Airflow DAG `replay_dead_letters`: dead letters that the contract of today lets pass become staged rows."""

from datetime import timedelta
from typing import Any

from airflow.sdk import AssetAlias, Param, dag, task

from headrace.airflow import forms
from headrace.airflow.dag_factory import DEFAULT_ARGS, START, declarations, known_reasons, staging_asset

DECLARED = declarations()
REASONS = known_reasons(DECLARED)
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
            next(iter(DECLARED.names), None),
            **forms.choice(DECLARED.names),
            title="Dataset",
            description="Whose dead letters.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],
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
        from headrace.output import say
        from headrace.repair.options import RepairOptions
        from headrace.repair.replay import replay as replay_now

        with task_errors():
            ours = deployment()
            result = replay_now(
                ours,
                ours.dataset(forms.read_required_text(params, "dataset")),
                reason=forms.read_text(params, "reason"),
                dry_run=params["dry_run"],
                options=RepairOptions(run=run_context()),
            )
        say(result.summary())
        if result.passed and not result.dry_run:
            outlet_events[REPLAYED].add(staging_asset(result.dataset))
        return {"staged": result.staged, "tombstones": result.tombstones, "remaining": dict(result.remaining)}

    replay()  # type: ignore[call-arg] # Airflow passes params


replay_dead_letters()
