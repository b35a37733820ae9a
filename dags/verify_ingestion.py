"""Airflow DAG `verify_ingestion`: compares ledger, rows, dead letters and claims once a day."""

from datetime import timedelta

from airflow.sdk import Param, dag, task

from headrace.airflow import forms
from headrace.airflow.dag_factory import DEFAULT_ARGS, START, declarations

DECLARED = declarations()
DOC = """
Compares, inside one read-only snapshot per dataset, while drains may continue:

- the ledger with the checkpoints: ranges join without gap or overlap, seq without gap,
- each batch's counts with its rows in `staging` and its dead letters,
- dbt's claims with the ledger, and marts of one row per key with staging,
- the checkpoints with the source's last stable offsets and identity.

**deep** reads the source again, with another reader than the loader's, and compares every record with what is
stored. The run fails with the first finding; the task's log lists all. The same in a shell: `headrace verify --deep`.
"""


@dag(
    schedule="@daily",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args={**DEFAULT_ARGS, "execution_timeout": timedelta(hours=6)},
    tags=["headrace", "verify"],
    description="Compares ledger, rows, dead letters, claims and, with deep, the source's records",
    doc_md=DOC,
    params={
        "dataset": Param(
            None,
            **forms.choice(DECLARED.names, all_of_them="all of them"),
            title="Dataset",
            description="Empty for all of them.",
        ),
        "deep": Param(
            False,
            type="boolean",
            title="Deep",
            description="Read the source again and compare every record: minutes per ten million.",
        ),
    },
)
def verify_ingestion() -> None:
    @task
    def verify(params: dict[str, str | bool]) -> str:
        """Compare everything; fail with the first finding."""
        from airflow.sdk.exceptions import AirflowFailException

        from headrace.airflow.connections import build_settings, deployment, task_errors
        from headrace.exceptions import SourceUnavailable
        from headrace.output import say, shown
        from headrace.verify import verify as verify_datasets

        with task_errors():
            name = forms.read_text(params, "dataset")
            deep, settings = bool(params["deep"]), build_settings()
            verification = verify_datasets(deployment(), name, deep=deep, build_settings=settings)
        for line in verification.lines():
            say(line)
        if verification.findings:
            raise AirflowFailException(shown(verification.findings[0].line()))
        if verification.errors and DECLARED.faults:
            raise AirflowFailException(shown(verification.errors[0]))  # a retry does not correct a declaration
        if verification.errors:
            raise SourceUnavailable(verification.errors[0])
        return verification.summary()

    verify()  # type: ignore[call-arg] # Airflow passes params


verify_ingestion()
