"""The operators of a DAG that several datasets share: plan all of them, drain packs of them, report what failed.

A dataset that fails stops none of the others: `report` fails the run, when the others are drained.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import AssetAlias

from headrace.airflow.dag_defaults import shared_asset, staging_asset
from headrace.airflow.operators import HeadraceOperator, opened, publish_dead_letters
from headrace.airflow.project import project_of
from headrace.catalog import Declarations
from headrace.output import say, shown

if TYPE_CHECKING:
    from headrace.ingest.plans import Plans

FAILURES = "failures"  # XCom of the plan: what could not be planned, by dataset
TOLD_MAX = 10  # datasets that a failed run names with their errors; the page and the log have all


class SharedPlanOperator(HeadraceOperator):
    """Plan all datasets of a shared DAG; its result is a list of packs, one for each mapped PackDrainOperator.

    dag_key: the `dag` of their declarations. declared: what the DAG was made of; read again if it is not given.
    Skipped if nothing is new and nothing failed. Datasets that are paused or held by a follower, and those whose topics
    do not exist yet, are left out. Fails if none can be planned; Airflow then tries again.
    """

    template_fields: Sequence[str] = ("dag_key",)

    def __init__(
        self, *, dag_key: str, datasets: Path | str | None = None, declared: Declarations | None = None, **options: Any
    ) -> None:
        super().__init__(datasets=datasets, **options)
        self.dag_key = dag_key
        self._declared = declared

    def execute(self, context: Any) -> list[list[dict[str, Any]]]:
        """Pin the offsets."""
        from headrace.airflow.compat import AirflowSkipException
        from headrace.airflow.connections import deployment, run_context, task_errors
        from headrace.follow.leases import held_leases
        from headrace.ingest.plans import plan_together

        with task_errors():
            declared = self._declared or project_of(self.datasets).declarations()
            ours = deployment(project_of(self.datasets).settings())
            datasets = {dataset.name: dataset for dataset in declared.shared.get(self.dag_key, [])}
            leases = held_leases(ours, datasets)
            for lease in leases.values():
                say(shown(f"{lease.holder_name} follows {lease.dataset}"))
            wanted = [dataset for name, dataset in datasets.items() if name not in leases]
            planned = plan_together(ours, wanted, run_context())
            _tell(planned)
            if planned.errors and not (planned.plans or planned.idle or planned.absent or planned.paused):
                raise next(iter(planned.errors.values()))
            _publish_left_dead_letters(self.datasets, [each for each in wanted if each.name in planned.idle])
            packs = planned.packs(ours.settings)
            if not packs and not planned.errors:
                raise AirflowSkipException(f"nothing new in {len(datasets)} datasets")
            context["ti"].xcom_push(key=FAILURES, value=texts(planned.errors))
            return [[plan.to_dict() for plan in pack] for pack in packs]


def alias_of(key: str) -> str:
    """The name of the AssetAlias that resolves to the assets of a shared DAG's datasets."""
    return f"staging/{key}"


