with lines as not materialized (
    select * from headrace.batches where dataset = %(dataset)s
),

landed as (
    select _batch_id, _generation, _partition, _offset, _deleted from {staging}
    union all
    select _batch_id, _generation, _partition, _offset, _deleted from {replaced}
),

landed_counts as (
    select
        lines.batch_id,
        count(*) filter (where not landed._deleted) as staged,
        count(*) filter (where landed._deleted) as tombstones
    from landed
    inner join lines
        on landed._batch_id = lines.batch_id
        and landed._generation = lines.generation
        and landed._partition = lines.partition
        and landed._offset >= lines.start_offset
        and landed._offset < lines.end_offset
    group by lines.batch_id
),

dead_counts as (
    select lines.batch_id, count(*) as dead
    from headrace.dead_letters as letters
    inner join lines
        on letters.batch_id = lines.batch_id
        and letters.generation = lines.generation
        and letters.partition = lines.partition
        and letters."offset" >= lines.start_offset
        and letters."offset" < lines.end_offset
    where letters.dataset = %(dataset)s
    group by lines.batch_id
)

select
    lines.*,
    coalesce(landed_counts.staged, 0) as found_staged,
    coalesce(landed_counts.tombstones, 0) as found_tombstones,
    coalesce(dead_counts.dead, 0) as found_dead,
    count(*) over () as total
from lines
left join landed_counts using (batch_id)
left join dead_counts using (batch_id)
where
    (lines.staged, lines.tombstones, lines.dead)
    <> (coalesce(landed_counts.staged, 0), coalesce(landed_counts.tombstones, 0), coalesce(dead_counts.dead, 0))
order by lines.generation, lines.partition, lines.start_offset, lines.seq
limit %(limit)s
