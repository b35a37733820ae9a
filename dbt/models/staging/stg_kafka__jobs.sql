-- no CTEs here: Postgres flattens no subquery that has some, and would scan the whole table for a few claimed keys
select
    jobidentifier,
    userid,
    jobcreatedate,
    jobdate,
    jobstatus,
    location,
    revenue as reported_revenue,
    servicename,
    _generation,
    _partition,
    _offset,
    _timestamp,
    _deleted,
    false as is_replaced
from {{ source('staging', 'jobs') }}
union all
select
    jobidentifier,
    userid,
    jobcreatedate,
    jobdate,
    jobstatus,
    location,
    revenue as reported_revenue,
    servicename,
    _generation,
    _partition,
    _offset,
    _timestamp,
    _deleted,
    true as is_replaced
from {{ source('staging', 'jobs_replaced') }}
