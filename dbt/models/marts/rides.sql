{{
    config(
        unique_key=['_generation', '_partition', '_offset'],
        indexes=[{'columns': [hour_of('tpep_pickup_datetime')]}],
    )
}}

select
    concat_ws('-', _generation, _partition, _offset) as ride_id,
    pulocationid,
    dolocationid,
    trip_distance,
    total_amount,
    tpep_pickup_datetime,
    _generation,
    _partition,
    _offset
from {{ ref('stg_kafka__rides') }}
