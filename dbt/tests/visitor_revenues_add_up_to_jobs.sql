-- what users earned away from home is in exactly one row of visitor_revenues
with

revenues as (
    select coalesce(sum(revenue), 0) as revenue from {{ ref('visitor_revenues') }}
),

jobs as (
    select * from {{ ref('jobs') }}
),

users as (
    select * from {{ ref('users') }}
),

earned as (
    select coalesce(sum(jobs.revenue), 0) as revenue
    from jobs
    inner join users on jobs.userid = users.userid
    where jobs.location <> users.location
),

final as (
    select
        revenues.revenue as summed_revenue,
        earned.revenue
    from revenues
    cross join earned
    where
        revenues.revenue <> earned.revenue
        and {{ claims_equal(ref('jobs'), ref('visitor_revenues')) }}
        and {{ claims_equal(ref('users'), ref('visitor_revenues')) }}
)

select * from final
