select
    build_id,
    case
        when bool_or(status = 'error') then 'error'
        when bool_or(status = 'failed tests') then 'failed tests'
        else 'success'
    end as status,
    count(distinct model) filter (where kind = 'model') as models,
    coalesce(sum(rows), 0)::bigint as rows,
    max(pass) as passes,
    round(extract(epoch from max(finished_at) - min(started_at)), 2)::double precision as seconds,
    coalesce(sum(cardinality(failed_tests)), 0)::integer as failed_tests,
    max(selection) as selection,
    max(finished_at) as finished_at
from (select * from headrace.builds order by finished_at desc limit %(lines)s) as newest
group by build_id
order by finished_at desc
limit %(builds)s
