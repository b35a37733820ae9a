select
    d.dataset,
    d.last_seq,
    counted.ignored,
    o.observed_at,
    refused.error,
    refused.command,
    failed.error as drain_error,
    failed.command as drain_command,
    failed.failed_at as drain_failed_at,
    l.holder_name,
    l.lapses_at,
    l.lapses_at > clock_timestamp() as is_held,
    p.paused_at,
    p.paused_by,
    p.why as pause_reason
from headrace.datasets as d
left join headrace.leases as l on d.dataset = l.dataset
left join headrace.pauses as p on d.dataset = p.dataset and p.resumed_at is null
left join lateral (
    select max(o.observed_at) filter (where o.end_offset is not null) as observed_at
    from headrace.observations as o
    where o.dataset = d.dataset
) as o on true
left join lateral (
    select r.error, r.command
    from headrace.observations as r
    where r.dataset = d.dataset and r.error is not null
    order by r.error desc
    limit 1
) as refused on true
left join lateral (
    -- until what it was to read is committed, or the generation is closed
    select f.error, f.command, f.failed_at
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
