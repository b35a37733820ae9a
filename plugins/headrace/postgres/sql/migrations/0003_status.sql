-- One row per dataset and partition: how far, how fresh, how fast, what went wrong.
create view headrace.status as
with drained as (
    select
        b.dataset,
        b.generation,
        b.partition,
        sum(b.staged) as staged,
        sum(b.dead) as dead,
        sum(b.tombstones) as tombstones,
        max(b.committed_at) as last_committed_at,
        -- speed over the batches of the last hour: what they held by the time that they took
        sum(b.staged + b.dead + b.tombstones) filter (where b.committed_at > now() - interval '1 hour')
        / nullif(
            extract(
                epoch from sum(b.committed_at - b.started_at) filter (where b.committed_at > now() - interval '1 hour')
            ),
            0
        ) as rows_per_s,
        sum(b.bytes) filter (where b.committed_at > now() - interval '1 hour')
        / nullif(
            extract(
                epoch from sum(b.committed_at - b.started_at) filter (where b.committed_at > now() - interval '1 hour')
            ),
            0
        ) as bytes_per_s
    from headrace.batches as b
    where b.kind in ('drain', 'load')
    group by b.dataset, b.generation, b.partition
),

newest as (
    select distinct on (b.dataset, b.generation, b.partition)
        b.dataset,
        b.generation,
        b.partition,
        extract(epoch from b.committed_at - b.last_record_at) as staging_freshness_s
    from headrace.batches as b
    where b.kind = 'drain' and b.last_record_at is not null
    order by b.dataset asc, b.generation asc, b.partition asc, b.seq desc
),

unbuilt as (
    -- a batch is built once every production model that reads its dataset has claimed it
    select
        b.dataset,
        count(*) as batches,
        extract(epoch from now() - min(b.committed_at)) as oldest_s
    from headrace.batches as b
    where b.seq > coalesce(
        (select min(c.to_seq) from headrace.claims as c where c.dataset = b.dataset and c.schema = 'marts'), 0
    )
    group by b.dataset
),

dead as (
    select
        reasons.dataset,
        jsonb_object_agg(reasons.reason, reasons.records) as by_reason
    from (
        select
            d.dataset,
            d.reason,
            count(*) as records
        from headrace.dead_letters as d
        where d.replayed_by is null
        group by d.dataset, d.reason
    ) as reasons
    group by reasons.dataset
)

select
    c.dataset,
    c.generation,
    c.partition,
    g.topic,
    c.next_offset,
    o.end_offset,
    coalesce(drained.staged, 0) as staged,
    coalesce(drained.dead, 0) as dead,
    coalesce(drained.tombstones, 0) as tombstones,
    drained.last_committed_at,
    round(drained.rows_per_s) as rows_per_s,
    round(drained.bytes_per_s) as bytes_per_s,
    round(newest.staging_freshness_s, 3) as staging_freshness_s, -- broker to staging, of the newest batch
    coalesce(unbuilt.batches, 0) as unbuilt_batches,
    round(coalesce(unbuilt.oldest_s, 0), 3) as unbuilt_s, -- how long the oldest batch has waited for its marts
    coalesce(dead.by_reason, '{}') as dead_by_reason,
    o.error as last_error,
    o.observed_at,
    greatest(coalesce(o.end_offset, c.next_offset) - c.next_offset, 0) as lag,
    greatest(o.high_watermark - o.end_offset, 0) as behind_open_transaction
from headrace.checkpoints as c
inner join headrace.generations as g on c.dataset = g.dataset and c.generation = g.generation and g.is_open
left join headrace.observations as o on c.dataset = o.dataset and c.partition = o.partition
left join drained
    on c.dataset = drained.dataset and c.generation = drained.generation and c.partition = drained.partition
left join newest
    on c.dataset = newest.dataset and c.generation = newest.generation and c.partition = newest.partition
left join unbuilt on c.dataset = unbuilt.dataset
left join dead on c.dataset = dead.dataset;
