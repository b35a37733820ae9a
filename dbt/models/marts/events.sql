{{ config(unique_key='event_id', indexes=[{'columns': [minute_of('event_time'), 'event_type']}]) }}

select
    event_id,
    event_time,
    user_id,
    event_type,
    payload,
    schema_version
from {{ ref('stg_kafka__events') }}
