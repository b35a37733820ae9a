select
    dag_id,
    run_id,
    count(*) as batches,
    sum(staged + dead + tombstones)::bigint as records,
    sum(dead)::bigint as dead,
    max(committed_at) as committed_at
from (
    select * from headrace.batches
    where dataset = %(dataset)s
    order by seq desc
    limit %(lines)s
) as newest
where dag_id is not null and run_id is not null
group by dag_id, run_id
order by committed_at desc
limit %(runs)s
