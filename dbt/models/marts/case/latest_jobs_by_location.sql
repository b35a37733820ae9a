{{ config(grain='location', unique_key=['location', 'rank']) }}

with

ranked as (
    select
        location,
        cast(
            row_number() over (partition by location order by jobdate desc nulls last, jobidentifier) as integer
        ) as rank,
        jobidentifier,
        userid,
        jobstatus,
        revenue,
        jobdate
    from {{ ref('jobs') }}
)

select * from ranked
where rank <= {{ ranks_held() }}
