-- bucket: numbered from that of `first`, in seconds since 1970; negative before it
with buckets as (
    select
        s.dataset,
        s.partition,
        s.generation,
        date_bin(make_interval(secs => %(bucket_s)s), s.minute, to_timestamp(%(first)s)) as bucket_at,
        max(s.end_offset) as end_offset,
        max(s.next_offset) as next_offset,
        max(s.end_offset - s.next_offset) as lag
    from headrace.samples as s
    where s.minute >= to_timestamp(%(before)s)
    group by 1, 2, 3, 4
)

select
    b.dataset,
    b.partition,
    round((extract(epoch from b.bucket_at) - %(first)s) / %(bucket_s)s)::integer as bucket,
    b.end_offset,
    b.next_offset,
    greatest(b.lag, 0) as lag
from buckets as b
inner join headrace.generations as g
    on g.dataset = b.dataset and g.generation = b.generation and g.is_open
