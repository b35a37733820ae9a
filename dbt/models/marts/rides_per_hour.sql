{{
    config(
        unique_key='hour',
        meta={'emptied': 'rides = 0'},
        pre_hook="{{ claim(ref('rides')) }}",
        indexes=[{'columns': ['hour'], 'unique': true}],
    )
}}

-- depends_on: {{ ref('stg_kafka__rides') }}
with

rides as (
    select * from {{ ref('rides') }}
),

{% if is_incremental() %}

versions as (
    select * from {{ ref('stg_kafka__rides') }}
),

-- the hours of every version, so that a ride that a reload corrected or removed corrects its old hour too
touched as (
    select distinct hours.hour
    from {{ claimed('rides') }} as claimed
    cross join lateral (
        select {{ hour_of('versions.tpep_pickup_datetime') }} as hour
        from versions
        where
            versions._generation = claimed._generation
            and versions._partition = claimed._partition
            and versions._offset = claimed._offset
            and versions.tpep_pickup_datetime is not null
    ) as hours
),

final as (
    select
        touched.hour,
        summed.revenue,
        summed.rides,
        summed.distance
    from touched
    cross join lateral (
        select
            coalesce(sum(rides.total_amount), 0) as revenue,
            count(*) as rides,
            coalesce(sum(rides.trip_distance), 0) as distance
        from rides
        where {{ hour_of('rides.tpep_pickup_datetime') }} = touched.hour
    ) as summed
)

{% else %}

final as (
    select
        {{ hour_of('tpep_pickup_datetime') }} as hour,
        coalesce(sum(total_amount), 0) as revenue,
        count(*) as rides,
        coalesce(sum(trip_distance), 0) as distance
    from rides
    group by 1
)

{% endif %}

select * from final
{{ without_emptied() }}
