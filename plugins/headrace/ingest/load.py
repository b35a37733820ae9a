"""The load of a file: an unchanged file is skipped, a changed one merged; absent entities are kept or tombstoned."""

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
from headrace.exceptions import DatasetError, DatasetPaused
from headrace.ingest import observations
from headrace.ingest.absent import MAX_REMOVED, EntitySurvey, LoadedFile, count_absent, survey, tombstone_absent
from headrace.ingest.drain import DrainResult
from headrace.ingest.exclusive import exclusive
from headrace.ingest.opening import open_source
from headrace.ingest.plan import Plan
from headrace.ingest.prepare import prepare_table
from headrace.ingest.runner import RunOptions, drain_plan, plan
from headrace.postgres.connection import Connect, database
from headrace.postgres.ledger import RunContext
from headrace.postgres.pauses import refuse_paused
from headrace.sources.base import Range, Source, SourceState


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The outcome of a load: skipped because unchanged, or the loaded rows; and the absent entities.

    newer: the file that was loaded after this unchanged one, and therefore is not overwritten. undecided: invalid lines
    whose key cannot be read; because of them --replace removed nothing.
    """

    path: Path
    unchanged: bool
    result: DrainResult
    absent: int
    replaced: int
    newer: str | None = None
    undecided: int = 0

    def summary(self) -> str:
        """The result in one line."""
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
            why = f"{self.undecided} invalid lines have no readable key; correct them and --replace again"
        return f"{name}: {loaded}; {self.absent} no longer in the file: kept ({why})"

    def document(self) -> dict[str, Any]:
        """The result as JSON types. absent: entities that the file does not name; replaced: those tombstoned."""
        return {
            "dataset": self.result.dataset,
            "path": str(self.path),
            "unchanged": self.unchanged,
            "newer": self.newer,
            "staged": self.result.staged,
            "dead": self.result.dead,
            "reasons": dict(self.result.reasons.most_common()),
            "absent": self.absent,
            "replaced": self.replaced,
            "undecided": self.undecided,
            "seconds": round(self.result.seconds, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What a load does in addition to merging a changed file.

    replace: tombstone absent entities, unless these are more than max_removed percent of all. again: load an unchanged
    file. run: the loading run, for the ledger. on_progress: called with the committed and the planned offsets.
    """

    replace: bool = False
    max_removed: float = MAX_REMOVED
    again: bool = False
    run: RunContext | None = None
    on_progress: Callable[[int, int], None] = lambda _done, _total: None


DEFAULT_OPTIONS = LoadOptions()


@dataclass(frozen=True, slots=True)
class _Load:
    """A file dataset and the file to load; path: None for the declared one."""

    deployment: Deployment
    dataset: Dataset
    path: Path | None
    options: LoadOptions

    @property
    def connect(self) -> Connect:
        return self.deployment.connect(f"headrace load {self.dataset.name}")

    @property
    def found_path(self) -> Path:
        return self.path or self.deployment.settings.data_dir / self.dataset.source.name

    @property
    def registered_path(self) -> str:
        return _registered_path(self.deployment, self.found_path)


def load_file(
    deployment: Deployment, name: str, *, path: Path | None = None, options: LoadOptions = DEFAULT_OPTIONS
) -> LoadResult:
    """Load a file dataset: an unchanged file (by sha256) is skipped, a changed one merged as a new generation.

    A file is unchanged if its content is the last that was loaded from this path, even if another file was loaded
    since: the hourly load of the dataset's own file does not undo a correction.
    Absent entities are kept and counted, or tombstoned with `replace`. That raises DatasetError, before anything is
    loaded, for a file without a valid record and if more than max_removed percent of the entities would be removed. It
    raises CheckpointMoved if another load was faster.
    """
    dataset = deployment.dataset(name)
    if not dataset.source.is_file:
        drain = Command("drain", name)
        raise DatasetError(f"{name}: comes from a topic, expected a file; use `{drain}`", command=drain)
    load = _Load(deployment, dataset, path, options)
    surveyed = EntitySurvey()
    with ExitStack() as stack:
        source, state = _opened(load, stack)
        with database(load.connect) as connection:
            newer = _newer_file(connection, load, state)
            if newer is not None:
                return LoadResult(load.found_path, True, DrainResult(name), 0, 0, newer)
            if options.replace:
                first, end = state.partitions[0].log_start_offset, state.partitions[0].end_offset
                surveyed = survey(connection, dataset, source, Range(first, end))
                surveyed.check(dataset, load.found_path, options.max_removed)
        planned = plan(deployment, dataset, source=source, path=path, run=options.run)
        run_options = RunOptions(
            run=options.run,
            on_progress=lambda so_far: options.on_progress(so_far.offsets, planned.lag),
        )
        result = drain_plan(deployment, dataset, planned, source=source, path=path, options=run_options)
    retries = deployment.retries()
    retries.run(lambda: _remember(load, planned))
    end = state.partitions[0].end_offset
    absent, replaced = retries.run(lambda: _settle_absent(load, planned, end, surveyed))
    return LoadResult(load.found_path, not planned.ranges, result, absent, replaced, None, surveyed.undecided)


