{{
    config(
        unique_key='event_id',
        meta={'emptied': 'event_time is null'},
        pre_hook="{{ claim('events') }}",
        indexes=[
            {'columns': ['event_id'], 'unique': true},
            {'columns': [minute_of('event_time'), 'event_type']},
        ],
    )
}}

with

versions as (
    select * from {{ ref('stg_kafka__events') }}
),

first_versions as (
    {{ current_version('versions', 'events', key='event_id', wins='first') }}
),

final as (
    select
        event_id,
        event_time,
        user_id,
        event_type,
        payload,
        schema_version
    from first_versions
)

select * from final
{{ without_emptied() }}
