"""The DAG check_freshness: fail when a dataset exceeds the thresholds of its declaration."""

from datetime import timedelta

from airflow.sdk import DAG, dag, task

from headrace.airflow.dag_defaults import DEFAULT_ARGS, START
from headrace.airflow.project import AirflowProject

DOC = """
Compares every dataset with `max_lag` and `max_freshness_s` of its declaration in `plugins/datasets/`; a dataset without
thresholds is never late. If one exceeds them, the run fails with one line that names it and the command; Airflow's
notifiers report it, and docs/page.md shows how to attach one in this file.

A declaration that cannot be used also fails the run, because its thresholds are unknown; all other datasets are still
compared.

Reads only Postgres. A source that was not checked for longer than `max_freshness_s` exceeds it too. The page Headrace
and `headrace status` show the same.
"""


def freshness_dag(project: AirflowProject = AirflowProject()) -> DAG:  # noqa: B008 - frozen
    """The DAG check_freshness: fail when a dataset exceeds the thresholds of its declaration."""

    @dag(
        dag_id="check_freshness",
        schedule="*/5 * * * *",
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args={**DEFAULT_ARGS, "execution_timeout": timedelta(minutes=4)},
        tags=["headrace", "alert"],
        description="Fails when a dataset's lag or freshness exceeds the thresholds of its declaration",
        doc_md=DOC,
    )
    def define() -> None:
        @task
        def check() -> str:
            """Compare figures with thresholds."""
            from headrace.airflow.compat import AirflowFailException
            from headrace.airflow.connections import deployment, task_errors
            from headrace.monitor.problems import find_problems, over_thresholds
            from headrace.monitor.status import read_status

            with task_errors():
                ours = deployment(project.settings())
                overview = find_problems(read_status(ours.connect("headrace check")), ours.settings)
            late = over_thresholds(overview)
            if late:
                raise AirflowFailException("; ".join(problem.line() for problem in late))
            limited = sum(bool(limits.max_lag or limits.max_freshness_s) for limits in overview.limits.values())
            return f"{limited} datasets have limits, none is beyond them"

        check()

    return define()
