"""Operators for DAGs of one's own: plan, drain, load, build, verify. Headrace's DAGs use them too.

All state is in Postgres: a task may run on any worker, and retrying, clearing or running one twice is safe. Each one
connects as `connections` says. An error that a retry cannot remedy fails the task at once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.sdk import AssetAlias, BaseOperator

from headrace.airflow import forms
from headrace.airflow.dag_defaults import DEFAULT_ARGS, shared_asset, staging_asset
from headrace.airflow.links import HeadraceLink
from headrace.airflow.project import project_of
from headrace.output import say, shown

if TYPE_CHECKING:
    from headrace.airflow.lineage import Lineage
    from headrace.dataset import Dataset
    from headrace.deployment import Deployment
    from headrace.marts.build import BuildResult
    from headrace.settings import Settings

DRAINED = AssetAlias("staging/drained")  # resolves to the asset of the shared DAG that a dataset belongs to
PACED_S = 3600.0  # of a drain with a rate limit; DEFAULT_ARGS end a task after two hours
Flag = bool | str  # templates render text


class HeadraceOperator(BaseOperator):
    """What the operators share.

    datasets: the folder of the declarations. Defaults to HEADRACE_DATASETS_DIR or that of HEADRACE_PROJECT.
    """

    operator_extra_links = (HeadraceLink(),)
    _lineage: "Callable[[], Lineage] | None" = None  # of what the task read and wrote, once it did

    def __init__(self, *, datasets: Path | str | None = None, **options: Any) -> None:
        of_dag = options.get("default_args") or {}  # Airflow passes the DAG's; they precede ours
        defaults: dict[str, Any] = {name: value for name, value in DEFAULT_ARGS.items() if name not in of_dag}
        super().__init__(**(defaults | options))
        self.datasets = None if datasets is None else str(datasets)

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> Any:
        """What the task read and wrote, for Airflow's provider for OpenLineage; None if it did neither."""
        if self._lineage is None:
            return None
        from headrace.airflow.openlineage import operator_lineage

        return operator_lineage(self._lineage())


class PlanOperator(HeadraceOperator):
    """Pin the offsets of a drain; its result is a list of shares, one for each mapped DrainOperator.

    Empty if nothing is new. Skipped while a follower holds the dataset, and before its topic exists.
    """

    template_fields: Sequence[str] = ("dataset",)

    def __init__(self, *, dataset: str, **options: Any) -> None:
        super().__init__(**options)
        self.dataset = dataset

    def execute(self, context: Any) -> list[dict[str, Any]]:
        """Pin the offsets."""
        from headrace.airflow.connections import task_errors

        with task_errors():
            deployment, dataset = opened(self.datasets, self.dataset)
            return _plan(deployment, dataset)


class DrainOperator(HeadraceOperator):
    """Read a dataset's new records up to the source's end as it is now, and commit them in batches.

    share: a share of PlanOperator's result. Without one the task plans by itself and reads all of it, and is skipped if
    nothing is new. Updates the asset staging/<dataset>, and that of the dataset's shared DAG, unless the dataset is a
    template.
    """

    template_fields: Sequence[str] = ("dataset", "share")
    template_fields_renderers: ClassVar[dict[str, str]] = {"share": "json"}

    def __init__(self, *, dataset: str, share: dict[str, Any] | None = None, **options: Any) -> None:
        if isinstance(dataset, str) and "{{" not in dataset:
            options.setdefault("outlets", [staging_asset(dataset), DRAINED])
        super().__init__(**options)
        self.dataset = dataset
        self.share = share

    def execute(self, context: Any) -> dict[str, Any]:
        """Read and commit; the result has the numbers of staged records and dead letters, and the seconds."""
        from headrace.airflow.compat import AirflowSkipException
        from headrace.airflow.connections import run_context, task_errors
        from headrace.ingest import runner as ingest
        from headrace.ingest.plan import Plan

        with task_errors():
            deployment, dataset = opened(self.datasets, self.dataset)
            shares = [self.share] if self.share is not None else _plan(deployment, dataset, parts=1)
            if not shares:
                raise AirflowSkipException(f"{dataset.name}: nothing new")
            planned = ingest.remaining_plan(deployment, Plan.from_dict(shares[0]))  # this may be a retry
            # a paced drain may take days: it ends before the task's time limit, and the next run continues
            max_seconds = None if dataset.max_records_per_s is None else PACED_S
            options = ingest.RunOptions(run=run_context(), max_seconds=max_seconds)
            result = ingest.drain_plan(deployment, dataset, planned, options=options)
        self._lineage = lambda: _drained(deployment, dataset, result.staged)
        for line in result.log_lines(planned):
            say(line)
        publish_dead_letters(deployment, dataset)
        if dataset.dag is not None and DRAINED in self.outlets:
            context["outlet_events"][DRAINED].add(shared_asset(dataset.dag))
        return {"staged": result.staged, "dead": result.dead, "seconds": round(result.seconds, 2)}


