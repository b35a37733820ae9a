-- every event is counted in exactly one minute, under its type
with

counted as (
    select
        event_type,
        sum(events) as events
    from {{ ref('events_per_minute') }}
    group by 1
),

kept as (
    select
        event_type,
        count(*) as events
    from {{ ref('events') }}
    group by 1
),

final as (
    select
        coalesce(counted.event_type, kept.event_type) as event_type,
        counted.events as counted_events,
        kept.events
    from counted
    full join kept on counted.event_type = kept.event_type
    where
        counted.events is distinct from kept.events
        and {{ claims_equal(ref('events'), ref('events_per_minute')) }}
)

select * from final
