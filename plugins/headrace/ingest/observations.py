"""What plans and drains record for `status`: lag, totals of the ledger, errors. Nothing else depends on it."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import psycopg
from psycopg import Connection

from headrace.exceptions import (
    AnotherCluster,
    CheckpointMoved,
    HeadraceError,
    RegistryRefused,
    SettingError,
    SourceRefused,
    TopicMissing,
    UsageError,
)
from headrace.ingest.plan import Plan
from headrace.ingest.totals import update_totals
from headrace.output import shown
from headrace.postgres.checkpoints import Checkpoints, register
from headrace.postgres.connection import DISK_FULL, UNREACHABLE, Connect, database
from headrace.postgres.ledger import RunContext
from headrace.sources.base import SourceState

KEEP = "1 day"
# errors about addresses, users and arguments of one process: a shell has its own, services the deployment's
OWN_SETTINGS = (SettingError, UsageError, AnotherCluster, SourceRefused, RegistryRefused)
# causes that are over for every dataset as soon as they are over for one: a dataset that is read once an hour need not
# be read again for its card to go
OVER_FOR_ALL = ("% does not answer", DISK_FULL)


def save_state(stored: Checkpoints, state: SourceState) -> None:
    """Store the offsets that a source reported, in a separate transaction, so that a refused plan keeps them."""
    with stored.connection.transaction():
        stored.register()
        save_states(stored.connection, {stored.dataset: state})


def save_states(connection: Connection[Any], states: Mapping[str, SourceState]) -> None:
    """Store the offsets that the sources of registered datasets reported."""
    rows = [
        (dataset, partition, found.log_start_offset, found.end_offset, found.high_watermark)
        for dataset, state in sorted(states.items())
        for partition, found in sorted(state.partitions.items())
    ]
    connection.execute(
        """
        insert into headrace.observations (dataset, partition, log_start_offset, end_offset, high_watermark)
        select * from unnest(%s::text[], %s::integer[], %s::bigint[], %s::bigint[], %s::bigint[])
        on conflict (dataset, partition) do update set
            log_start_offset = excluded.log_start_offset,
            end_offset = excluded.end_offset,
            high_watermark = excluded.high_watermark,
            error = null,
            command = null,
            observed_at = clock_timestamp()
        """,
        [list(column) for column in zip(*rows, strict=True)] or [[]] * 5,
    )


def save_observation(stored: Checkpoints) -> None:
    """Sample the lag that a plan saw; see `save_observations`."""
    save_observations(stored.connection, [stored.dataset])


def save_observations(connection: Connection[Any], datasets: Collection[str]) -> None:
    """Sample the lags that plans saw, once a minute, and add the ledger's new lines to the totals.

    The plans succeeded, so earlier errors are cleared, also on partitions that the source no longer has, and those of
    other datasets with the same cause.
    """
    names = sorted(datasets)
    with connection.transaction():
        _clear_errors(connection, names)
        # the largest lag of a minute is kept: a follower plans every second, mostly without lag
        sampled = connection.execute(
            """
            insert into headrace.samples (
                dataset, generation, partition, minute, end_offset, next_offset, observed_at
            )
            select
                c.dataset, c.generation, c.partition, date_trunc('minute', o.observed_at), o.end_offset,
                c.next_offset, o.observed_at
            from headrace.checkpoints as c
            inner join headrace.generations as g
                on g.dataset = c.dataset and g.generation = c.generation and g.is_open
            inner join headrace.observations as o on o.dataset = c.dataset and o.partition = c.partition
            where c.dataset = any(%(datasets)s) and o.end_offset is not null and not c.is_closed
            order by c.dataset, c.partition
            on conflict (dataset, generation, partition, minute) do update set
                end_offset = excluded.end_offset,
                next_offset = excluded.next_offset,
                observed_at = excluded.observed_at
            where samples.end_offset - samples.next_offset < excluded.end_offset - excluded.next_offset
            returning xmax = 0 as is_new
            """,
            {"datasets": names},
        ).fetchall()
        if any(is_new for (is_new,) in sampled):
            connection.execute(
                "delete from headrace.samples where dataset = any(%s) and minute < now() - %s::interval", (names, KEEP)
            )
        update_totals(connection, names)


def save_nothing_new(connection: Connection[Any], dataset: str) -> None:
    """Store that the source has nothing new; clear an earlier error."""
    connection.execute(
        "update headrace.observations set observed_at = clock_timestamp() where dataset = %s", (dataset,)
    )
    _clear_errors(connection, [dataset])


def _clear_errors(connection: Connection[Any], datasets: Collection[str]) -> None:
    """Clear the errors of datasets whose sources could be read, and those of other datasets that had the same cause.

    Likewise the drains of others that failed with the cause of a drain of these that is committed by now.
    """
    names = list(datasets)
    found = connection.execute(
        """
        select true, o.cause
        from headrace.observations as o
        where o.dataset = any(%(datasets)s) and (o.error is not null or o.error_since is not null)
        union
        select false, f.cause
        from headrace.failures as f
        inner join headrace.checkpoints as c
            on c.dataset = f.dataset and c.generation = f.generation and c.partition = f.partition
        where f.dataset = any(%(datasets)s) and f.cause like any(%(over)s) and c.next_offset >= f.end_offset
        """,
        {"datasets": names, "over": list(OVER_FOR_ALL)},
    ).fetchall()
    if not found:
        return
    connection.execute(
        "update headrace.observations set error = null, command = null, cause = null, error_since = null "
        "where dataset = any(%s) and (error is not null or error_since is not null)",
        (names,),
    )
    values = {"causes": [cause for _, cause in found if cause], "over": list(OVER_FOR_ALL)}
    if not values["causes"]:
        return
    for statement in (_CLEAR_PLANS, _CLEAR_DRAINS):
        connection.execute(statement, values)


# of other datasets: a row that another run has locked is left to it, so that no two runs wait for each other
_CLEAR_PLANS = """
    with same as (
        select dataset, partition from headrace.observations
        where cause = any(%(causes)s) and cause like any(%(over)s)
        for update skip locked
    )
    update headrace.observations as o
    set error = null, command = null, cause = null, error_since = null
    from same
    where o.dataset = same.dataset and o.partition = same.partition
