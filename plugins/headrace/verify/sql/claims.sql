with recursive held as (
    select *, schema || '.' || identifier as model from headrace.claims where dataset = %(dataset)s
),

upstreams as (
    select held.model, seen.upstream, seen.built
    from held
    cross join jsonb_each_text(held.seen) as seen (upstream, built)
),

available as (
    select
        'headrace.datasets' as upstream,
        d.built::text as built,
        coalesce((select max(b.seq) from headrace.batches as b where b.dataset = d.dataset), 0) as to_seq
    from headrace.datasets as d
    where d.dataset = %(dataset)s
    union all
    select model, built::text, to_seq from held
),

stale (model) as (
    select upstreams.model
    from upstreams
    left join available using (upstream, built)
    where available.upstream is null
    union
    select upstreams.model
    from upstreams
    inner join stale on upstreams.upstream = stale.model
),

limits as (
    select distinct on (upstreams.model)
        upstreams.model,
        upstreams.upstream as limited_by,
        available.to_seq as limit_seq
    from upstreams
    inner join available using (upstream, built)
    order by upstreams.model, available.to_seq
)

select
    held.*,
    coalesce(limits.limited_by, 'the ledger') as limited_by,
    coalesce(limits.limit_seq, 0) as limit_seq,
    stale.model is not null as is_stale
from held
left join limits using (model)
left join stale using (model)
order by held.model
