{{
    config(
        unique_key=['servicename', 'rank'],
        meta={'emptied': 'jobidentifier is null'},
        pre_hook="{{ claim(ref('jobs')) }}",
        indexes=[{'columns': ['servicename', 'rank'], 'unique': true}],
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

-- the services of every version of a job
touched as (
    select distinct services.servicename
    from {{ claimed('jobs') }} as claimed
    cross join lateral (
        select distinct versions.servicename
        from versions
        where versions.jobidentifier = claimed.jobidentifier and versions.servicename is not null
    ) as services
),

{% else %}

touched as (
    select distinct servicename from {{ ref('jobs') }}
),

{% endif %}

ranked as (
    select
        touched.servicename,
        latest_jobs.*
    from touched
    cross join lateral (
        select
            jobs.jobidentifier,
            jobs.userid,
            jobs.jobstatus,
            jobs.revenue,
            jobs.jobdate,
            cast(row_number() over (order by jobs.jobdate desc nulls last, jobs.jobidentifier) as integer) as rank
        from jobs
        where jobs.servicename = touched.servicename
        order by jobs.jobdate desc nulls last, jobs.jobidentifier
        limit {{ ranks_held() }}
    ) as latest_jobs
),

-- every rank of a touched servicename, including ranks that no job has any more
final as (
    select
        touched.servicename,
        places.rank,
        ranked.jobidentifier,
        ranked.userid,
        ranked.jobstatus,
        ranked.revenue,
        ranked.jobdate
    from touched
    cross join generate_series(1, {{ ranks_held() }}) as places (rank)
    left join ranked
        on
            touched.servicename = ranked.servicename
            and places.rank = ranked.rank
)

select * from final
{{ without_emptied() }}
