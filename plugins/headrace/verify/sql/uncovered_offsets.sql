with present as (
    select _offset as held from {staging}
    where
        _generation = %(generation)s and _partition = %(partition)s
        and _offset >= %(start_offset)s and _offset < %(end_offset)s
    union
    select _offset from {replaced}
    where
        _generation = %(generation)s and _partition = %(partition)s
        and _offset >= %(start_offset)s and _offset < %(end_offset)s and _batch_id = %(batch_id)s
    union
    select "offset" from headrace.dead_letters
    where
        dataset = %(dataset)s and generation = %(generation)s and partition = %(partition)s
        and "offset" >= %(start_offset)s and "offset" < %(end_offset)s
    union
    select %(start_offset)s - 1
),

gaps as (
    select held + 1 as gap_start, lead(held, 1, %(end_offset)s) over (order by held) as gap_end from present
)

select
    coalesce(sum(gap_end - gap_start), 0) as free,
    min(gap_start) filter (where gap_end > gap_start) as first_free
from gaps
