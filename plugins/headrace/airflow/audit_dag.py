"""The DAG audit_marts: compare every mart with its SELECT once a day."""

from datetime import timedelta

from airflow.sdk import DAG, Param, dag, task

from headrace.airflow import forms
from headrace.airflow.dag_defaults import DEFAULT_ARGS, START
from headrace.airflow.project import AirflowProject

DOC = """
Computes every mart as a whole and compares it with its table, and runs the data tests on all rows. Builds check a few
random grains and the rows that they changed.

A difference is a wrong `grain` or `touched` in a model's config, or a change by hand. The run fails and names model,
grain and columns; each build computes that model as a whole until its config is corrected.
"""


def audit_dag(project: AirflowProject = AirflowProject()) -> DAG:  # noqa: B008 - frozen
    """The DAG audit_marts: compare every mart with its SELECT once a day."""

    @dag(
        dag_id="audit_marts",
        schedule="@daily",
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args={**DEFAULT_ARGS, "execution_timeout": timedelta(hours=6)},
        tags=["headrace", "dbt"],
        description="Compares every mart with its SELECT, and tests all rows",
        doc_md=DOC,
        params={
            "select": Param(
                None,
                type=["null", "string"],
                title="Models",
                description="dbt's node selection, for example `jobs+`. Empty for all.",
            ),
        },
    )
    def define() -> None:
        @task
        def audit(params: dict[str, str]) -> str:
            """Compare everything; fail with the first difference."""
            from headrace.airflow.connections import build_settings, run_context, task_errors
            from headrace.marts.audit import audit as audit_all
            from headrace.output import say

            with task_errors():
                settings = build_settings(project.settings())
                select = forms.read_text(params, "select")
                return audit_all(settings, select, print_line=say, run=run_context()).summary()

        audit()  # type: ignore[call-arg] # Airflow passes params

    return define()
