{{
    config(
        grain={'minute': minute_of('event_time'), 'event_type': 'event_type'},
        unique_key=['minute', 'event_type'],
    )
}}

select
    {{ minute_of('event_time') }} as minute,
    event_type,
    count(*) as events
from {{ ref('events') }}
group by 1, 2
