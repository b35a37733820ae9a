select
    jobidentifier,
    userid,
    jobstatus,
    revenue,
    jobdate
from {{ ref('jobs').render() }}
where location = $1
order by jobdate desc nulls last, jobidentifier
limit $2
