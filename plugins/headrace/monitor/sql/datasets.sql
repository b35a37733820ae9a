with dead as (
    -- of the last hour's batches, what was neither replayed nor acknowledged
    select
        b.dataset,
        count(*) as dead_letters,
        min(b.committed_at) as since
    from headrace.batches as b
    inner join headrace.dead_letters as l on b.batch_id = l.batch_id
    where
        b.committed_at > now() - interval '1 hour'
        and b.dead > 0
        and l.replayed_by is null
        and l.acknowledgement_id is null
    group by b.dataset
)

select
    d.dataset,
    d.last_seq,
    coalesce(dead.dead_letters, 0) as recent_dead,
    dead.since as dead_since,
    coalesce(known.dead_letters, 0) as acknowledged,
    counted.ignored,
    o.observed_at,
    refused.error,
    refused.command,
    refused.cause,
    refused.error_since,
    refused.dag_id as run_dag_id,
    refused.run_id as run_run_id,
    refused.task_id as run_task_id,
    refused.try_number as run_try_number,
    refused.map_index as run_map_index,
    failed.error as drain_error,
    failed.command as drain_command,
    failed.failed_at as drain_failed_at,
    failed.cause as drain_cause,
    coalesce(failed.failing_since, failed.failed_at) as drain_failing_since,
    failed.dag_id as drain_run_dag_id,
    failed.run_id as drain_run_run_id,
    failed.task_id as drain_run_task_id,
    failed.try_number as drain_run_try_number,
    failed.map_index as drain_run_map_index,
    l.holder_name,
    l.lapses_at,
    l.lapses_at > clock_timestamp() as is_held,
    p.paused_at,
    p.paused_by,
    p.why as pause_reason
from headrace.datasets as d
left join headrace.leases as l on d.dataset = l.dataset
left join dead on d.dataset = dead.dataset
left join lateral (
    select count(*) as dead_letters
    from headrace.dead_letters as k
    where k.dataset = d.dataset and k.acknowledgement_id is not null and k.replayed_by is null
) as known on true
left join headrace.pauses as p on d.dataset = p.dataset and p.resumed_at is null
left join lateral (
    select max(o.observed_at) filter (where o.end_offset is not null) as observed_at
    from headrace.observations as o
    where o.dataset = d.dataset
) as o on true
left join lateral (
    select r.error, r.command, r.cause, r.error_since, r.dag_id, r.run_id, r.task_id, r.try_number, r.map_index
    from headrace.observations as r
    where r.dataset = d.dataset and r.error is not null
    order by r.error desc
    limit 1
) as refused on true
left join lateral (
    -- until what it was to read is committed, or the generation is closed
    select
        f.error, f.command, f.failed_at, f.cause, f.failing_since,
        f.dag_id, f.run_id, f.task_id, f.try_number, f.map_index
    from headrace.failures as f
    inner join headrace.generations as g
        on g.dataset = f.dataset and g.generation = f.generation and g.is_open
    inner join headrace.checkpoints as c
        on c.dataset = f.dataset and c.generation = f.generation and c.partition = f.partition
    where f.dataset = d.dataset and c.next_offset < f.end_offset and not c.is_closed
    order by f.failed_at desc
    limit 1
) as failed on true
left join lateral (
    select coalesce(sum(coalesce(t.ignored, 0) + coalesce(rest.ignored, 0)), 0)::bigint as ignored
    from headrace.checkpoints as c
    inner join headrace.generations as g on c.dataset = g.dataset and c.generation = g.generation and g.is_open
    left join headrace.totals as t
        on c.dataset = t.dataset and c.generation = t.generation and c.partition = t.partition
    left join lateral (
        select sum(b.ignored) as ignored
        from headrace.batches as b
        where
            b.dataset = c.dataset
            and b.seq > coalesce(t.to_seq, 0)
            and b.generation = c.generation
            and b.partition = c.partition
            and b.kind in ('drain', 'load', 'replace')
    ) as rest on true
    where c.dataset = d.dataset and not c.is_closed
) as counted on true
order by d.dataset
