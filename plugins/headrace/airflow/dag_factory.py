"""The DAGs of a deployment, made from its datasets' declarations.

Airflow's scheduler imports DAG files every few seconds: nothing here connects, and what is heavy is imported by
the tasks. A declaration that cannot be used has a DAG too, whose runs fail with the reason.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronTriggerTimetable, Param, dag, task

from headrace.airflow import forms
from headrace.catalog import Declarations, InvalidDeclaration, load_declarations
from headrace.dataset import Dataset
from headrace.exceptions import DatasetError
from headrace.output import say, shown
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.deployment import Deployment

OWNER = "headrace"
START = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULT_ARGS = {
    "owner": OWNER,
    "retries": 3,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=2),
}
FOLLOW_MINUTES = 10
FOLLOW_S_MAX = 4 * 3600  # a session that does not end by itself
BROKEN_EVERY = timedelta(minutes=10)  # how often the DAG of a declaration that cannot be used fails


def staging_asset(name: str) -> Asset:
    """The asset that a dataset's DAG updates when it committed something."""
    return Asset(name=f"staging/{name}", uri=f"headrace://staging/{name}")


def declarations() -> Declarations:
    """Every declaration of this deployment, usable or not."""
    return load_declarations(Settings.from_environment().datasets_dir)


def ingest_dags(declared: Declarations) -> dict[str, DAG]:
    """ingest_<dataset> of every dataset that comes from a topic or a stream, by dag_id."""
    streams = [dataset for dataset in declared.datasets.values() if not dataset.source.is_file]
    return _dags(ingest_dag, streams, [fault for fault in declared.faults.values() if not fault.is_file])


def load_dags(declared: Declarations) -> dict[str, DAG]:
    """load_<dataset> of every dataset that comes from a file, by dag_id."""
    files = [dataset for dataset in declared.datasets.values() if dataset.source.is_file]
    return _dags(load_dag, files, [fault for fault in declared.faults.values() if fault.is_file])


def _dags(
    make: Callable[[Dataset], DAG], datasets: Iterable[Dataset], faults: Iterable[InvalidDeclaration]
) -> dict[str, DAG]:
    dags: dict[str, DAG] = {}
    for dataset in datasets:
        try:
            made = make(dataset)
        except Exception as error:  # a value that only Airflow refuses: it must not take the other DAGs with it
            text = f"{dataset.name}: Airflow refuses its declaration: {type(error).__name__}: {error}; correct it"
            made = broken_dag(InvalidDeclaration(dataset.name, DatasetError(text), dataset.source.is_file))
        dags[made.dag_id] = made
    for fault in faults:
        made = broken_dag(fault)
        dags[made.dag_id] = made
    return dags


def broken_dag(fault: InvalidDeclaration) -> DAG:
    """The DAG of a declaration that cannot be used: under the dataset's own dag_id, each run fails with the reason."""
    text = " ".join(str(fault.error).split())
    quoted = text.replace("`", "'")  # it ends no block of code

    @dag(
        dag_id=f"{'load' if fault.is_file else 'ingest'}_{fault.name}",
        description=f"BROKEN: {text}",
        schedule="@hourly" if fault.is_file else BROKEN_EVERY,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        tags=["headrace", "broken"],
        doc_md=f"""
The declaration of **{fault.name}** cannot be used, so that nothing is ingested into `staging.{fault.name}`. All other
datasets go on. What is staged stays, and the next run after the correction goes on from the checkpoint.

```
{quoted}
```

In a shell: `headrace describe {fault.name}`.
""",
    )
    def broken() -> None:
        # the task_id of the usable DAG: a run that began before the correction does what it was to do
        @task(task_id="load" if fault.is_file else "plan")
        def fail() -> None:
            """Fail with the reason."""
            from airflow.sdk.exceptions import AirflowFailException

            raise AirflowFailException(text)

        fail()

    return broken()


def known_reasons(declared: Declarations) -> list[str]:
    """The reasons for which the contracts reject records, for the description of a form."""
    from headrace.monitor.describe import reasons

    found: set[str] = set()
    for dataset in declared.datasets.values():
        found |= set(reasons(dataset))
    return sorted(found)


