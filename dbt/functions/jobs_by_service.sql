select
    jobidentifier,
    userid,
    jobstatus,
    revenue,
    jobdate
from {{ ref('jobs').render() }}
where servicename = $1
order by jobdate desc nulls last, jobidentifier
limit $2