class PackDrainOperator(HeadraceOperator):
    """Drain a pack of SharedPlanOperator's result, one dataset after another, each up to the end that the plan pinned.

    By the AssetAlias among its outlets it updates the assets staging/<dataset> of those that committed something, also
    in an attempt that was killed, and the asset of the shared DAG. Its result has the numbers of staged records and
    dead letters, the seconds, and the datasets that failed.
    """

    template_fields: Sequence[str] = ("pack",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"pack": "json"}

    def __init__(self, *, pack: list[dict[str, Any]], dag_key: str, **options: Any) -> None:
        super().__init__(**options)  # its outlets are given to `partial`: Airflow does not ask a mapped operator's
        self.pack, self.dag_key = pack, dag_key

    def execute(self, context: Any) -> dict[str, Any]:
        """Read and commit."""
        from headrace.airflow.connections import run_context, task_errors
        from headrace.ingest.packs import drain_pack
        from headrace.ingest.plan import Plan
        from headrace.ingest.runner import RunOptions

        def tell(deployment: Any, dataset: Any, plan: Plan, result: Any) -> None:
            say(result.summary(plan))
            publish_dead_letters(deployment, dataset)

        with task_errors():
            plans = [Plan.from_dict(share) for share in self.pack]
            done = drain_pack(lambda name: opened(self.datasets, name), plans, RunOptions(run=run_context()), tell)
        events = context["outlet_events"][AssetAlias(alias_of(self.dag_key))]
        for name in sorted(done.committed):
            events.add(staging_asset(name))
        if done.committed:
            events.add(shared_asset(self.dag_key))
        failures = texts(done.errors)
        for text in failures.values():
            say(text)
        return {
            "datasets": len(done.drained),
            "staged": sum(each.staged for each in done.drained),
            "dead": sum(each.dead for each in done.drained),
            "seconds": round(sum(each.seconds for each in done.drained), 2),
            FAILURES: failures,
        }


class ReportOperator(HeadraceOperator):
    """Fail with the datasets that could not be planned or drained; the others are done by then."""

    template_fields: Sequence[str] = ("planned", "drained")

    def __init__(self, *, planned: Any, drained: Any, **options: Any) -> None:
        super().__init__(**options)
        self.planned, self.drained = planned, drained

    def execute(self, context: Any) -> None:
        """Fail, or do nothing."""
        from headrace.airflow.compat import AirflowFailException

        failures: dict[str, str] = dict(self.planned or {})
        for result in self.drained or ():
            failures |= result[FAILURES]
        if failures:
            raise AirflowFailException(summary(failures))


def texts(errors: Mapping[str, Exception]) -> dict[str, str]:
    """One line for each dataset that failed."""
    from headrace.ingest.observations import one_line

    return {name: shown(one_line(error)) for name, error in sorted(errors.items())}


def summary(failures: Mapping[str, str]) -> str:
    """One line for all datasets that failed; those with the same error are named together."""
    same: dict[str, list[str]] = {}
    for name, text in sorted(failures.items()):
        same.setdefault(text, []).append(name)
    told = [_told(names, text) for text, names in list(same.items())[:TOLD_MAX]]
    if len(same) > TOLD_MAX:
        told.append(f"and {len(same) - TOLD_MAX} other errors, which `headrace status` shows")
    datasets = "1 dataset" if len(failures) == 1 else f"{len(failures)} datasets"
    return f"{datasets} failed, the others are done: " + " | ".join(told)


def _told(names: Sequence[str], text: str) -> str:
    if len(names) == 1 and text.startswith(names[0]):  # most errors begin with their dataset
        return text
    rest = len(names) - TOLD_MAX
    return f"{', '.join(names[:TOLD_MAX])}{f' and {rest} others' if rest > 0 else ''}: {text}"


def _tell(planned: "Plans") -> None:
    for plan in planned.plans:
        say(f"{plan.dataset}: {plan.lag} offsets to read: {dict(plan.ranges)}")
    if planned.absent:
        say(f"no topic yet: {', '.join(sorted(planned.absent))}")
    if planned.paused:
        say(f"paused: {', '.join(sorted(planned.paused))}")
    for text in texts(planned.errors).values():
        say(text)
    say(f"{len(planned.plans)} datasets to drain, {len(planned.idle)} without anything new")


def _publish_left_dead_letters(folder: str | None, idle: Sequence[Any]) -> None:
    """Publish what an earlier run could not: of these datasets no drain follows."""
    with_topic = [dataset.name for dataset in idle if dataset.source.dead_letter_topic is not None]
    if not with_topic:
        return
    from headrace.airflow.connections import deployment
    from headrace.publish.dead_letter_topic import with_unpublished

    for name in with_unpublished(deployment(project_of(folder).settings()), with_topic):
        publish_dead_letters(*opened(folder, name))
