with landed as (
    select
        'staged row' as what,
        _generation as generation,
        _partition as partition,
        _offset as at,
        _batch_id as batch_id
    from {staging}
    union all
    select 'replaced row', _generation, _partition, _offset, _batch_id from {replaced}
    union all
    select 'replacement', _generation, _partition, _offset, _replaced_by from {replaced}
    union all
    select 'dead letter', generation, partition, "offset", batch_id
    from headrace.dead_letters
    where dataset = %(dataset)s
)

select
    landed.*,
    lines.batch_id is null as is_unknown,
    lines.seq,
    lines.generation as line_generation,
    lines.partition as line_partition,
    lines.start_offset,
    lines.end_offset,
    count(*) over (partition by lines.batch_id is null) as total,
    row_number() over (
        partition by lines.batch_id is null order by landed.generation, landed.partition, landed.at
    ) as place
from landed
left join headrace.batches as lines on landed.batch_id = lines.batch_id and lines.dataset = %(dataset)s
where
    lines.batch_id is null
    or (landed.generation, landed.partition) <> (lines.generation, lines.partition)
    or landed.at < lines.start_offset
    or landed.at >= lines.end_offset
order by place
limit %(limit)s
