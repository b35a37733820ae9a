-- every ride is counted in exactly one hour, with its amount and its distance
with

hours as (
    select
        coalesce(sum(rides), 0) as rides,
        coalesce(sum(revenue), 0) as revenue,
        coalesce(sum(distance), 0) as distance
    from {{ ref('rides_per_hour') }}
),

rides as (
    select
        count(*) as rides,
        coalesce(sum(total_amount), 0) as revenue,
        coalesce(sum(trip_distance), 0) as distance
    from {{ ref('rides') }}
),

final as (
    select
        hours.rides as counted_rides,
        rides.rides,
        hours.revenue as counted_revenue,
        rides.revenue,
        hours.distance as counted_distance,
        rides.distance
    from hours
    cross join rides
    where
        (hours.rides, hours.revenue, hours.distance) <> (rides.rides, rides.revenue, rides.distance)
        and {{ claims_equal(ref('rides'), ref('rides_per_hour')) }}
)

select * from final
