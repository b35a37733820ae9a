{{ config(grain='servicename', unique_key=['servicename', 'rank']) }}

with

ranked as (
    select
        servicename,
        row_number() over (partition by servicename order by jobdate desc nulls last, jobidentifier) as rank,
        jobidentifier,
        userid,
        jobstatus,
        revenue,
        jobdate
    from {{ ref('jobs') }}
)

select
    servicename,
    cast(rank as integer) as rank,
    jobidentifier,
    userid,
    jobstatus,
    revenue,
    jobdate
from ranked
where rank <= {{ ranks_held() }}
