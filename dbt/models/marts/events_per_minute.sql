{{
    config(
        unique_key=['minute', 'event_type'],
        meta={'emptied': 'events = 0'},
        pre_hook="{{ claim(ref('events')) }}",
        indexes=[{'columns': ['minute', 'event_type'], 'unique': true}],
    )
}}

-- depends_on: {{ ref('stg_kafka__events') }}
with

events as (
    select * from {{ ref('events') }}
),

{% if is_incremental() %}

versions as (
    select * from {{ ref('stg_kafka__events') }}
),

-- the minutes of every version, so that an event whose counted version changed corrects its old minute too
touched as (
    select distinct
        minutes.minute,
        minutes.event_type
    from {{ claimed('events') }} as claimed
    cross join lateral (
        select distinct
            {{ minute_of('versions.event_time') }} as minute,
            versions.event_type
        from versions
        where versions.event_id = claimed.event_id and versions.event_time is not null
    ) as minutes
),

final as (
    select
        touched.minute,
        touched.event_type,
        counted.events
    from touched
    cross join lateral (
        select count(*) as events
        from events
        where {{ minute_of('events.event_time') }} = touched.minute and events.event_type = touched.event_type
    ) as counted
)

{% else %}

final as (
    select
        {{ minute_of('event_time') }} as minute,
        event_type,
        count(*) as events
    from events
    group by 1, 2
)

{% endif %}

select * from final
{{ without_emptied() }}
