{{ config(grain='location', unique_key=['location', 'rank']) }}

with

ranked as (
    select
        location,
        row_number() over (partition by location order by jobdate desc nulls last, jobidentifier) as rank,
        jobidentifier,
        userid,
        jobstatus,
        revenue,
        jobdate
    from {{ ref('jobs') }}
)

select
    location,
    cast(rank as integer) as rank,
    jobidentifier,
    userid,
    jobstatus,
    revenue,
    jobdate
from ranked
where rank <= {{ ranks_held() }}
