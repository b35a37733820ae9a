-- each ledger line's number of elements, and that which the rows of its records state
with lines as not materialized (
    select * from headrace.batches where dataset = %(dataset)s
),

landed as (
    select _batch_id, {count_column} as elements from {staging} where {count_column} is not null
    union all
    select _batch_id, {count_column} from {replaced} where {count_column} is not null
),

counts as (
    select _batch_id as batch_id, sum(elements) as elements
    from landed
    group by _batch_id
)

select
    lines.generation,
    lines.partition,
    lines.start_offset,
    lines.end_offset,
    lines.seq,
    coalesce((lines.elements ->> %(child)s)::bigint, 0) as expected,
    coalesce(counts.elements, 0)::bigint as found,
    count(*) over () as total
from lines
left join counts using (batch_id)
where
    lines.kind <> 'fill' -- its rows keep the elements that other batches staged
    and coalesce((lines.elements ->> %(child)s)::bigint, 0) <> coalesce(counts.elements, 0)
order by lines.generation, lines.partition, lines.start_offset, lines.seq
limit %(limit)s
