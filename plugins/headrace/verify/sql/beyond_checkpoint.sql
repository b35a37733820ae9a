select
    c.generation,
    c.partition,
    c.next_offset,
    beyond.what,
    beyond.at,
    count(*) over () as total
from headrace.checkpoints as c
cross join lateral (
    select 'staged row' as what, s._offset as at
    from {staging} as s
    where s._generation = c.generation and s._partition = c.partition and s._offset >= c.next_offset
    union all
    select 'dead letter', d."offset"
    from headrace.dead_letters as d
    where
        d.dataset = c.dataset and d.generation = c.generation and d.partition = c.partition
        and d."offset" >= c.next_offset
) as beyond
where c.dataset = %(dataset)s
order by c.generation, c.partition, beyond.at
limit %(limit)s
