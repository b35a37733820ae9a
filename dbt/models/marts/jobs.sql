{{
    config(
        unique_key='jobidentifier',
        meta={'emptied': 'jobstatus is null'},
        pre_hook="{{ claim('jobs') }}",
        indexes=[
            {'columns': ['jobidentifier'], 'unique': true},
            {'columns': [minute_of('jobcreatedate')]},
            {'columns': ['userid', 'location']},
            {'columns': ['location', 'jobdate desc nulls last', 'jobidentifier']},
            {'columns': ['servicename', 'jobdate desc nulls last', 'jobidentifier']},
        ],
    )
}}

with

versions as (
    select * from {{ ref('stg_kafka__jobs') }}
),

current_versions as (
    {{ current_version('versions', 'jobs', key='jobidentifier') }}
),

final as (
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
    from current_versions
)

select * from final
{{ without_emptied() }}
