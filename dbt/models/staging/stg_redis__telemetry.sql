with

source as (
    select * from {{ current('telemetry', key='event_id', wins='first') }}
),

renamed as (
    select
        event_id,
        device_id,
        zone,
        ts,
        kpi,
        value
    from source
)

select * from renamed
