{{
    config(
        unique_key='minute',
        meta={'emptied': 'jobs = 0'},
        pre_hook="{{ claim(ref('jobs')) }}",
        indexes=[{'columns': ['minute'], 'unique': true}],
    )
}}

-- depends_on: {{ ref('stg_kafka__jobs') }}
with

jobs as (
    select * from {{ ref('jobs') }}
),

{% if is_incremental() %}

versions as (
    select * from {{ ref('stg_kafka__jobs') }}
),

-- the minutes of every version, so that a job that moved or was deleted corrects its old minute too
touched as (
    select distinct minutes.minute
    from {{ claimed('jobs') }} as claimed
    cross join lateral (
        select distinct {{ minute_of('versions.jobcreatedate') }} as minute
        from versions
        where versions.jobidentifier = claimed.jobidentifier and versions.jobcreatedate is not null
    ) as minutes
),

final as (
    select
        touched.minute,
        counted.jobs,
        counted.revenue
    from touched
    cross join lateral (
        select
            count(*) as jobs,
            coalesce(sum(jobs.revenue), 0) as revenue
        from jobs
        where {{ minute_of('jobs.jobcreatedate') }} = touched.minute
    ) as counted
)

{% else %}

final as (
    select
        {{ minute_of('jobcreatedate') }} as minute,
        count(*) as jobs,
        coalesce(sum(revenue), 0) as revenue
    from jobs
    where jobcreatedate is not null
    group by 1
)

{% endif %}

select * from final
{{ without_emptied() }}
