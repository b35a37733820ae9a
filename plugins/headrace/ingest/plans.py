"""The plans of many datasets, made together: a few queries and requests for all of them, not for each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import AnotherCluster, DatasetPaused, HeadraceError, SourceChanged, TopicMissing
from headrace.ingest import observations, runner
from headrace.ingest.identity import check_identity
from headrace.ingest.plan import Plan, make_plan
from headrace.ingest.prepare import prepare_table
from headrace.postgres.checkpoints import Generation, open_generations
from headrace.postgres.connection import database, translated_errors
from headrace.postgres.ledger import RunContext
from headrace.postgres.pauses import open_pauses
from headrace.settings import Settings
from headrace.sources.base import SourceState
from headrace.sources.together import describe_together

APPLICATION = "headrace plan"
PACK_DATASETS = 50  # a drain of a few records takes a fifth of a second: more datasets are several tasks


@dataclass(slots=True)
class Plans:
    """What planning many datasets found.

    plans: of the datasets with something to read. idle: nothing is new. absent: their topics do not exist yet.
    paused: their sources are not asked. errors: why the others could not be planned; they are stored, as `runner.plan`
    does. datasets: all of them.
    """

    plans: list[Plan] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    empty: dict[str, Plan] = field(default_factory=dict)  # of those that are idle
    absent: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    errors: dict[str, Exception] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)

    def add(self, plan: Plan) -> None:
        """Add the plan of a dataset."""
        if plan.ranges:
            self.plans.append(plan)
        else:
            self.idle.append(plan.dataset)
            self.empty[plan.dataset] = plan

    def packs(self, settings: Settings) -> list[list[Plan]]:
        """The plans as the work of tasks, the highest priority first, then the longest.

        A dataset with much to read has tasks of its own, as in its own DAG, and so has one whose rate limit would let
        others wait. The others are packed: a task costs about a second, a drain of a few records much less. Packs are
        at most HEADRACE_DRAIN_PARALLEL_MAX.
        """
        most, lag_max = settings.drain_parallel_max, settings.drain_parallel_lag
        alone: list[list[Plan]] = []
        small: list[Plan] = []
        for plan in sorted(self.plans, key=lambda plan: (-self.datasets[plan.dataset].priority, -plan.lag)):
            limit = self.datasets[plan.dataset].max_records_per_s
            if plan.lag > lag_max:
                alone += [[share] for share in plan.split(most)]
            elif limit is not None and plan.lag > limit:
                alone.append([plan])
            else:
                small.append(plan)
        wanted = max(math.ceil(sum(plan.lag for plan in small) / lag_max), math.ceil(len(small) / PACK_DATASETS))
        packs: list[list[Plan]] = [[] for _ in range(min(wanted, most))]
        for plan in small:
            min(packs, key=lambda pack: (sum(each.lag for each in pack), len(pack))).append(plan)
        return alone + packs


def plan_together(deployment: Deployment, datasets: Sequence[Dataset], run: RunContext) -> Plans:
    """Pin the offsets of a drain for each dataset; store observations and errors.

    What is not usual for a dataset, such as its first contact or new partitions, is left to `runner.plan`, one dataset
    after another. No dataset stops another one. Raises the errors of the common queries.
    """
    found = Plans()
    found.datasets = by_name = {dataset.name: dataset for dataset in _connected(deployment, datasets, found)}
    with database(deployment.connect(APPLICATION)) as connection:
        found.paused = list(open_pauses(connection, by_name))
        by_name = {name: dataset for name, dataset in by_name.items() if name not in found.paused}
        # before the sources are asked: after that, a checkpoint could be beyond the end that a source gave
        generations = open_generations(connection, by_name)
        states = describe_together(deployment, {name: dataset.source for name, dataset in by_name.items()})
        usual, changed = _judge(generations, states, found)
        if changed:  # adopted or read on meanwhile: `runner.plan` looks again
            now = open_generations(connection, changed)
            sure = {name: error for name, error in changed.items() if now.get(name) == generations[name]}
            observations.save_states(connection, dict(_kept(states, sure)))
            found.errors |= sure
        observations.save_errors(connection, found.errors, run)
        _plan_usual(connection, deployment, usual, found, run)
    for name in sorted(by_name.keys() - usual.keys() - found.errors.keys() - set(found.absent)):
        _plan_alone(deployment, by_name[name], run, found)
    return found


def _connected(deployment: Deployment, datasets: Sequence[Dataset], found: Plans) -> Iterator[Dataset]:
    """The datasets with the deployment's settings; adds an error for one that does not accept them."""
    for dataset in datasets:
        try:
            yield dataset.connected(deployment.settings)
        except HeadraceError as error:
            found.errors[dataset.name] = error


def _kept(
    states: Mapping[str, SourceState | HeadraceError], refused: Mapping[str, SourceChanged]
) -> Iterator[tuple[str, SourceState]]:
    """The states that are stored although they are refused; those of another cluster say nothing about a dataset."""
    for name, error in refused.items():
        state = states[name]
        if isinstance(state, SourceState) and not isinstance(error, AnotherCluster):
            yield name, state


def _judge(
    generations: Mapping[str, Generation], states: Mapping[str, SourceState | HeadraceError], found: Plans
) -> tuple[dict[str, tuple[Generation, SourceState]], dict[str, SourceChanged]]:
    """The datasets whose sources are those of their checkpoints, and why others are not; adds errors and absent ones.

    Left out are those with something to store about their sources, and those whose topic is gone: another cluster may
    answer.
    """
    usual: dict[str, tuple[Generation, SourceState]] = {}
    changed: dict[str, SourceChanged] = {}
    for name, state in states.items():
        generation = generations.get(name)
        if isinstance(state, TopicMissing):
            if generation is None:
                found.absent.append(name)
        elif isinstance(state, HeadraceError):
            found.errors[name] = state
        elif generation is not None:
            try:
                check_identity(generation, state)
            except SourceChanged as error:
                changed[name] = error
                continue
            is_same = set(state.partitions) == set(generation.next_offsets)
            if is_same and state.cluster_id in (None, generation.cluster_id):
                usual[name] = generation, state
    return usual, changed


def _plan_usual(
    connection: Connection[Any],
    deployment: Deployment,
    usual: Mapping[str, tuple[Generation, SourceState]],
    found: Plans,
    run: RunContext,
) -> None:
    """Plan datasets in the state in which nearly all are; only those with something to read prepare their tables."""
    observations.save_states(connection, {name: state for name, (_, state) in usual.items()})
    planned: list[Plan] = []
    refused: dict[str, Exception] = {}
    for name, (generation, state) in usual.items():
        plan = make_plan(generation, state)
        try:
            if plan.ranges:
                with translated_errors():
                    prepare_table(connection, found.datasets[name], deployment.settings.lock_timeout_ms)
        except Exception as error:
            if connection.closed:
                raise
            refused[name] = error
        else:
            planned.append(plan)
    observations.save_observations(connection, [plan.dataset for plan in planned])
    observations.save_errors(connection, refused, run)
    found.errors |= refused
    for plan in planned:
        found.add(plan)


def _plan_alone(deployment: Deployment, dataset: Dataset, run: RunContext, found: Plans) -> None:
    try:
        found.add(runner.plan(deployment, dataset, run=run))
    except DatasetPaused:
        found.paused.append(dataset.name)
    except TopicMissing as error:
        if runner.is_known(deployment, dataset):
            found.errors[dataset.name] = error
        else:
            found.absent.append(dataset.name)
    except Exception as error:
        if observations.is_unreachable(error):
            raise
        found.errors[dataset.name] = error
