-- every job with a jobcreatedate is counted in exactly one minute, with its revenue
with

minutes as (
    select
        coalesce(sum(jobs), 0) as jobs,
        coalesce(sum(revenue), 0) as revenue
    from {{ ref('jobs_per_minute') }}
),

jobs as (
    select
        count(*) as jobs,
        coalesce(sum(revenue), 0) as revenue
    from {{ ref('jobs') }}
    where jobcreatedate is not null
),

final as (
    select
        minutes.jobs as counted_jobs,
        jobs.jobs,
        minutes.revenue as counted_revenue,
        jobs.revenue
    from minutes
    cross join jobs
    where
        (minutes.jobs, minutes.revenue) <> (jobs.jobs, jobs.revenue)
        and {{ claims_equal(ref('jobs'), ref('jobs_per_minute')) }}
)

select * from final
