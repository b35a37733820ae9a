with

source as (
    select * from {{ current('rides') }}
),

renamed as (
    select
        pulocationid,
        dolocationid,
        trip_distance,
        total_amount,
        tpep_pickup_datetime,
        _generation,
        _partition,
        _offset
    from source
)

select * from renamed
