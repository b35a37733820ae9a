"""Airflow DAG `answer_case`: the case's three questions, with a trigger form."""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from headrace.airflow import forms
from headrace.airflow.dag_factory import DEFAULT_ARGS, START

ROWS, ROWS_MAX = 5, 1000

DOC = """
Queries the marts and shows the answers in the task's log and as its result (XCom `return_value`):

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
            "LOC_1294", type="string", maxLength=255, title="Location", description="For example LOC_1294."
        ),
        "service": Param(
            "SERVICE_01", type="string", maxLength=255, title="Service", description="For example SERVICE_01."
        ),
        "limit": Param(
            ROWS, **forms.whole_number(minimum=1, maximum=ROWS_MAX), title="Rows", description="Of each answer."
        ),
    },
)
def answer_case() -> None:
    @task
    def answer(params: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
        """Read the three answers."""
        from headrace.airflow.connections import build_settings, task_errors
        from headrace.output import say
        from headrace.postgres.connection import connector
        from headrace.sample.case_answers import read_case_answers, render

        with task_errors():
            connect = connector(build_settings().require_dbt_dsn(), "headrace answer")
            location, service = (forms.read_required_text(params, name) for name in ("location", "service"))
            limit = forms.read_whole_number(params, "limit", minimum=1, maximum=ROWS_MAX)
            answers = read_case_answers(connect, location, service, ROWS if limit is None else limit)
        say(render(answers), keep="\n")
        return answers

    answer()  # type: ignore[call-arg] # Airflow passes params


answer_case()
