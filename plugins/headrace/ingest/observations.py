"""What plans and drains record for `status`: lag, totals of the ledger, errors. Nothing else depends on it."""

from collections.abc import Mapping
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
from headrace.postgres.checkpoints import Checkpoints
from headrace.postgres.connection import UNREACHABLE, Connect, database
from headrace.sources.base import SourceState

KEEP = "8 days"  # the page's longest chart and a bucket before it
KEEP_MINUTES = "1 day"  # older samples are thinned to the last of each hour
# errors about addresses, users and arguments of one process: a shell has its own, services the deployment's
OWN_SETTINGS = (SettingError, UsageError, AnotherCluster, SourceRefused, RegistryRefused)
TOTALS_EVERY_LINES = 200  # that many are summed in a millisecond


def save_state(stored: Checkpoints, state: SourceState) -> None:
    """Store the offsets that a source reported, in a separate transaction, so that a refused plan keeps them."""
    with stored.connection.transaction():
        stored.register()
        for partition, found in state.partitions.items():
            stored.connection.execute(
                """
                insert into headrace.observations (dataset, partition, log_start_offset, end_offset, high_watermark)
                values (%s, %s, %s, %s, %s)
                on conflict (dataset, partition) do update set
                    log_start_offset = excluded.log_start_offset,
                    end_offset = excluded.end_offset,
                    high_watermark = excluded.high_watermark,
                    error = null,
                    command = null,
                    observed_at = clock_timestamp()
                """,
                (stored.dataset, partition, found.log_start_offset, found.end_offset, found.high_watermark),
            )


def save_observation(stored: Checkpoints) -> None:
    """Sample the lag that a plan saw, once a minute, and add the ledger's new lines to the totals.

    The plan succeeded, so earlier errors are cleared, also on partitions that the source no longer has.
    """
    connection, dataset = stored.connection, stored.dataset
    with connection.transaction():
        connection.execute(
            "update headrace.observations set error = null, command = null where dataset = %s and error is not null",
            (dataset,),
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
            where c.dataset = %(dataset)s and o.end_offset is not null and not c.is_closed
            order by c.partition
            on conflict (dataset, generation, partition, minute) do update set
                end_offset = excluded.end_offset,
                next_offset = excluded.next_offset,
                observed_at = excluded.observed_at
            where samples.end_offset - samples.next_offset < excluded.end_offset - excluded.next_offset
            returning xmax = 0 as is_new
            """,
            {"dataset": dataset},
        ).fetchall()
        if any(is_new for (is_new,) in sampled):
            _prune_samples(connection, dataset)
        update_totals(connection, dataset)


def _prune_samples(connection: Connection[Any], dataset: str) -> None:
    # only the hours that have just become old are thinned: looking at all of them would cost each plan milliseconds
    connection.execute(
        """
        delete from headrace.samples as s
        where
            s.dataset = %(dataset)s
            and s.minute < now() - %(minutes)s::interval
            and (
                s.minute < now() - %(keep)s::interval
                or s.minute > now() - %(minutes)s::interval - interval '3 hours' and exists (
                    select from headrace.samples as later
                    where
                        later.dataset = s.dataset
                        and later.generation = s.generation
                        and later.partition = s.partition
                        and later.minute > s.minute
                        and later.minute < date_trunc('hour', s.minute) + interval '1 hour'
                )
            )
        """,
        {"dataset": dataset, "minutes": KEEP_MINUTES, "keep": KEEP},
    )


def save_nothing_new(connection: Connection[Any], dataset: str) -> None:
    """Store that the source has nothing new; clear an earlier error."""
    connection.execute(
        "update headrace.observations set error = null, command = null, observed_at = clock_timestamp() "
        "where dataset = %s",
        (dataset,),
    )


def update_totals(connection: Connection[Any], dataset: str, lines: int = TOTALS_EVERY_LINES) -> None:
    """Add the ledger's lines to headrace.totals if more than `lines` are new."""
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
        where c.dataset = %(dataset)s and d.last_seq > coalesce(t.to_seq, 0) + %(lines)s
        group by c.dataset, c.generation, c.partition, d.last_seq, t.staged, t.dead, t.tombstones, t.ignored
        order by c.partition
        on conflict (dataset, generation, partition) do update set
            to_seq = excluded.to_seq,
            staged = excluded.staged,
            dead = excluded.dead,
            tombstones = excluded.tombstones,
            ignored = excluded.ignored
        where totals.to_seq < excluded.to_seq
        """,
        {"dataset": dataset, "lines": lines},
    )


def save_failure(connect: Connect, dataset: str, error: Exception, *, is_service: bool) -> None:
    """Store the error of a plan; do nothing if Postgres cannot be reached or cannot store it.

    A missing topic that was never read is not an error: it has no records yet. is_service: whether a task of Airflow or
    a follower met it. OWN_SETTINGS are errors of the dataset only then: a shell's user reads the message.
    """
    if _is_unreachable(error) or (isinstance(error, OWN_SETTINGS) and not is_service):
        return
    with suppress(Exception), database(connect) as connection:
        if isinstance(error, TopicMissing) and Checkpoints(connection, dataset).open_generation() is None:
            return
        save_error(connection, dataset, error)


def save_error(connection: Connection[Any], dataset: str, error: Exception) -> None:
    """Store the error of a plan until the next one succeeds; on partition 0 if the dataset has none.

    The last observed offsets and their time stay.
    """
    text, command = _one_line(error), _command_of(error)
    with connection.transaction():
        Checkpoints(connection, dataset).register()
        noted = connection.execute(
            "update headrace.observations set error = %s, command = %s where dataset = %s", (text, command, dataset)
        ).rowcount
        if not noted:
            connection.execute(
                "insert into headrace.observations (dataset, partition, error, command) values (%s, 0, %s, %s) "
                "on conflict (dataset, partition) do update set error = excluded.error, command = excluded.command",
                (dataset, text, command),
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
    if not end_offsets or isinstance(error, CheckpointMoved) or _is_unreachable(error):
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
                "error": _one_line(error),
                "command": _command_of(error),
                "partitions": list(end_offsets),
                "ends": list(end_offsets.values()),
            },
        )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, HeadraceError):
        return text
    return shown(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _command_of(error: BaseException) -> list[str] | None:
    command = error.command if isinstance(error, HeadraceError) else None
    return None if command is None else list(command.arguments)


def _is_unreachable(error: BaseException) -> bool:
    """Whether the error is that Postgres does not answer: storing it would fail in the same way."""
    cause = error.__cause__
    if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return cause.sqlstate is None or cause.sqlstate.startswith(UNREACHABLE)