def _opened(load: _Load, stack: ExitStack) -> tuple[Source, SourceState]:
    """Open the file and prepare the dataset's table; a failure is stored as `plan` stores it."""
    try:
        source = stack.enter_context(closing(open_source(load.deployment, load.dataset, load.path)))
        state = source.describe()
        with database(load.connect) as connection:
            refuse_paused(connection, load.dataset.name)
            prepare_table(connection, load.dataset)
    except DatasetPaused:
        raise
    except Exception as error:
        if load.path is None:
            observations.save_failure(load.connect, load.dataset.name, error, load.options.run)
        raise
    return source, state


def _newer_file(connection: Connection[Any], load: _Load, state: SourceState) -> str | None:
    """The file that was loaded after this unchanged one, which is therefore skipped; None if there is none.

    Raises DatasetError with `replace`: it would tombstone entities that only the newer file names.
    """
    name = load.dataset.name
    newer = None if load.options.again else _loaded_since(connection, name, load.registered_path, state.topic_id)
    if newer is None:
        return None
    if load.options.replace:
        raise DatasetError(
            f"{name}: found {load.found_path} unchanged since it was loaded, and {newer} loaded after it, expected "
            "a file that changed; nothing was changed; --replace --again loads it over that"
        )
    if load.path is None:
        observations.save_nothing_new(connection, name)
    return newer


def _settle_absent(load: _Load, planned: Plan, end: int, surveyed: EntitySurvey) -> tuple[int, int]:
    """Count or tombstone the absent entities; return how many were kept and how many tombstoned."""
    dataset, options = load.dataset, load.options
    with exclusive(load.deployment, dataset, "load") as connection:
        if options.replace and not surveyed.undecided:
            loaded = LoadedFile(planned.generation, end, surveyed)
            return 0, tombstone_absent(connection, dataset, loaded, options.max_removed, options.run or RunContext())
        return count_absent(connection, dataset, planned.generation, surveyed.named_by_invalid), 0


def _registered_path(deployment: Deployment, path: Path) -> str:
    """The path under which a file is registered: relative to the data directory if it is below it, else absolute.

    A link is registered by its own path, with the content of its target.
    """
    root = deployment.settings.data_dir
    for found, folder in ((path.absolute(), root.absolute()), (path.resolve(), root.resolve())):
        normal = Path(os.path.normpath(found))
        if normal.is_relative_to(folder):
            return str(normal.relative_to(folder))
    return os.path.normpath(path.absolute())


def _loaded_since(connection: Connection[Any], dataset: str, registered_path: str, sha256: str) -> str | None:
    """The file that was loaded after this content of this file, or None."""
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
        # the file exists and is unchanged: an observation without an error
        connection.execute(
            "update headrace.observations set observed_at = clock_timestamp(), error = null, command = null "
            "where dataset = %s",
            (dataset,),
        )
        return str(row[0])


def _remember(load: _Load, planned: Plan) -> None:
    """Store that this content of this file is loaded, in a separate transaction, so that it survives a later error."""
    with database(load.connect) as connection:
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
                "dataset": load.dataset.name,
                "path": load.registered_path,
                "sha256": planned.topic_id,
                "generation": planned.generation,
            },
        )
