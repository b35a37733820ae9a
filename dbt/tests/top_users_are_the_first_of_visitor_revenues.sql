-- every location has its first ranks, which hold its highest revenues; read once a day, by audit_marts
with

numbered as (
    select
        location,
        userid,
        revenue,
        row_number() over (partition by location order by revenue desc, userid) as rank
    from {{ ref('visitor_revenues') }}
),

ranked as (
    select * from numbered
    where rank <= {{ ranks_held() }}
),

top_users as (
    select * from {{ ref('top_users_by_location') }}
),

final as (
    select
        ranked.location as ranked_location,
        ranked.rank as expected_rank,
        top_users.location,
        top_users.rank
    from ranked
    full join top_users
        on
            ranked.location = top_users.location
            and ranked.rank = top_users.rank
            and ranked.userid = top_users.userid
            and ranked.revenue = top_users.revenue
    where
        (ranked.location is null or top_users.location is null)
        and {{ in_audits(ref('top_users_by_location')) }}
)

select * from final