class LoadOperator(HeadraceOperator, ShortCircuitOperator):
    """Load a file; False, and the tasks behind it are skipped, if it was unchanged.

    file: below HEADRACE_DATA_DIR. Defaults to the declared one. replace, max_removed, again: as of `headrace load`.
    """

    template_fields: Sequence[str] = ("dataset", "file", "replace", "max_removed", "again")

    def __init__(
        self,
        *,
        dataset: str,
        file: str | None = None,
        replace: Flag = False,
        max_removed: float | str = 10,
        again: Flag = False,
        **options: Any,
    ) -> None:
        ours: dict[str, Any] = {"ignore_downstream_trigger_rules": False, "python_callable": _nothing}
        super().__init__(**(ours | options))
        self.dataset, self.file = dataset, file
        self.replace, self.max_removed, self.again = replace, max_removed, again

    def execute_callable(self) -> bool:
        """Load the file."""
        from headrace.airflow.connections import deployment, run_context, task_errors
        from headrace.ingest.load import LoadOptions, load_file
        from headrace.sources.file import below

        given = {name: getattr(self, name) for name in ("file", "replace", "max_removed", "again")}
        with task_errors():
            ours = deployment(project_of(self.datasets).settings())
            file = forms.read_text(given, "file")
            declared = ours.dataset(self.dataset).source.name
            path = None if file is None or file == declared else below(ours.settings.data_dir, file)
            outcome = load_file(
                ours,
                self.dataset,
                path=path,
                options=LoadOptions(
                    replace=forms.read_flag(given, "replace"),
                    max_removed=forms.read_number(given, "max_removed"),
                    again=forms.read_flag(given, "again"),
                    run=run_context(),
                ),
            )
        self._lineage = lambda: _drained(ours, ours.dataset(self.dataset), outcome.result.staged, path)
        say(outcome.summary())
        return not outcome.unchanged or bool(outcome.replaced)


