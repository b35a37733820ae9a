"""The DAG reload_range: read a range of a topic again and replace its rows."""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetAlias, Param, dag, task

from headrace.airflow import forms
from headrace.airflow.dag_defaults import DEFAULT_ARGS, START, update_assets
from headrace.airflow.project import AirflowProject
from headrace.catalog import Declarations

RELOADED = AssetAlias("staging/reloaded")  # resolves to the staging asset of the reloaded dataset

DOC = """
Reads a range of a topic again, as long as Kafka retains it, and replaces exactly its staged rows:

- by **offsets** of one partition (`from` 1200, `to` 1500, `partition` 0), or by **times** of the records in all
  partitions (`from` 2026-01-31T09:30:00Z, `to` 2026-01-31T10:00:00Z); `to` itself is not read,
- today's contract decides: an accepted record is staged, a rejected one is a dead letter,
- the former rows move to `staging._replaced_<dataset>`; `build_marts` corrects the marts.

All of it is one transaction, so retrying, clearing or running it twice is safe. Nothing above the checkpoint is
touched. In a shell: `headrace reload jobs --partition 0 --from 1200 --to 1500`.
"""


def reload_dag(declared: Declarations, project: AirflowProject = AirflowProject()) -> DAG:  # noqa: B008 - frozen
    """The DAG reload_range: read a range of a topic again and replace its rows."""
    # a broken declaration may be one of a topic: a run for it fails with the reason
    broken, usable = declared.faults, declared.datasets
    datasets = [name for name in declared.streams if name in broken or usable[name].source.can_reload]

    @dag(
        dag_id="reload_range",
        schedule=None,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args={**DEFAULT_ARGS, "execution_timeout": timedelta(hours=6)},
        tags=["headrace", "reload"],
        description="Reads a range of a topic again, by offsets or times, and replaces its rows",
        doc_md=DOC,
        params=_params(datasets),
    )
    def define() -> None:
        @task(outlets=[RELOADED])
        def reload(params: dict[str, Any], outlet_events: Any = None) -> dict[str, int]:
            """Read the range again and replace its staged rows."""
            from headrace.airflow.connections import deployment, run_context, task_errors
            from headrace.output import say
            from headrace.repair.options import RepairOptions
            from headrace.repair.reload import reload_range

            with task_errors():
                ours = deployment(project.settings(), registry=True)
                dataset = ours.dataset(forms.read_required_text(params, "dataset"))
                result = reload_range(
                    ours,
                    dataset,
                    forms.read_required_text(params, "from"),
                    forms.read_required_text(params, "to"),
                    partition=forms.read_whole_number(params, "partition", minimum=0),
                    options=RepairOptions(run=run_context()),
                )
            say(result.summary())
            if result.partitions:
                update_assets(outlet_events[RELOADED], dataset)
            return {
                "staged": sum(each.staged for each in result.partitions),
                "dead": sum(each.dead for each in result.partitions),
                "replaced": sum(each.replaced for each in result.partitions),
            }

        reload()  # type: ignore[call-arg] # Airflow passes params

    return define()


def _params(datasets: list[str]) -> dict[str, Param]:
    return {
        "dataset": Param(
            next(iter(datasets), None),
            **forms.choice(datasets),
            title="Dataset",
            description="A dataset that reads a Kafka topic.",
        ),
        "partition": Param(
            None,
            **forms.whole_number(minimum=0, optional=True),
            title="Partition",
            description="Required for offsets, unless the topic has only one. For times, empty means all.",
        ),
        "from": Param(
            None,
            type=["string", "integer"],
            title="From",
            description="The first offset, or the first time; UTC unless it names a zone.",
            examples=["1200", "2026-01-31T09:30:00Z"],
        ),
        "to": Param(
            None,
            type=["string", "integer"],
            title="To",
            description="The first offset, or the time, that is not read again.",
            examples=["1500", "2026-01-31T10:00:00Z"],
        ),
    }
