"""What plans and drains leave behind for those who look: samples of lag, sums of the ledger, and why they failed."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import Connection

from headrace.exceptions import CheckpointMoved, HeadraceError, SettingError, TopicMissing
from headrace.output import shown
from headrace.postgres.checkpoints import open_generation, register
from headrace.postgres.connection import UNREACHABLE, Connect, database
from headrace.sources.base import SourceState

KEEP = "1 day"
TOTALS_EVERY_LINES = 200  # so many ledger lines are summed up in a millisecond: no need to write more often


def save_state(connection: Connection[Any], dataset: str, state: SourceState) -> None:
    """Store the offsets that a source reported, in a separate transaction: a plan that is refused keeps them."""
    with connection.transaction():
        register(connection, dataset)
        for partition, found in state.partitions.items():
            connection.execute(
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
                (dataset, partition, found.log_start_offset, found.end_offset, found.high_watermark),
            )


def save_observation(connection: Connection[Any], dataset: str) -> None:
    """Sample what the plan saw, and fold the ledger's new lines; once a minute, and when there is much to fold.

    The plan succeeded: what an earlier one failed with is over, also on partitions that the source no longer has.
    """
    with connection.transaction():
        connection.execute(
            "update headrace.observations set error = null, command = null where dataset = %s and error is not null",
            (dataset,),
        )
        # of a minute the worst is kept: a follower looks every second, and finds nothing most of the time
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
            where c.dataset = %(dataset)s and o.end_offset is not null
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
            connection.execute(
                "delete from headrace.samples where dataset = %s and minute < now() - %s::interval", (dataset, KEEP)
            )
        update_totals(connection, dataset)


def save_nothing_new(connection: Connection[Any], dataset: str) -> None:
    """Write down that the source was looked at and holds nothing to read: what failed before is over."""
    connection.execute(
        "update headrace.observations set error = null, command = null, observed_at = clock_timestamp() "
        "where dataset = %s",
        (dataset,),
    )


def update_totals(connection: Connection[Any], dataset: str, lines: int = TOTALS_EVERY_LINES) -> None:
    """Add the ledger's lines to headrace.totals once there are more than so many new ones."""
    connection.execute(
        """
        insert into headrace.totals (dataset, generation, partition, to_seq, staged, dead, tombstones)
        select
            c.dataset,
            c.generation,
            c.partition,
            d.last_seq,
            coalesce(t.staged, 0) + coalesce(sum(b.staged), 0),
            coalesce(t.dead, 0) + coalesce(sum(b.dead), 0),
            coalesce(t.tombstones, 0) + coalesce(sum(b.tombstones), 0)
        from headrace.checkpoints as c
        inner join headrace.datasets as d on d.dataset = c.dataset
        inner join headrace.generations as g on g.dataset = c.dataset and g.generation = c.generation and g.is_open
        left join headrace.totals as t
            on t.dataset = c.dataset and t.generation = c.generation and t.partition = c.partition
        left join headrace.batches as b
            on b.dataset = c.dataset and b.generation = c.generation and b.partition = c.partition
            and b.seq > coalesce(t.to_seq, 0) and b.seq <= d.last_seq and b.kind in ('drain', 'load', 'replace')
        where c.dataset = %(dataset)s and d.last_seq > coalesce(t.to_seq, 0) + %(lines)s
        group by c.dataset, c.generation, c.partition, d.last_seq, t.staged, t.dead, t.tombstones
        order by c.partition
        on conflict (dataset, generation, partition) do update set
            to_seq = excluded.to_seq,
            staged = excluded.staged,
            dead = excluded.dead,
            tombstones = excluded.tombstones
        where totals.to_seq < excluded.to_seq
        """,
        {"dataset": dataset, "lines": lines},
    )


def save_failure(connect: Connect, dataset: str, error: Exception, *, is_task: bool) -> None:
    """Write down why a plan failed; silent where Postgres cannot be reached, or cannot store it either.

    A topic that is missing before anything was ever read of it is no failure: nobody has produced yet. Nor is a setting
    that a shell lacks, unless is_task: Airflow's tasks have the deployment's settings.
    """
    if _is_unreachable(error) or (isinstance(error, SettingError) and not is_task):
        return
    with suppress(Exception), database(connect) as connection:
        if isinstance(error, TopicMissing) and open_generation(connection, dataset) is None:
            return
        save_error(connection, dataset, error)


def save_error(connection: Connection[Any], dataset: str, error: Exception) -> None:
    """Write down why a plan failed, until the next one succeeds; a dataset without partitions gets its first.

    What was last seen at the source stays, and so does when: nobody has seen anything newer.
    """
    text, command = _one_line(error), _command_of(error)
    with connection.transaction():
        register(connection, dataset)
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
    connect: Connect, dataset: str, generation: int, end_offsets: Mapping[int, int], error: BaseException
) -> None:
    """Write down why a drain failed, until what it was to read is committed; silent where Postgres cannot be reached.

    end_offsets: of each partition the end of what was planned. A drain that another run overtook has not failed.
    """
    if not end_offsets or isinstance(error, CheckpointMoved) or _is_unreachable(error):
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
    """Whether the error is that no Postgres answers: whoever writes it down would only wait for the same."""
    cause = error.__cause__
    if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return cause.sqlstate is None or cause.sqlstate.startswith(UNREACHABLE)
