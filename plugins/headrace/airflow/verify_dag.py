"""The DAG verify_ingestion: compare ledger, rows, dead letters and claims once a day."""

from datetime import timedelta

from airflow.sdk import DAG, Param, dag

from headrace.airflow import forms
from headrace.airflow.dag_defaults import DEFAULT_ARGS, START
from headrace.airflow.operators import VerifyOperator
from headrace.airflow.project import AirflowProject
from headrace.catalog import Declarations

DOC = """
Compares, inside one read-only snapshot per dataset, while drains may continue:

- the ledger with the checkpoints: ranges join without gap or overlap, seq without gap,
- each batch's counts with its rows in `staging` and its dead letters,
- dbt's claims with the ledger, and marts of one row per key with staging,
- the checkpoints with the source's last stable offsets and identity.

**deep** reads the source again, with another reader than the loader's, and compares every record with what is
stored. The run fails with the first finding; the task's log lists all. The same in a shell: `headrace verify --deep`.
"""


def verify_dag(declared: Declarations, project: AirflowProject = AirflowProject()) -> DAG:  # noqa: B008 - frozen
    """The DAG verify_ingestion: compare ledger, rows, dead letters and claims once a day."""

    @dag(
        dag_id="verify_ingestion",
        schedule="@daily",
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args={**DEFAULT_ARGS, "execution_timeout": timedelta(hours=6)},
        tags=["headrace", "verify"],
        description="Compares ledger, rows, dead letters, claims and, with deep, the source's records",
        doc_md=DOC,
        params=_params(declared.names),
    )
    def define() -> None:
        VerifyOperator(
            task_id="verify",
            dataset="{{ params.dataset or '' }}",
            deep="{{ params.deep }}",
            datasets=project.datasets,
            execution_timeout=timedelta(hours=6),
        )

    return define()


def _params(names: list[str]) -> dict[str, Param]:
    return {
        "dataset": Param(
            None,
            **forms.choice(names, all_of_them="all of them"),
            title="Dataset",
            description="Empty for all of them.",
        ),
        "deep": Param(
            False,
            type="boolean",
            title="Deep",
            description="Read the source again and compare every record: minutes per ten million.",
        ),
    }
