{{
    config(
        unique_key=['location', 'userid'],
        meta={'emptied': 'revenue = 0'},
        pre_hook="{{ claim(ref('jobs'), ref('users')) }}",
        indexes=[
            {'columns': ['userid', 'location'], 'unique': true},
            {'columns': ['location', 'revenue desc', 'userid']},
        ],
    )
}}

-- depends_on: {{ ref('stg_kafka__jobs') }}
with

jobs as (
    select * from {{ ref('jobs') }}
),

users as (
    select * from {{ ref('users') }}
),

{% if is_incremental() %}

versions as (
    select * from {{ ref('stg_kafka__jobs') }}
),

-- a second import: Postgres scans a CTE that is read twice as a whole
jobs_of_users as (
    select * from {{ ref('jobs') }}
),

homes as (
    select * from {{ ref('users') }}
),

built as (
    select * from {{ this }}
),

-- the pairs of every version, so that a job that moved or was deleted corrects its old pair too
pairs_of_jobs as (
    select
        pairs.location,
        pairs.userid
    from {{ claimed('jobs') }} as claimed
    cross join lateral (
        select distinct
            versions.location,
            versions.userid
        from versions
        where
            versions.jobidentifier = claimed.jobidentifier
            and versions.location is not null
            and versions.userid is not null
    ) as pairs
),

-- Pairs of users at home are excluded: the model has no rows for them, except those of users who moved since, and
-- summing their jobs took 13 s of 15 s with 10 million jobs.
touched_by_jobs as (
    select
        pairs_of_jobs.location,
        pairs_of_jobs.userid
    from pairs_of_jobs
    inner join homes on pairs_of_jobs.userid = homes.userid
    where pairs_of_jobs.location <> homes.location
),

-- for a user who moved: the pairs of all their jobs, in current and earlier versions
touched_by_users as (
    select
        pairs.location,
        pairs.userid
    from {{ claimed('users') }} as claimed
    cross join lateral (
        select
            jobs_of_users.location,
            jobs_of_users.userid
        from jobs_of_users
        where jobs_of_users.userid = claimed.userid
        union all
        select
            built.location,
            built.userid
        from built
        where built.userid = claimed.userid
    ) as pairs
),

touched as (
    select * from touched_by_jobs
    union distinct
    select * from touched_by_users
),

final as (
    select
        touched.location,
        touched.userid,
        summed.revenue
    from touched
    cross join lateral (
        select coalesce(sum(jobs.revenue), 0) as revenue
        from jobs
        inner join users on jobs.userid = users.userid
        where
            jobs.location = touched.location
            and jobs.userid = touched.userid
            and users.location <> touched.location
    ) as summed
)

{% else %}

final as (
    select
        jobs.location,
        jobs.userid,
        coalesce(sum(jobs.revenue), 0) as revenue
    from jobs
    inner join users on jobs.userid = users.userid
    where users.location <> jobs.location
    group by 1, 2
)

{% endif %}

select * from final
{{ without_emptied() }}
