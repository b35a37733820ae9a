{{ config(grain={'hour': hour_of('tpep_pickup_datetime')}, unique_key='hour') }}

select
    {{ hour_of('tpep_pickup_datetime') }} as hour,
    coalesce(sum(total_amount), 0) as revenue,
    count(*) as rides,
    coalesce(sum(trip_distance), 0) as distance
from {{ ref('rides') }}
group by 1
