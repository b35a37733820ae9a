{{
    config(
        unique_key='jobidentifier',
        meta={'emptied': 'jobcreatedate is null'},
        pre_hook="{{ claim('jobs') }}",
        indexes=[
            {'columns': ['jobidentifier'], 'unique': true},
            {'columns': [minute_of('jobcreatedate')]},
            {'columns': ['userid', 'location']},
            {'columns': ['location', 'jobdate desc', 'jobidentifier']},
            {'columns': ['servicename', 'jobdate desc', 'jobidentifier']},
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
        cast(case when jobstatus = 'SUCCESS' then reported_revenue else 0 end as numeric(15, 2)) as revenue,
        reported_revenue,
        servicename
    from current_versions
)

select * from final
{{ without_emptied() }}
