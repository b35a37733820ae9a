{{
    config(
        unique_key=['location', 'rank'],
        meta={'emptied': 'userid is null'},
        pre_hook="{{ claim(ref('visitor_revenues')) }}",
        indexes=[
            {'columns': ['location', 'rank'], 'unique': true},
            {'columns': ['userid']},
        ],
    )
}}

-- depends_on: {{ ref('stg_kafka__jobs') }}
with

visitor_revenues as (
    select * from {{ ref('visitor_revenues') }}
),

{% if is_incremental() %}

versions as (
    select * from {{ ref('stg_kafka__jobs') }}
),

revenues_of_users as (
    select * from {{ ref('visitor_revenues') }}
),

built as (
    select * from {{ this }}
),

-- the locations of every version, so that a job that moved or was deleted corrects its old location too
touched_by_jobs as (
    select locations.location
    from {{ claimed('jobs') }} as claimed
    cross join lateral (
        select distinct versions.location
        from versions
        where versions.jobidentifier = claimed.jobidentifier and versions.location is not null
    ) as locations
),

-- for a user who moved: the locations where they count now, and where they counted before
touched_by_users as (
    select locations.location
    from {{ claimed('users') }} as claimed
    cross join lateral (
        select revenues_of_users.location
        from revenues_of_users
        where revenues_of_users.userid = claimed.userid
        union all
        select built.location
        from built
        where built.userid = claimed.userid
    ) as locations
),

touched as (
    select * from touched_by_jobs
    union distinct
    select * from touched_by_users
),

{% else %}

touched as (
    select distinct location from {{ ref('visitor_revenues') }}
),

{% endif %}

ranked as (
    select
        touched.location,
        first_users.rank,
        first_users.userid,
        first_users.revenue
    from touched
    cross join lateral (
        select
            visitor_revenues.userid,
            visitor_revenues.revenue,
            cast(row_number() over (order by visitor_revenues.revenue desc, visitor_revenues.userid) as integer) as rank
        from visitor_revenues
        where visitor_revenues.location = touched.location
        order by visitor_revenues.revenue desc, visitor_revenues.userid
        limit {{ ranks_held() }}
    ) as first_users
),

-- every rank of a touched location, including ranks that no user has any more
final as (
    select
        touched.location,
        places.rank,
        ranked.userid,
        ranked.revenue
    from touched
    cross join generate_series(1, {{ ranks_held() }}) as places (rank)
    left join ranked
        on
            touched.location = ranked.location
            and places.rank = ranked.rank
)

select * from final
{{ without_emptied() }}
