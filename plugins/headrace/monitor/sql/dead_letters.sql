select
    l.dataset, l.reason, l.generation, l.partition, l."offset", l."timestamp"::text, l.detail, l.json_path,
    octet_length(l.value) as size, substring(l.value from 1 for %(bytes)s) as value
from unnest(%(datasets)s::text[], %(reasons)s::text[]) with ordinality as wanted (dataset, reason, place)
cross join lateral (
    select * from headrace.dead_letters as d
    where d.dataset = wanted.dataset and d.reason = wanted.reason and d.replayed_by is null
    order by d.generation desc, d.partition desc, d."offset" desc
    limit %(samples)s
) as l
order by wanted.place, l.generation desc, l.partition desc, l."offset" desc