"""
_CLEAR_DRAINS = """
    with same as (
        select dataset, partition from headrace.failures
        where cause = any(%(causes)s) and cause like any(%(over)s)
        for update skip locked
    )
    update headrace.failures as f
    set end_offset = 0, cause = null -- no checkpoint is below 0: it is over
    from same
    where f.dataset = same.dataset and f.partition = same.partition
"""


def save_failure(connect: Connect, dataset: str, error: Exception, run: RunContext | None = None) -> None:
    """Store the error of a plan; do nothing if Postgres cannot be reached or cannot store it.

    A missing topic that was never read is not an error: it has no records yet. run: of the task or the follower that
    met it; None for a shell. OWN_SETTINGS are errors of the dataset only for the former: a shell's user reads the
    message.
    """
    if is_unreachable(error) or (isinstance(error, OWN_SETTINGS) and run is None):
        return
    with suppress(Exception), database(connect) as connection:
        if isinstance(error, TopicMissing) and Checkpoints(connection, dataset).open_generation() is None:
            return
        save_error(connection, dataset, error, run)


def save_error(connection: Connection[Any], dataset: str, error: Exception, run: RunContext | None = None) -> None:
    """Store the error of a plan until the next one succeeds; see `save_errors`."""
    save_errors(connection, {dataset: error}, run)


def save_errors(connection: Connection[Any], errors: Mapping[str, Exception], run: RunContext | None = None) -> None:
    """Store the errors of plans until the next ones succeed; on partition 0 of a dataset that has none.

    The last observed offsets and their time stay, and so does the beginning of an error that goes on. Datasets with the
    same error, as of one broker, are stored together.
    """
    same: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for dataset, error in sorted(errors.items()):
        stored = _stored(error, run)
        same.setdefault(repr(stored), (stored, []))[1].append(dataset)
    for stored, names in same.values():
        values = {"datasets": names, **stored}
        with connection.transaction():
            register(connection, names)
            connection.execute(_STORE_ON_ALL, values)
            connection.execute(_STORE_ON_FIRST, values)


_STORE_ON_ALL = """
    update headrace.observations as o
    set
        error = %(error)s,
        command = %(command)s,
        cause = %(cause)s,
        error_since = coalesce(
            (
                select min(f.error_since)
                from headrace.observations as f
                where f.dataset = o.dataset and f.cause is not distinct from %(cause)s
            ),
            clock_timestamp()
        ),
        dag_id = %(dag_id)s,
        run_id = %(run_id)s,
        task_id = %(task_id)s,
        try_number = %(try_number)s,
        map_index = %(map_index)s
    where o.dataset = any(%(datasets)s)
