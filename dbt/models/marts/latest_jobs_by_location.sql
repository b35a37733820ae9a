{{
    config(
        unique_key=['location', 'rank'],
        meta={'emptied': 'jobidentifier is null'},
        pre_hook="{{ claim(ref('jobs')) }}",
        indexes=[{'columns': ['location', 'rank'], 'unique': true}],
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

-- the locations of every version of a job
touched as (
    select distinct locations.location
    from {{ claimed('jobs') }} as claimed
    cross join lateral (
        select distinct versions.location
        from versions
        where versions.jobidentifier = claimed.jobidentifier and versions.location is not null
    ) as locations
),

{% else %}

touched as (
    select distinct location from {{ ref('jobs') }}
),

{% endif %}

ranked as (
    select
        touched.location,
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
        where jobs.location = touched.location
        order by jobs.jobdate desc nulls last, jobs.jobidentifier
        limit {{ ranks_held() }}
    ) as latest_jobs
),

-- every rank of a touched location, including ranks that no job has any more
final as (
    select
        touched.location,
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
            touched.location = ranked.location
            and places.rank = ranked.rank
)

select * from final
{{ without_emptied() }}
