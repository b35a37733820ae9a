-- bucket: numbered from that of `first`, in seconds since 1970; negative before it
select
    s.dataset,
    s.partition,
    floor((extract(epoch from s.minute) - %(first)s) / %(bucket_s)s)::integer as bucket,
    max(s.end_offset) as end_offset,
    max(s.next_offset) as next_offset,
    greatest(max(s.end_offset - s.next_offset), 0) as lag
from headrace.samples as s
inner join headrace.generations as g
    on g.dataset = s.dataset and g.generation = s.generation and g.is_open
where s.minute >= to_timestamp(%(before)s)
group by 1, 2, 3
