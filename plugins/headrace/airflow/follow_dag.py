"""The DAG that follows topics and streams: one task per session, one session after the other."""

from datetime import timedelta

from airflow.sdk import DAG, Param, dag, task

from headrace.airflow import forms
from headrace.airflow.dag_defaults import DEFAULT_ARGS, START
from headrace.airflow.project import AirflowProject
from headrace.catalog import Declarations
from headrace.output import say
from headrace.retries import FOLLOW_TASK_RETRIES

FOLLOW_MINUTES = 10
FOLLOW_S_MAX = 4 * 3600  # the longest session


def follow_dag(declared: Declarations, project: AirflowProject = AirflowProject()) -> DAG:  # noqa: B008 - frozen
    """follow_topics: drain and build as records arrive; each run is a session, and the next one succeeds it."""

    @dag(
        dag_id="follow_topics",
        description="Every topic and stream, continuously: about a second from record to mart",
        schedule="@continuous",
        start_date=START,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=True,  # scheduled runs are the default; this DAG holds a worker slot
        default_args=DEFAULT_ARGS | FOLLOW_TASK_RETRIES | {"execution_timeout": timedelta(seconds=FOLLOW_S_MAX)},
        tags=["headrace", "ingest", "dbt"],
        params=_params(declared.streams),
        doc_md="""
Waits at the topics, drains new records and builds the models that read them, in one process that keeps its connections
and dbt's manifest. Unpause it for a delay of about a second instead of a minute or two; it holds one worker slot.

While its lease is fresh, `ingest_<dataset>` skips the dataset; after a kill it takes over within 15 seconds. A broker
that is down is reported once, and retried. A dataset that still fails at the session's end fails the run.
""",
    )
    def follow_topics() -> None:
        @task(task_id="follow")
        def follow_task() -> str:
            """One session."""
            return _follow(project)

        follow_task()

    return follow_topics()


def _params(names: list[str]) -> dict[str, Param]:
    return {
        "datasets": Param(
            names,
            type=["null", "array"],
            items={"type": "string"},
            examples=names,
            title="Datasets",
            description="The datasets to follow; empty for all topics and streams. Scheduled runs skip them meanwhile.",
        ),
        "minutes": Param(
            FOLLOW_MINUTES,
            **forms.whole_number(minimum=1, maximum=FOLLOW_S_MAX // 60 - 5),
            title="Minutes",
            description="The length of the session; the next one begins when it ends.",
        ),
    }


def _follow(project: AirflowProject) -> str:
    from airflow.sdk import get_current_context

    from headrace.airflow.connections import build_settings, deployment, run_context, task_errors
    from headrace.follow.follower import FollowOptions, follow
    from headrace.signals import stopped_by_signals

    params = get_current_context()["params"]
    with task_errors(), stopped_by_signals() as stop:
        minutes = forms.read_whole_number(params, "minutes", minimum=1, maximum=FOLLOW_S_MAX // 60 - 5)
        settings = project.settings()
        result = follow(
            deployment(settings, registry=True),
            forms.read_names(params, "datasets"),
            stop=stop,
            options=FollowOptions(
                max_seconds=(FOLLOW_MINUTES if minutes is None else minutes) * 60,
                build_settings=build_settings(settings),
                run=run_context(),
                print_line=say,
            ),
        )
        say(result.summary())
        result.raise_failures()
    return result.summary()