"""
_STORE_ON_FIRST = """
    insert into headrace.observations (
        dataset, partition, error, command, cause, error_since, dag_id, run_id, task_id, try_number, map_index
    )
    select
        named.dataset, 0, %(error)s, %(command)s::text[], %(cause)s, clock_timestamp(), %(dag_id)s, %(run_id)s,
        %(task_id)s, %(try_number)s::integer, %(map_index)s::integer
    from unnest(%(datasets)s::text[]) as named (dataset)
    where not exists (select from headrace.observations as o where o.dataset = named.dataset)
    on conflict (dataset, partition) do nothing
"""


def save_drain_failure(connect: Connect, planned: Plan, error: BaseException, run: RunContext | None = None) -> None:
    """Store the error of a drain until its planned ranges are committed; do nothing if Postgres cannot be reached.

    A drain whose range another run committed has not failed. run: as for `save_failure`.
    """
    if not planned.ranges or isinstance(error, CheckpointMoved) or is_unreachable(error):
        return
    if isinstance(error, OWN_SETTINGS) and run is None:
        return
    with suppress(Exception), database(connect) as connection:
        connection.execute(
            _STORE_DRAIN,
            {
                "dataset": planned.dataset,
                "generation": planned.generation,
                **_stored(error, run),
                "partitions": list(planned.ends),
                "ends": list(planned.ends.values()),
            },
        )


_STORE_DRAIN = """
    insert into headrace.failures as f (
        dataset, partition, generation, end_offset, error, command, cause, failing_since, dag_id, run_id,
        task_id, try_number, map_index
    )
    select
        %(dataset)s, partition, %(generation)s, end_offset, %(error)s, %(command)s::text[], %(cause)s,
        clock_timestamp(), %(dag_id)s, %(run_id)s, %(task_id)s, %(try_number)s::integer,
        %(map_index)s::integer
    from unnest(%(partitions)s::integer[], %(ends)s::bigint[]) as planned (partition, end_offset)
    order by partition
    on conflict (dataset, partition) do update set
        generation = excluded.generation,
        end_offset = excluded.end_offset,
        error = excluded.error,
        command = excluded.command,
        cause = excluded.cause,
        failed_at = excluded.failed_at,
        -- a failure that is not over goes on
        failing_since = case
            when exists (
                select from headrace.checkpoints as c
                where
                    c.dataset = f.dataset
                    and c.generation = f.generation
                    and c.partition = f.partition
                    and c.next_offset < f.end_offset
                    and f.generation = excluded.generation
            ) then coalesce(f.failing_since, f.failed_at)
            else excluded.failing_since
        end,
        dag_id = excluded.dag_id,
        run_id = excluded.run_id,
        task_id = excluded.task_id,
        try_number = excluded.try_number,
        map_index = excluded.map_index
"""


def _stored(error: BaseException, run: RunContext | None) -> dict[str, Any]:
    """The columns of an error and of the run that met it."""
    ours = error if isinstance(error, HeadraceError) else None
    return {
        "error": one_line(error),
        "command": None if ours is None or ours.command is None else list(ours.command.arguments),
        "cause": None if ours is None else ours.cause,
        **asdict(run or RunContext()),
    }


def one_line(error: BaseException) -> str:
    """An error as it is stored."""
    text = " ".join(str(error).split())
    if isinstance(error, HeadraceError):
        return text
    return shown(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def is_unreachable(error: BaseException) -> bool:
    """Whether the error is that Postgres does not answer: storing it would fail in the same way."""
    cause = error.__cause__
    if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return cause.sqlstate is None or cause.sqlstate.startswith(UNREACHABLE)
