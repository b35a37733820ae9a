-- bucket: numbered from that of `first`, in seconds since 1970
with lines as (
    select
        dataset,
        partition,
        generation,
        date_bin(make_interval(secs => %(bucket_s)s), committed_at, to_timestamp(%(first)s)) as bucket_at,
        kind in ('drain', 'load', 'replace') as is_read,
        kind in ('drain', 'load', 'replace', 'accept_loss') as is_moved,
        staged + dead + tombstones as records,
        dead,
        end_offset,
        committed_at - last_record_at as freshness,
        committed_at - started_at as took
    from headrace.batches
    where committed_at >= to_timestamp(%(first)s)
)

select
    dataset,
    partition,
    generation,
    round((extract(epoch from bucket_at) - %(first)s) / %(bucket_s)s)::integer as bucket,
    coalesce(sum(records) filter (where is_read), 0)::bigint as records,
    coalesce(sum(dead) filter (where is_read), 0)::bigint as dead,
    max(end_offset) filter (where is_moved) as end_offset,
    round(extract(epoch from max(freshness) filter (where is_read)), 3)::double precision as freshness_s,
    coalesce(extract(epoch from sum(took) filter (where is_read and records > 0)), 0)::double precision as seconds
from lines
group by dataset, partition, generation, bucket_at
