with lines as (
    select
        generation,
        partition,
        start_offset,
        end_offset,
        seq,
        coalesce(
            max(end_offset) over earlier,
            case
                when %(is_file)s or bool_or(kind in ('load', 'replace')) over (partition by generation) then 1
                else 0
            end
        ) as expected_start,
        max(seq) over earlier as earlier_seq
    from headrace.batches
    where dataset = %(dataset)s and kind = any(%(chained)s)
    window earlier as (
        partition by generation, partition
        order by start_offset, end_offset, seq
        rows between unbounded preceding and 1 preceding
    )
)

select *, count(*) over () as total
from lines
where start_offset <> expected_start or seq < earlier_seq
order by generation, partition, start_offset
limit %(limit)s