def ingest_dag(dataset: Dataset) -> DAG:
    """The DAG ingest_<dataset>: plan, then drain, then asset staging/<dataset>. Reads new records exactly once."""

    @dag(
        dag_id=f"ingest_{dataset.name}",
        description=f"{dataset.description or dataset.name}: from its source into staging.{dataset.name}",
        schedule=timedelta(seconds=dataset.schedule_s),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        tags=["headrace", "ingest"],
        doc_md=f"""
Reads records into `staging.{dataset.name}`, up to the end as it is when the run starts.

- **plan** compares the checkpoints with the source and pins the offsets to read. With nothing new, or while
  `follow_topics` holds the dataset, the run ends there.
- **drain** commits batch by batch; rows, dead letters, checkpoint and ledger line are one transaction. Retrying,
  clearing or running it twice is safe: the checkpoint decides.

Bad records go to `headrace.dead_letters` and do not fail the run.
""",
    )
    def ingest() -> None:
        @task(task_id="plan")
        def plan_task() -> list[dict[str, Any]]:
            """Pin what to read: one share, or one per partition when there is much of it."""
            from airflow.sdk.exceptions import AirflowSkipException

            from headrace.airflow.connections import deployment, run_context, task_errors
            from headrace.exceptions import TopicMissing
            from headrace.follow.leases import held_lease
            from headrace.ingest import runner as ingest

            ours = deployment()
            with task_errors():
                if lease := held_lease(ours, dataset.name):
                    raise AirflowSkipException(shown(f"{lease.holder_name} follows {dataset.name}"))
                try:
                    planned = ingest.plan(ours, dataset, run=run_context())
                except TopicMissing as error:
                    if ingest.is_known(ours, dataset):
                        raise
                    raise AirflowSkipException(f"nothing to ingest yet: {error}") from error
            say(f"{dataset.name}: {planned.lag} offsets to read: {dict(planned.ranges)}")
            if not planned.ranges:
                _publish_dead_letters(ours, dataset)  # what an earlier run could not: no drain follows
            parts = ours.settings.drain_parallel_max if planned.lag > ours.settings.drain_parallel_lag else 1
            return [share.to_dict() for share in planned.split(parts)]

        @task(task_id="drain", outlets=[staging_asset(dataset.name)])
        def drain_task(share: dict[str, Any]) -> dict[str, Any]:
            """Read the share and commit it in batches."""
            from headrace.airflow.connections import deployment, run_context, task_errors
            from headrace.ingest import runner as ingest
            from headrace.ingest.plan import Plan

            ours = deployment()
            with task_errors():
                planned = ingest.remaining_plan(ours, Plan.from_dict(share))  # this may be a retry
                result = ingest.drain_plan(ours, dataset, planned, options=ingest.RunOptions(run=run_context()))
            for line in result.log_lines(planned):
                say(line)
            _publish_dead_letters(ours, dataset)
            return {"staged": result.staged, "dead": result.dead, "seconds": round(result.seconds, 2)}

        drain_task.expand(share=plan_task())

    return ingest()


def _publish_dead_letters(deployment: "Deployment", dataset: Dataset) -> None:
    from headrace.publish.dead_letter_topic import publish_after_drain

    published = publish_after_drain(deployment, dataset)
    if published:
        say(f"{dataset.name}: {published} dead letters published")


def load_dag(dataset: Dataset) -> DAG:
    """The DAG load_<dataset>: load, then asset staging/<dataset>. Brings a file dataset up to its file."""
    declared_path = dataset.source.name

    @dag(
        dag_id=f"load_{dataset.name}",
        description=f"{dataset.description or dataset.name}: from data-files/{declared_path}",
        schedule="@hourly",
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        tags=["headrace", "load"],
        params={
            "file": Param(
                declared_path,
                type=["null", "string"],
                title="File",
                description="Below data-files/; empty for the declared one. An unchanged file (by sha256) is skipped.",
            ),
            "replace": Param(
                False,
                type="boolean",
                title="Replace",
                description="Tombstone the entities that the file no longer names; otherwise they are kept.",
            ),
            "max_removed": Param(
                10,
                type="number",
                minimum=0,
                maximum=100,
                title="Removed at most (%)",
                description="Replace is refused where more than this part of the entities would be tombstoned.",
            ),
            "again": Param(
                False,
                type="boolean",
                title="Again",
                description="Load the file also if it is unchanged and another one was loaded since.",
            ),
        },
        doc_md=f"Loads a file into `staging.{dataset.name}`. Lines that break the contract become dead letters.",
    )
    def load() -> None:
        @task.short_circuit(task_id="load", ignore_downstream_trigger_rules=False)
        def load_task() -> bool:
            """Load the file; False, and so nothing further, when it was unchanged."""
            from airflow.sdk import get_current_context

            from headrace.airflow.connections import deployment, run_context, task_errors
            from headrace.ingest.load import LoadOptions, load_file
            from headrace.sources.file import below

            params = get_current_context()["params"]
            with task_errors():
                ours = deployment()
                file = forms.read_text(params, "file")
                path = None if file is None or file == declared_path else below(ours.settings.data_dir, file)
                outcome = load_file(
                    ours,
                    dataset.name,
                    path=path,
                    options=LoadOptions(
                        replace=params["replace"],
                        max_removed=params["max_removed"],
                        again=params["again"],
                        run=run_context(),
                    ),
                )
            say(outcome.summary())
            return not outcome.unchanged or bool(outcome.replaced)

        @task(task_id="announce", outlets=[staging_asset(dataset.name)])
        def announce_task() -> None:
            """Say that there are new rows: build_marts waits for it."""

        load_task() >> announce_task()

    return load()


