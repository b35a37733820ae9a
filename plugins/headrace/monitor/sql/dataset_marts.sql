-- models that read the dataset, then those that read these, by what their last builds saw
with recursive readers (identifier, upstream, depth) as (
    select identifier, dataset, 1
    from headrace.claims
    where schema = %(schema)s and dataset = %(dataset)s
    union
    select u.identifier, r.identifier, r.depth + 1
    from headrace.model_upstreams as u
    inner join readers as r on u.upstream = %(schema)s || '.' || r.identifier
    where u.schema = %(schema)s and u.kind = 'model' and r.depth < 20
)

select
    identifier as model,
    min(depth) as depth,
    array_agg(distinct upstream order by upstream) as upstreams
from readers
group by identifier
order by depth, model
limit %(models)s
