-- no CTEs here: Postgres flattens no subquery that has some, and would scan the whole table for a few claimed keys
select
    pulocationid,
    dolocationid,
    trip_distance,
    total_amount,
    tpep_pickup_datetime,
    _generation,
    _partition,
    _offset,
    _timestamp,
    _deleted,
    false as is_replaced
from {{ source('staging', 'rides') }}
union all
select
    pulocationid,
    dolocationid,
    trip_distance,
    total_amount,
    tpep_pickup_datetime,
    _generation,
    _partition,
    _offset,
    _timestamp,
    _deleted,
    true as is_replaced
from {{ source('staging', 'rides_replaced') }}
