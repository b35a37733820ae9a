"""The load of a file: an unchanged one is skipped, a changed one merged; absent entities are kept, or tombstoned."""

import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import Connection

from headrace.command import Command
from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import DatasetError
from headrace.ingest import observations
from headrace.ingest.absent import MAX_REMOVED, EntitySurvey, count_absent, survey, tombstone_absent
from headrace.ingest.drain import DrainResult
from headrace.ingest.exclusive import exclusive
from headrace.ingest.plan import Plan
from headrace.ingest.runs import drain_plan, open_source, plan
from headrace.postgres import checkpoints, staging
from headrace.postgres.connection import database
from headrace.postgres.ledger import RunContext
from headrace.sources.base import Range


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What became of a file: skipped because unchanged, or what was loaded; and who is no longer in it.

    newer: the file that was loaded since this one, which is why an unchanged one is not loaded over it. undecided:
    invalid lines that do not tell whose they are, for which --replace removed nothing.
    """

    path: Path
    unchanged: bool
    result: DrainResult
    absent: int
    replaced: int
    newer: str | None = None
    undecided: int = 0

    def summary(self) -> str:
        """What happened, in one line."""
        name = self.result.dataset
        loaded = f"unchanged, skipped {self.path.name}"
        if self.newer is not None:
            return f"{name}: {loaded}: {self.newer} was loaded since; --again loads it over that"
        if not self.unchanged:
            loaded = f"{self.result.staged} staged and {self.result.dead} dead from {self.path.name}"
        if self.replaced:
            return f"{name}: {loaded}; {self.replaced} no longer in the file: tombstoned"
        if not self.absent:
            return f"{name}: {loaded}"
        why = "--replace tombstones them"
        if self.undecided:
            why = f"{self.undecided} invalid lines do not tell whose they are; correct them and --replace again"
        return f"{name}: {loaded}; {self.absent} no longer in the file: kept ({why})"


def load_file(
    deployment: Deployment,
    name: str,
    *,
    path: Path | None = None,
    replace: bool = False,
    max_removed: float = MAX_REMOVED,
    again: bool = False,
    run: RunContext | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> LoadResult:
    """Load a file dataset: an unchanged file (by sha256) is skipped, a changed one merged as a new generation.

    A file is unchanged when its content is what was loaded from this path last, also if another file was loaded since:
    the hourly load of the dataset's own file does not undo a correction. again: load it nevertheless.
    Entities that an earlier file named and this one does not are kept and counted; `replace` tombstones them. It
    raises DatasetError, before anything is loaded, for a file without a valid record and where more than max_removed
    percent of the entities would go, and CheckpointMoved when another load was faster.
    """
    dataset = deployment.dataset(name)
    if not dataset.source.is_file:
        drain = Command("drain", name)
        raise DatasetError(f"{name}: comes from a topic, expected a file; use `{drain}`", command=drain)
    connect = deployment.connect(f"headrace load {name}")
    found_path = path or deployment.settings.data_dir / dataset.source.name
    registered_path = _registered_path(deployment, found_path)
    with ExitStack() as stack:
        try:
            source = stack.enter_context(closing(open_source(deployment, dataset, path)))
            state = source.describe()
            with database(connect) as connection, connection.transaction():
                checkpoints.register(connection, name)
                staging.ensure_table(connection, dataset)
        except Exception as error:
            if path is None:  # as `plan` does
                observations.save_failure(connect, name, error, is_task=run is not None)
            raise
        end = state.partitions[0].end_offset
        surveyed = EntitySurvey()
        with database(connect) as connection:
            newer = None if again else _loaded_since(connection, name, registered_path, state.topic_id)
            if newer is not None and not replace:
                if path is None:
                    observations.save_nothing_new(connection, name)
                return LoadResult(found_path, True, DrainResult(name), 0, 0, newer)
            if newer is not None:
                raise DatasetError(
                    f"{name}: found {found_path} unchanged since it was loaded, and {newer} loaded after it, expected "
                    "a file that changed; nothing was changed; --replace --again loads it over that"
                )
            if replace:
                surveyed = survey(connection, dataset, source, Range(state.partitions[0].log_start_offset, end))
                surveyed.check(dataset, found_path, max_removed)
        planned = plan(deployment, dataset, source=source, path=path, run=run)
        result = drain_plan(
            deployment,
            dataset,
            planned,
            source=source,
            path=path,
            run=run,
            on_progress=lambda so_far: on_progress(so_far.records + so_far.empty, planned.lag),
        )
    retries = deployment.retries()
    retries.run(lambda: _remember(deployment, dataset, registered_path, planned))

    def settle_absent() -> tuple[int, int]:
        with exclusive(deployment, dataset, "load") as connection:
            if replace and not surveyed.undecided:
                context = run or RunContext()
                return 0, tombstone_absent(connection, dataset, planned.generation, end, surveyed, max_removed, context)
            return count_absent(connection, dataset, planned.generation, surveyed.named_by_invalid), 0

    absent, replaced = retries.run(settle_absent)
    return LoadResult(found_path, not planned.ranges, result, absent, replaced, None, surveyed.undecided)


def _registered_path(deployment: Deployment, path: Path) -> str:
    """What a file is known by: its path below the data directory, the same on every machine, or its absolute one.

    A link is known by its own name: what it leads to is its content.
    """
    root = deployment.settings.data_dir
    for found, folder in ((path.absolute(), root.absolute()), (path.resolve(), root.resolve())):
        normal = Path(os.path.normpath(found))
        if normal.is_relative_to(folder):
            return str(normal.relative_to(folder))
    return os.path.normpath(path.absolute())


def _loaded_since(connection: Connection[Any], dataset: str, registered_path: str, sha256: str) -> str | None:
    """The file that was loaded after this content of this one, or None."""
    with connection.transaction():
        row = connection.execute(
            """
            select open.topic
            from headrace.loaded_files as loaded
            inner join headrace.generations as open on open.dataset = loaded.dataset and open.is_open
            where
                loaded.dataset = %s
                and loaded.path = %s
                and loaded.sha256 = %s
                and open.topic_id <> loaded.sha256
            """,
            (dataset, registered_path, sha256),
        ).fetchone()
        if row is None:
            return None
        # it was looked at: its file is there and as it was
        connection.execute(
            "update headrace.observations set observed_at = clock_timestamp(), error = null, command = null "
            "where dataset = %s",
            (dataset,),
        )
        return str(row[0])


def _remember(deployment: Deployment, dataset: Dataset, registered_path: str, planned: Plan) -> None:
    """Note that this content of this file is loaded; in a transaction of its own, whatever becomes of the rest."""
    with database(deployment.connect(f"headrace load {dataset.name}")) as connection:
        connection.execute(
            """
            insert into headrace.loaded_files as loaded (dataset, path, sha256, generation)
            select %(dataset)s, %(path)s, %(sha256)s, generation
            from headrace.generations
            where dataset = %(dataset)s and generation = %(generation)s
            on conflict (dataset, path) do update set
                sha256 = excluded.sha256,
                generation = excluded.generation,
                loaded_at = clock_timestamp()
            where loaded.generation < excluded.generation
            """,
            {
                "dataset": dataset.name,
                "path": registered_path,
                "sha256": planned.topic_id,
                "generation": planned.generation,
            },
        )
