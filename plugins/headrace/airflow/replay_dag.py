"""The DAG replay_dead_letters: stage dead letters that the contract now accepts."""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetAlias, Param, dag, task

from headrace.airflow import forms
from headrace.airflow.dag_defaults import DEFAULT_ARGS, START, update_assets
from headrace.airflow.project import AirflowProject
from headrace.catalog import Declarations
from headrace.contracts.reasons import Reason

REASONS = ", ".join(sorted(Reason))
REPLAYED = AssetAlias("staging/replayed")  # resolves to the staging asset of the replayed dataset

DOC = """
For a contract that was too strict and has been corrected: decodes a dataset's dead letters again.

- An accepted record moves into `staging`, under its own coordinate, as part of a new batch of kind `replay`;
  `build_marts` runs then. A rejected one stays in `headrace.dead_letters` with its reason.
- All of it is one transaction. A second run finds nothing.
- **dry_run** prints the result and changes nothing.

In a shell: `headrace dead-letters events`, `headrace replay events --reason missing_field --dry-run`.
"""


def replay_dag(declared: Declarations, project: AirflowProject = AirflowProject()) -> DAG:  # noqa: B008 - frozen
    """The DAG replay_dead_letters: stage dead letters that the contract now accepts."""

    @dag(
        dag_id="replay_dead_letters",
        schedule=None,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args={**DEFAULT_ARGS, "execution_timeout": timedelta(hours=2)},
        tags=["headrace", "replay"],
        description="Stages dead letters that the contract now accepts",
        doc_md=DOC,
        params=_params(declared),
    )
    def define() -> None:
        @task(outlets=[REPLAYED])
        def replay(params: dict[str, Any], outlet_events: Any = None) -> dict[str, Any]:
            """Decode the dead letters again and stage those that are accepted."""
            from headrace.airflow.connections import deployment, run_context, task_errors
            from headrace.output import say
            from headrace.repair.options import RepairOptions
            from headrace.repair.replay import replay as replay_now

            with task_errors():
                ours = deployment(project.settings(), registry=True)
                dataset = ours.dataset(forms.read_required_text(params, "dataset"))
                result = replay_now(
                    ours,
                    dataset,
                    reason=forms.read_text(params, "reason"),
                    dry_run=params["dry_run"],
                    options=RepairOptions(run=run_context()),
                )
            say(result.summary())
            if result.passed and not result.dry_run:
                update_assets(outlet_events[REPLAYED], dataset)
            return {"staged": result.staged, "tombstones": result.tombstones, "remaining": dict(result.remaining)}

        replay()  # type: ignore[call-arg] # Airflow passes params

    return define()


def _params(declared: Declarations) -> dict[str, Param]:
    return {
        "dataset": Param(
            next(iter(declared.names), None),
            **forms.choice(declared.names),
            title="Dataset",
            description="The dataset of the dead letters.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],
            maxLength=100,
            title="Reason",
            description=f"Only those of this reason; empty for all: {REASONS}, or one of the contract's own.",
        ),
        "dry_run": Param(False, type="boolean", title="Dry run", description="Print the result and change nothing."),
    }
