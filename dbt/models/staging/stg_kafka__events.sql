with

source as (
    select * from {{ current('events', key='event_id', wins='first') }}
),

renamed as (
    select
        event_id,
        event_time,
        user_id,
        event_type,
        payload,
        schema_version
    from source
)

select * from renamed
