with letters as (
    select generation, partition, "offset" as at, replayed_by
    from headrace.dead_letters
    where dataset = %(dataset)s
),

staged as not materialized (
    select _generation as generation, _partition as partition, _offset as at, _batch_id as batch_id
    from {staging}
),

replaced as not materialized (
    select
        _generation as generation,
        _partition as partition,
        _offset as at,
        _batch_id as batch_id,
        _replaced_by as replaced_by
    from {replaced}
),

wrong as (
    select
        generation,
        partition,
        at,
        'a staged row and a dead letter that was not replayed' as found,
        'one of the two' as expected
    from letters
    inner join staged using (generation, partition, at)
    where letters.replayed_by is null
    union all
    select
        generation,
        partition,
        at,
        'a dead letter replayed by batch ' || letters.replayed_by || ', and no row',
        'the row that the replay staged'
    from letters
    left join staged using (generation, partition, at)
    where letters.replayed_by is not null and staged.batch_id is null
    union all
    select
        generation,
        partition,
        at,
        'a dead letter replayed by batch ' || letters.replayed_by || ', its row under another',
        'the row under the batch that replayed it, in staging or replaced by a reload'
    from letters
    inner join staged using (generation, partition, at)
    left join replaced using (generation, partition, at)
    where letters.replayed_by is not null and staged.batch_id <> letters.replayed_by
    group by generation, partition, at, letters.replayed_by
    having not coalesce(bool_or(replaced.batch_id = letters.replayed_by), false)
    union all
    select
        generation,
        partition,
        at,
        'a row replaced by batch ' || replaced.replaced_by || ', and nothing in its place',
        'the row or the dead letter that replaced it'
    from replaced
    left join staged using (generation, partition, at)
    left join letters using (generation, partition, at)
    where staged.batch_id is null and (letters.at is null or letters.replayed_by is not null)
    union all
    select
        generation,
        partition,
        at,
        'a row staged by replay ' || lines.batch_id,
        'the dead letter that it was'
    from headrace.batches as lines
    inner join staged using (generation, partition, batch_id)
    left join letters using (generation, partition, at)
    where
        lines.dataset = %(dataset)s
        and lines.kind = 'replay'
        and letters.replayed_by is distinct from lines.batch_id
)

select *, count(*) over () as total
from wrong
order by generation, partition, at
limit %(limit)s