def follow_dag(declared: Declarations) -> DAG:
    """follow: drain and build as records arrive, in one task that the next run relieves."""
    names = declared.streams

    @dag(
        dag_id="follow_topics",
        description="Every topic and stream, record by record: in its mart about a second after it was produced",
        schedule="@continuous",
        start_date=START,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=True,  # scheduled runs are the default; this one holds a worker slot
        default_args=DEFAULT_ARGS
        | {
            "execution_timeout": timedelta(seconds=FOLLOW_S_MAX),
            "retries": 1,  # it waits for services itself; behind a run that failed the next one begins at once
            "retry_delay": timedelta(seconds=2),
        },
        tags=["headrace", "ingest", "dbt"],
        params={
            "datasets": Param(
                names,
                type=["null", "array"],
                items={"type": "string"},
                examples=names,
                title="Datasets",
                description="What to follow; empty for all but files. Scheduled runs leave it alone meanwhile.",
            ),
            "minutes": Param(
                FOLLOW_MINUTES,
                **forms.whole_number(minimum=1, maximum=FOLLOW_S_MAX // 60 - 5),
                title="Minutes",
                description="How long the session is; the next one begins when it ends.",
            ),
        },
        doc_md="""
Waits at the topics, drains what arrives and builds the models that it feeds, again and again, in one process that stays
warm. Unpause it for about a second of delay in place of a minute or two; it holds one worker slot.

While its lease is fresh `ingest_<dataset>` skips the dataset, and takes over 15 seconds after it was killed. A broker
that is down is said once and waited for. A dataset that still fails at the session's end fails the run.
""",
    )
    def follow_topics() -> None:
        @task(task_id="follow")
        def follow_task() -> str:
            """One session."""
            from airflow.sdk import get_current_context

            from headrace.airflow.connections import build_settings, deployment, run_context, task_errors
            from headrace.follow.follower import FollowOptions, follow
            from headrace.signals import stopped_by_signals

            params = get_current_context()["params"]
            with task_errors(), stopped_by_signals() as stop:
                minutes = forms.read_whole_number(params, "minutes", minimum=1, maximum=FOLLOW_S_MAX // 60 - 5)
                result = follow(
                    deployment(),
                    forms.read_names(params, "datasets"),
                    stop=stop,
                    options=FollowOptions(
                        max_seconds=(FOLLOW_MINUTES if minutes is None else minutes) * 60,
                        build_settings=build_settings(),
                        run=run_context(),
                        print_line=say,
                    ),
                )
                say(result.summary())
                result.raise_failures()
            return result.summary()

        follow_task()

    return follow_topics()


def build_dag(declared: Declarations) -> DAG:
    """build: whatever is committed and not yet built, until nothing is."""
    # asset events coalesce and can strand (airflow #56050): the clock is the backstop
    clock = CronTriggerTimetable("*/10 * * * *", timezone="UTC")
    assets: Any = None
    for name in declared.names:
        assets = staging_asset(name) if assets is None else assets | staging_asset(name)

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
Runs dbt in one process over everything that is committed and unclaimed, whatever event started it, and again until a
pass finds nothing. Two builds take turns. A failed model or test fails the run; what does not depend on it is built.
""",
    )
    def build_marts() -> None:
        @task(task_id="build")
        def build_task() -> str:
            """One in-process dbt invocation, repeated until no claim advances."""
            from headrace.airflow.connections import build_settings, task_errors
            from headrace.marts.build import build

            with task_errors():
                return build(build_settings(), print_line=say).summary()

        build_task()

    return build_marts()