class BuildOperator(HeadraceOperator):
    """Build all committed batches that are not yet built, in one dbt process, until a pass finds none.

    select: dbt's node selection. Defaults to every model. vars: dbt's variables. full_refresh: compute each selected
    model as a whole. Concurrent builds wait for each other.
    """

    template_fields: Sequence[str] = ("select", "vars", "full_refresh")

    def __init__(
        self,
        *,
        select: str | None = None,
        vars: dict[str, Any] | None = None,
        full_refresh: Flag = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.select, self.vars, self.full_refresh = select, vars, full_refresh

    def execute(self, context: Any) -> str:
        """Build; fail with the models and tests that failed."""
        from headrace.airflow.connections import build_settings, run_context, task_errors
        from headrace.marts.build import build

        given = {"select": self.select, "full_refresh": self.full_refresh}
        with task_errors():
            settings = build_settings(project_of(self.datasets).settings())
            result = build(
                settings,
                forms.read_text(given, "select"),
                self.vars,
                full_refresh=forms.read_flag(given, "full_refresh"),
                print_line=say,
                run=run_context(),
            )
        self._lineage = lambda: _built(settings, result)
        return result.summary()


class VerifyOperator(HeadraceOperator):
    """Compare ledger, rows, dead letters and claims; fail with the first finding.

    dataset: only this one. Defaults to all. deep: read the source again and compare every record.
    """

    template_fields: Sequence[str] = ("dataset", "deep")

    def __init__(self, *, dataset: str | None = None, deep: Flag = False, **options: Any) -> None:
        super().__init__(**options)
        self.dataset, self.deep = dataset, deep

    def execute(self, context: Any) -> str:
        """Compare everything."""
        from headrace.airflow.compat import AirflowFailException
        from headrace.airflow.connections import build_settings, deployment, task_errors
        from headrace.exceptions import SourceUnavailable
        from headrace.verify import verify

        project = project_of(self.datasets)
        given = {"dataset": self.dataset, "deep": self.deep}
        with task_errors():
            settings = project.settings()
            verification = verify(
                deployment(settings, registry=True),
                forms.read_text(given, "dataset"),
                deep=forms.read_flag(given, "deep"),
                build_settings=build_settings(settings),
            )
        for line in verification.lines():
            say(line)
        if verification.findings:
            raise AirflowFailException(shown(verification.findings[0].line()))
        if verification.errors and project.declarations().faults:
            raise AirflowFailException(shown(verification.errors[0]))  # a retry does not correct a declaration
        if verification.errors:
            raise SourceUnavailable(verification.errors[0])
        return verification.summary()


def _nothing() -> None:
    """Stand in for the callable that PythonOperator requires."""


def opened(datasets: str | None, name: str) -> "tuple[Deployment, Dataset]":
    """The deployment and the dataset of a task; its registry is looked up only if its format asks one."""
    from headrace.airflow.connections import deployment

    settings = project_of(datasets).settings()
    ours = deployment(settings)
    dataset = ours.dataset(name)
    if dataset.asks_registry:
        ours = deployment(settings, registry=True)
        dataset = ours.dataset(name)
    return ours, dataset


def _plan(deployment: "Deployment", dataset: "Dataset", parts: int | None = None) -> list[dict[str, Any]]:
    from headrace.airflow.compat import AirflowSkipException
    from headrace.airflow.connections import run_context
    from headrace.exceptions import TopicMissing
    from headrace.follow.leases import held_lease
    from headrace.ingest import runner as ingest

    if lease := held_lease(deployment, dataset.name):
        raise AirflowSkipException(shown(f"{lease.holder_name} follows {dataset.name}"))
    try:
        planned = ingest.plan(deployment, dataset, run=run_context())
    except TopicMissing as error:
        if ingest.is_known(deployment, dataset):
            raise
        raise AirflowSkipException(f"nothing to ingest yet: {error}") from error
    say(f"{dataset.name}: {planned.lag} offsets to read: {dict(planned.ranges)}")
    if not planned.ranges:
        publish_dead_letters(deployment, dataset)  # those that an earlier run could not publish: no drain follows
    settings = deployment.settings
    if parts is None:
        parts = settings.drain_parallel_max if planned.lag > settings.drain_parallel_lag else 1
    return [share.to_dict() for share in planned.split(parts)]


def publish_dead_letters(deployment: "Deployment", dataset: "Dataset") -> None:
    """Send a dataset's unpublished dead letters to its topic, if it has one; never fails the task."""
    from headrace.publish.dead_letter_topic import publish_after_drain

    published = publish_after_drain(deployment, dataset)
    if published:
        say(f"{dataset.name}: {published} dead letters published")


def _drained(deployment: "Deployment", dataset: "Dataset", rows: int, path: Path | None = None) -> "Lineage":
    from headrace.airflow.connections import postgres_parameters
    from headrace.airflow.lineage import Database, of_drain

    return of_drain(deployment, dataset, Database(postgres_parameters(deployment.settings)), rows, path)


def _built(settings: "Settings", result: "BuildResult") -> "Lineage":
    from headrace.airflow.lineage import Database, of_build
    from headrace.postgres.connection import connector, database
    from headrace.service_urls import libpq_parameters

    dsn = settings.require_dbt_dsn()
    with database(connector(dsn, "headrace lineage")) as connection:
        return of_build(connection, Database(libpq_parameters(dsn, "HEADRACE_DBT_DSN")), result)
