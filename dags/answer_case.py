"""Airflow DAG `answer_case`: the case's three questions, asked from the trigger form."""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from headrace.airflow.dag_factory import DEFAULT_ARGS, START

DOC = """
Asks the marts and shows the answer in the task's log and as its result (XCom `return_value`):

- the users of the users file who earned most at a location that is not their own,
- the newest jobs of that location,
- the newest jobs of a service.

The same in psql: `select * from marts.top_users('LOC_1294')`, `marts.jobs_by_location`, `marts.jobs_by_service`.
"""


@dag(
    schedule=None,
    start_date=START,
    catchup=False,
    default_args={**DEFAULT_ARGS, "execution_timeout": timedelta(minutes=5)},
    tags=["headrace", "case"],
    description="Top users and newest jobs of a location, newest jobs of a service",
    doc_md=DOC,
    params={
        "location": Param(
            "LOC_1294", type="string", minLength=1, maxLength=255, title="Location", description="As in LOC_1294."
        ),
        "service": Param(
            "SERVICE_01", type="string", minLength=1, maxLength=255, title="Service", description="As in SERVICE_01."
        ),
        "limit": Param(5, type="integer", minimum=1, maximum=1000, title="Rows", description="Of each answer."),
    },
)
def answer_case() -> None:
    @task
    def answer(params: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
        """Read the three answers."""
        from headrace.airflow.connections import build_settings, task_errors
        from headrace.answers import read_answers, render
        from headrace.database import connector

        with task_errors():
            connect = connector(build_settings().require_dbt_dsn(), "headrace answer")
            answers = read_answers(connect, params["location"], params["service"], params["limit"])
        print(render(answers))
        return answers

    answer()


answer_case()
