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
    last.behind,
    failing.since as failing_since,
    coalesce(behind.datasets, '{}') as reads,
    last.dag_id,
    last.run_id,
    last.task_id,
    last.try_number,
    last.map_index,
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
    select max(d.last_seq - c.to_seq) as batches, array_agg(d.dataset order by d.dataset) as datasets
    from headrace.claims as c
    inner join headrace.datasets as d on d.dataset = c.dataset
    where c.schema = m.schema and c.identifier = m.model
) as behind on true
left join lateral (
    -- the oldest failure after the last success
    select min(b.finished_at) as since
    from headrace.builds as b
    where
        (last.status <> 'success' or cardinality(coalesce(tested.failed_tests, '{}')) > 0)
        and b.schema = m.schema
        and b.model = m.model
        and (b.status = 'error' or cardinality(b.failed_tests) > 0)
        and b.finished_at > coalesce(
            (
                select max(good.finished_at)
                from headrace.builds as good
                where
                    good.schema = m.schema
                    and good.model = m.model
                    and good.status = 'success'
                    and (good.tested or last.status = 'error')
            ),
            '-infinity'
        )
) as failing on true
order by last.status = 'success' and cardinality(coalesce(tested.failed_tests, '{}')) = 0, m.model
