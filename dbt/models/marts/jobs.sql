{{
    config(
        unique_key='jobidentifier',
        indexes=[
            {'columns': [minute_of('jobcreatedate')]},
            {'columns': ['userid', 'location']},
            {'columns': ['location', 'jobdate desc nulls last', 'jobidentifier']},
            {'columns': ['servicename', 'jobdate desc nulls last', 'jobidentifier']},
        ],
    )
}}

select
    jobidentifier,
    userid,
    jobcreatedate,
    jobdate,
    jobstatus,
    location,
    case when jobstatus = 'SUCCESS' then coalesce(reported_revenue, 0) else 0 end as revenue,
    reported_revenue,
    servicename
from {{ ref('stg_kafka__jobs') }}
