"""The DAGs of a deployment, made from its declarations.

Airflow imports DAG files every few seconds: nothing here connects, and tasks import what is heavy. An invalid
declaration also has a DAG, whose runs fail with the reason.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any

from airflow.sdk import DAG, dag, task

from headrace.airflow.audit_dag import audit_dag
from headrace.airflow.compat import AssetOrTimeSchedule, CronTriggerTimetable
from headrace.airflow.dag_defaults import DEFAULT_ARGS, OWNER, START, shared_asset, staging_asset
from headrace.airflow.follow_dag import follow_dag
from headrace.airflow.freshness_dag import freshness_dag
from headrace.airflow.ingest_dag import ingest_dag
from headrace.airflow.load_dag import load_dag
from headrace.airflow.operators import BuildOperator
from headrace.airflow.project import AirflowProject
from headrace.airflow.reload_dag import reload_dag
from headrace.airflow.replay_dag import replay_dag
from headrace.airflow.shared_dag import shared_dag
from headrace.airflow.verify_dag import verify_dag
from headrace.catalog import Declarations, InvalidDeclaration
from headrace.dataset import Dataset
from headrace.exceptions import DatasetError

__all__ = [
    "DEFAULT_ARGS",
    "OWNER",
    "START",
    "build_dag",
    "declarations",
    "follow_dag",
    "ingest_dag",
    "ingest_dags",
    "load_dag",
    "load_dags",
    "project_dags",
    "staging_asset",
]

HERE = AirflowProject()
BROKEN_EVERY = timedelta(minutes=10)  # how often the DAG of an invalid declaration fails


def declarations() -> Declarations:
    """Every declaration of this deployment, usable or not."""
    return HERE.declarations()


def project_dags(project: AirflowProject) -> dict[str, DAG]:
    """Every DAG of a project, by dag_id."""
    declared = project.declarations()
    made = [
        build_dag(declared, project),
        follow_dag(declared, project),
        verify_dag(declared, project),
        replay_dag(declared, project),
        reload_dag(declared, project),
        freshness_dag(project),
        audit_dag(project),
    ]
    return ingest_dags(declared, project) | load_dags(declared, project) | {each.dag_id: each for each in made}


def ingest_dags(declared: Declarations, project: AirflowProject = HERE) -> dict[str, DAG]:
    """ingest_<dataset> or ingest_<dag> of all datasets that come from topics and streams, by dag_id."""
    own = [each for each in declared.datasets.values() if not each.source.is_file and each.dag is None]
    faults = [fault for fault in declared.faults.values() if not fault.is_file]
    shared: dict[str, DAG] = {}
    for key, datasets in declared.shared.items():
        try:
            made = shared_dag(key, declared, project)
        except Exception as error:
            faults += [_refused(dataset, error) for dataset in datasets]
        else:
            shared[made.dag_id] = made
    return shared | _dags(lambda dataset: ingest_dag(dataset, project), own, faults)


def load_dags(declared: Declarations, project: AirflowProject = HERE) -> dict[str, DAG]:
    """load_<dataset> of every dataset that comes from a file, by dag_id."""
    files = [dataset for dataset in declared.datasets.values() if dataset.source.is_file]
    faults = [fault for fault in declared.faults.values() if fault.is_file]
    return _dags(lambda dataset: load_dag(dataset, project), files, faults)


def _dags(
    make: Callable[[Dataset], DAG], datasets: Iterable[Dataset], faults: Iterable[InvalidDeclaration]
) -> dict[str, DAG]:
    dags: dict[str, DAG] = {}
    for dataset in datasets:
        try:
            made = make(dataset)
        except Exception as error:  # a value that only Airflow refuses: it must not affect other DAGs
            made = broken_dag([_refused(dataset, error)])
        dags[made.dag_id] = made
    broken: dict[str, list[InvalidDeclaration]] = {}
    for fault in faults:
        broken.setdefault(fault.dag_id, []).append(fault)
    return dags | {dag_id: broken_dag(of_dag) for dag_id, of_dag in broken.items()}


def _refused(dataset: Dataset, error: Exception) -> InvalidDeclaration:
    text = f"{dataset.name}: Airflow refuses its declaration: {type(error).__name__}: {error}; correct it"
    return InvalidDeclaration(dataset.name, DatasetError(text), dataset.source.is_file, dag=dataset.dag)


def broken_dag(faults: Sequence[InvalidDeclaration]) -> DAG:
    """The DAG of invalid declarations: it has the dataset's own dag_id, and each run fails with the reasons.

    Those of a shared DAG have one beside it, which continues with the others.
    """
    fault, names = faults[0], ", ".join(fault.name for fault in faults)
    text = "; ".join(" ".join(str(fault.error).split()) for fault in faults)
    quoted = text.replace("`", "'")  # so that it cannot end the code block

    @dag(
        dag_id=fault.dag_id,
        description=f"BROKEN: {text}",
        schedule="@hourly" if fault.is_file else BROKEN_EVERY,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        tags=["headrace", "broken"],
        doc_md=f"""
The declaration of **{names}** cannot be used, so nothing is ingested into its table in `staging`. All other datasets
continue. Staged rows stay, and the next run after the correction continues at the checkpoint.

```
{quoted}
```

In a shell: `headrace describe {fault.name}`.
""",
    )
    def broken() -> None:
        # the task_id of the usable DAG: a run that began before the correction then does its work
        @task(task_id="load" if fault.is_file else "plan")
        def fail() -> None:
            """Fail with the reason."""
            from headrace.airflow.compat import AirflowFailException

            raise AirflowFailException(text)

        fail()

    return broken()


def build_dag(declared: Declarations, project: AirflowProject = HERE) -> DAG:
    """build_marts: build all committed batches that are not yet built, until no claim advances."""
    # asset events coalesce and can strand (airflow #56050): the schedule makes up for it
    clock = CronTriggerTimetable("*/10 * * * *", timezone="UTC")
    shared = {dataset.name for datasets in declared.shared.values() for dataset in datasets}
    waited_for = [staging_asset(name) for name in declared.names if name not in shared]
    waited_for += [shared_asset(key) for key in declared.shared]
    assets: Any = reduce(or_, waited_for) if waited_for else None

    @dag(
        dag_id="build_marts",
        description="dbt: every mart that new batches touch",
        schedule=clock if assets is None else AssetOrTimeSchedule(timetable=clock, assets=assets),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        tags=["headrace", "dbt"],
        doc_md="""
Runs dbt in one process over all committed batches that are not yet built, regardless of the triggering event, and
repeats until a pass finds none. Concurrent builds wait for each other. A failed model or test fails the run; models
that do not depend on it are built.
""",
    )
    def build_marts() -> None:
        BuildOperator(task_id="build", datasets=project.datasets)

    return build_marts()
