-- A dataset of several topics: each partition says which partition of which topic it is. A topic that was replaced has its
-- partitions closed; the numbers of a dataset's partitions are never used again. All null for a dataset of one topic, a
-- stream or a file, whose generation has the topic.
alter table headrace.checkpoints
add column if not exists topic text,
add column if not exists topic_id text,
add column if not exists topic_partition integer,
add column if not exists is_closed boolean not null default false;

alter table headrace.checkpoints
add constraint checkpoints_topic check (
    (topic is null) = (topic_id is null)
    and (topic is null) = (topic_partition is null)
    and (topic is not null or not is_closed)
);
-- a partition of a topic is read once
create unique index checkpoints_topic_partition on headrace.checkpoints (dataset, generation, topic, topic_partition)
where topic is not null and not is_closed;

-- One row per dataset and partition: how far, how fresh, how fast, what went wrong. Columns of a dataset repeat.
create or replace view headrace.status as
with recent as (
    -- speed over the batches of the last hour: what they held by the time that they took
    select
        b.dataset,
        b.generation,
        b.partition,
        sum(b.staged + b.dead + b.tombstones) as records,
        sum(b.bytes) as bytes,
        sum(b.dead) as dead,
        extract(epoch from sum(b.committed_at - b.started_at)) as seconds
    from headrace.batches as b
    where b.kind in ('drain', 'load', 'replace') and b.committed_at > now() - interval '1 hour'
    group by b.dataset, b.generation, b.partition
),

claimed as (
    -- a batch is built once every production model that reads its dataset has claimed it: the one that is furthest behind
    select distinct on (c.dataset)
        c.dataset,
        c.to_seq,
        c.claimed_at
    from headrace.claims as c
    where c.schema = 'marts'
    order by c.dataset asc, c.to_seq asc, c.claimed_at desc
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
    (coalesce(totals.staged, 0) + coalesce(rest.staged, 0))::bigint as staged,
    (coalesce(totals.dead, 0) + coalesce(rest.dead, 0))::bigint as dead,
    (coalesce(totals.tombstones, 0) + coalesce(rest.tombstones, 0))::bigint as tombstones,
    newest.committed_at as last_committed_at,
    round(recent.records / nullif(recent.seconds, 0))::double precision as rows_per_s,
    round(recent.bytes / nullif(recent.seconds, 0))::double precision as bytes_per_s,
    -- broker to staging, of the newest batch that held records
    round(extract(epoch from filled.committed_at - filled.last_record_at), 3)::double precision as staging_freshness_s,
    d.last_seq - coalesce(claimed.to_seq, 0) as unbuilt_batches,
    -- how long the oldest batch has waited for its marts
    round(coalesce(extract(epoch from now() - unbuilt.committed_at), 0), 3)::double precision as unbuilt_s,
    coalesce(dead.by_reason, '{}') as dead_by_reason,
    o.error as last_error,
    o.observed_at,
    greatest(coalesce(o.end_offset, c.next_offset) - c.next_offset, 0) as lag,
    greatest(o.high_watermark - o.end_offset, 0) as behind_open_transaction,
    -- how long the first unread record has waited, as far as samples and its predecessor tell
    case
        when coalesce(o.end_offset, c.next_offset) <= c.next_offset then 0
        when coalesce(appeared.at, filled.last_record_at) is not null then round(
            greatest(extract(epoch from now() - greatest(appeared.at, filled.last_record_at)), 0), 3
        )::double precision
    end as lag_s,
    -- broker to marts, of the newest batch that every mart has
    round(extract(epoch from claimed.claimed_at - built.last_record_at), 3)::double precision as mart_freshness_s,
    -- how old the oldest record is that is staged and not in every mart
    round(
        coalesce(
            extract(epoch from now() - case unbuilt.kind
                when 'drain' then coalesce(unbuilt.first_record_at, unbuilt.committed_at)
                else unbuilt.committed_at
            end),
            0
        ),
        3
    )::double precision as unbuilt_record_s,
    claimed.dataset is not null as has_marts,
    coalesce(recent.records, 0)::bigint as recent_records,
    coalesce(recent.seconds, 0)::double precision as recent_s,
    coalesce(recent.dead, 0)::bigint as recent_dead,
    -- of a dataset of several topics
    c.topic as partition_topic,
    c.topic_partition
from headrace.checkpoints as c
inner join headrace.datasets as d on c.dataset = d.dataset
inner join headrace.generations as g on c.dataset = g.dataset and c.generation = g.generation and g.is_open
    and not c.is_closed
left join headrace.observations as o on c.dataset = o.dataset and c.partition = o.partition
left join headrace.totals as totals
    on c.dataset = totals.dataset and c.generation = totals.generation and c.partition = totals.partition
left join recent
    on c.dataset = recent.dataset and c.generation = recent.generation and c.partition = recent.partition
left join claimed on c.dataset = claimed.dataset
left join dead on c.dataset = dead.dataset
left join headrace.batches as built
    on claimed.dataset = built.dataset and claimed.to_seq = built.seq and built.kind = 'drain'
left join headrace.batches as unbuilt
    on c.dataset = unbuilt.dataset and coalesce(claimed.to_seq, 0) + 1 = unbuilt.seq
left join lateral (
    select
        sum(b.staged) as staged,
        sum(b.dead) as dead,
        sum(b.tombstones) as tombstones
    from headrace.batches as b
    where
        b.dataset = c.dataset
        and b.seq > coalesce(totals.to_seq, 0)
        and b.generation = c.generation
        and b.partition = c.partition
        and b.kind in ('drain', 'load', 'replace')
) as rest on true
left join lateral (
    select b.committed_at
    from headrace.batches as b
    where
        b.dataset = c.dataset
        and b.generation = c.generation
        and b.partition = c.partition
        and b.kind in ('drain', 'load', 'replace', 'accept_loss')
        and b.end_offset > b.start_offset
    order by b.start_offset desc
    limit 1
) as newest on true
left join lateral (
    select
        b.committed_at,
        b.last_record_at
    from headrace.batches as b
    where
        b.dataset = c.dataset
        and b.generation = c.generation
        and b.partition = c.partition
        and b.kind in ('drain', 'load', 'replace', 'accept_loss')
        and b.end_offset > b.start_offset
        and b.kind = 'drain'
        and b.last_record_at is not null
    order by b.start_offset desc
    limit 1
) as filled on true
left join lateral (
    select
        s.observed_at,
        s.end_offset
    from headrace.samples as s
    where
        o.end_offset > c.next_offset
        and s.dataset = c.dataset
        and s.generation = c.generation
        and s.partition = c.partition
        and s.end_offset <= c.next_offset
    order by s.minute desc
    limit 1
) as before on true
left join lateral (
    select
        s.observed_at,
        s.end_offset
    from headrace.samples as s
    where
        s.dataset = c.dataset
        and s.generation = c.generation
        and s.partition = c.partition
        and s.end_offset > c.next_offset
        and s.observed_at > before.observed_at
    order by s.minute asc
    limit 1
) as after on true
left join lateral (
    -- the record appeared between two looks; in between offsets are taken to have grown evenly
    select
        before.observed_at
        + (coalesce(after.observed_at, o.observed_at) - before.observed_at)
        * ((c.next_offset - before.end_offset + 1)::double precision
            / nullif(coalesce(after.end_offset, o.end_offset) - before.end_offset, 0)) as at
) as appeared on true;
