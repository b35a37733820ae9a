with whole as (
    (
        select 'model' as kind, build_id, finished_at from headrace.builds
        where selection is null and kind = 'model'
        order by finished_at desc
        limit 1
    )
    union all
    (
        select 'test', build_id, finished_at from headrace.builds
        where selection is null and kind = 'model' and tested
        order by finished_at desc
        limit 1
    )
    union all
    (
        select 'project', build_id, finished_at from headrace.builds
        where kind <> 'project'
        order by finished_at desc
        limit 1
    )
),

newest as (
    select * from headrace.builds order by finished_at desc limit %(lines)s
),

models as (
    select b.schema, b.model
    from newest as b
    left join whole on whole.kind = case b.kind when 'function' then 'model' else b.kind end
    where whole.build_id is null or b.finished_at > whole.finished_at
    union
    select b.schema, b.model
    from whole
    inner join headrace.builds as b on b.build_id = whole.build_id
    where whole.kind = case b.kind when 'function' then 'model' else b.kind end
)

select
    m.model,
    last.kind,
    last.status,
    last.rows,
    last.seconds,
    coalesce(tested.failed_tests, '{}') as failed_tests,
    left(split_part(coalesce(last.message, tested.message), E'\n', 1), 500) as message,
    last.finished_at,
    coalesce(behind.batches, 0) as unbuilt_batches
from models as m
inner join lateral (
    select b.* from headrace.builds as b
    where b.schema = m.schema and b.model = m.model
    order by b.finished_at desc
    limit 1
) as last on true
left join lateral (
    select b.failed_tests, b.message from headrace.builds as b
    where b.schema = m.schema and b.model = m.model and b.tested and b.status <> 'skipped'
    order by b.finished_at desc
    limit 1
) as tested on true
left join lateral (
    select max(d.last_seq - c.to_seq) as batches
    from headrace.claims as c
    inner join headrace.datasets as d on d.dataset = c.dataset
    where c.schema = m.schema and c.identifier = m.model
) as behind on true
order by last.status = 'success' and cardinality(coalesce(tested.failed_tests, '{}')) = 0, m.model
