with reached as (
    select generation, partition, max(end_offset) as end_offset, bool_or(kind in ('load', 'replace')) as is_file
    from headrace.batches
    where dataset = %(dataset)s and kind = any(%(chained)s)
    group by generation, partition
),

checkpoints as (
    select generation, partition, next_offset from headrace.checkpoints where dataset = %(dataset)s
),

joined as (
    select
        generation,
        partition,
        checkpoints.next_offset,
        coalesce(reached.end_offset, case when %(is_file)s then 1 else 0 end) as end_offset
    from reached
    full join checkpoints using (generation, partition)
)

select * from joined
where next_offset is distinct from end_offset
order by generation, partition
