"""What plans and drains record for `status`: lag, totals of the ledger, errors. Nothing else depends on it."""

from collections.abc import Collection, Mapping
from contextlib import suppress
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
from headrace.output import shown
from headrace.postgres.checkpoints import Checkpoints, register
from headrace.postgres.connection import UNREACHABLE, Connect, database
from headrace.sources.base import SourceState

KEEP = "1 day"
# errors about addresses, users and arguments of one process: a shell has its own, services the deployment's
OWN_SETTINGS = (SettingError, UsageError, AnotherCluster, SourceRefused, RegistryRefused)
TOTALS_EVERY_LINES = 200  # that many are summed in a millisecond


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

    The plans succeeded, so earlier errors are cleared, also on partitions that the source no longer has.
    """
    names = sorted(datasets)
    with connection.transaction():
        connection.execute(
            "update headrace.observations set error = null, command = null "
            "where dataset = any(%s) and error is not null",
            (names,),
        )
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
        "update headrace.observations set error = null, command = null, observed_at = clock_timestamp() "
        "where dataset = %s",
        (dataset,),
    )


def update_totals(connection: Connection[Any], datasets: Collection[str], lines: int = TOTALS_EVERY_LINES) -> None:
    """Add a dataset's ledger lines to headrace.totals if more than `lines` are new."""
    connection.execute(
        """
        insert into headrace.totals (dataset, generation, partition, to_seq, staged, dead, tombstones, ignored)
        select
            c.dataset,
            c.generation,
            c.partition,
            d.last_seq,
            coalesce(t.staged, 0) + coalesce(sum(b.staged), 0),
            coalesce(t.dead, 0) + coalesce(sum(b.dead), 0),
            coalesce(t.tombstones, 0) + coalesce(sum(b.tombstones), 0),
            coalesce(t.ignored, 0) + coalesce(sum(b.ignored), 0)
        from headrace.checkpoints as c
        inner join headrace.datasets as d on d.dataset = c.dataset
        inner join headrace.generations as g on g.dataset = c.dataset and g.generation = c.generation and g.is_open
        left join headrace.totals as t
            on t.dataset = c.dataset and t.generation = c.generation and t.partition = c.partition
        left join headrace.batches as b
            on b.dataset = c.dataset and b.generation = c.generation and b.partition = c.partition
            and b.seq > coalesce(t.to_seq, 0) and b.seq <= d.last_seq and b.kind in ('drain', 'load', 'replace')
        where c.dataset = any(%(datasets)s) and d.last_seq > coalesce(t.to_seq, 0) + %(lines)s
        group by c.dataset, c.generation, c.partition, d.last_seq, t.staged, t.dead, t.tombstones, t.ignored
        order by c.dataset, c.partition
        on conflict (dataset, generation, partition) do update set
            to_seq = excluded.to_seq,
            staged = excluded.staged,
            dead = excluded.dead,
            tombstones = excluded.tombstones,
            ignored = excluded.ignored
        where totals.to_seq < excluded.to_seq
        """,
        {"datasets": list(datasets), "lines": lines},
    )


def save_failure(connect: Connect, dataset: str, error: Exception, *, is_service: bool) -> None:
    """Store the error of a plan; do nothing if Postgres cannot be reached or cannot store it.

    A missing topic that was never read is not an error: it has no records yet. is_service: whether a task of Airflow or
    a follower met it. OWN_SETTINGS are errors of the dataset only then: a shell's user reads the message.
    """
    if is_unreachable(error) or (isinstance(error, OWN_SETTINGS) and not is_service):
        return
    with suppress(Exception), database(connect) as connection:
        if isinstance(error, TopicMissing) and Checkpoints(connection, dataset).open_generation() is None:
            return
        save_error(connection, dataset, error)


def save_error(connection: Connection[Any], dataset: str, error: Exception) -> None:
    """Store the error of a plan until the next one succeeds; see `save_errors`."""
    save_errors(connection, {dataset: error})


def save_errors(connection: Connection[Any], errors: Mapping[str, Exception]) -> None:
    """Store the errors of plans until the next ones succeed; on partition 0 of a dataset that has none.

    The last observed offsets and their time stay. Datasets with the same error, as of one broker, are stored together.
    """
    same: dict[tuple[str, tuple[str, ...] | None], list[str]] = {}
    for dataset, error in sorted(errors.items()):
        found = _command_of(error)
        same.setdefault((one_line(error), None if found is None else tuple(found)), []).append(dataset)
    for (text, command), names in same.items():
        values = {"error": text, "command": None if command is None else list(command), "datasets": names}
        with connection.transaction():
            register(connection, names)
            connection.execute(
                "update headrace.observations set error = %(error)s, command = %(command)s "
                "where dataset = any(%(datasets)s)",
                values,
            )
            connection.execute(
                """
                insert into headrace.observations (dataset, partition, error, command)
                select named.dataset, 0, %(error)s, %(command)s::text[]
                from unnest(%(datasets)s::text[]) as named (dataset)
                where not exists (select from headrace.observations as o where o.dataset = named.dataset)
                on conflict (dataset, partition) do update set error = excluded.error, command = excluded.command
                """,
                values,
            )


def save_drain_failure(
    connect: Connect,
    dataset: str,
    generation: int,
    end_offsets: Mapping[int, int],
    error: BaseException,
    *,
    is_service: bool = True,
) -> None:
    """Store the error of a drain until its planned ranges are committed; do nothing if Postgres cannot be reached.

    end_offsets: the plan's end of each partition. A drain whose range another run committed has not failed. is_service:
    as for `save_failure`.
    """
    if not end_offsets or isinstance(error, CheckpointMoved) or is_unreachable(error):
        return
    if isinstance(error, OWN_SETTINGS) and not is_service:
        return
    with suppress(Exception), database(connect) as connection:
        connection.execute(
            """
            insert into headrace.failures (dataset, partition, generation, end_offset, error, command)
            select %(dataset)s, partition, %(generation)s, end_offset, %(error)s, %(command)s::text[]
            from unnest(%(partitions)s::integer[], %(ends)s::bigint[]) as planned (partition, end_offset)
            order by partition
            on conflict (dataset, partition) do update set
                generation = excluded.generation,
                end_offset = excluded.end_offset,
                error = excluded.error,
                command = excluded.command,
                failed_at = excluded.failed_at
            """,
            {
                "dataset": dataset,
                "generation": generation,
                "error": one_line(error),
                "command": _command_of(error),
                "partitions": list(end_offsets),
                "ends": list(end_offsets.values()),
            },
        )


def one_line(error: BaseException) -> str:
    """An error as it is stored."""
    text = " ".join(str(error).split())
    if isinstance(error, HeadraceError):
        return text
    return shown(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _command_of(error: BaseException) -> list[str] | None:
    command = error.command if isinstance(error, HeadraceError) else None
    return None if command is None else list(command.arguments)


def is_unreachable(error: BaseException) -> bool:
    """Whether the error is that Postgres does not answer: storing it would fail in the same way."""
    cause = error.__cause__
    if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return cause.sqlstate is None or cause.sqlstate.startswith(UNREACHABLE)
