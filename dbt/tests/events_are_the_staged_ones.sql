-- marts.events holds exactly the ids that a staged record has
with

versions as (
    select * from {{ ref('stg_kafka__events') }}
),

staged as (
    {{ current_version('versions', 'events', key='event_id', wins='first') }}
),

events as (
    select * from {{ ref('events') }}
),

final as (
    select
        staged.event_id as staged_event_id,
        events.event_id
    from staged
    full join events on staged.event_id = events.event_id
    where
        (staged.event_id is null or events.event_id is null)
        and {{ has_built_all(ref('events'), 'events') }}
)

select * from final
