{{ config(unique_key='event_id', indexes=[{'columns': [minute_of('ts'), 'zone', 'kpi']}]) }}

select
    event_id,
    device_id,
    zone,
    ts,
    kpi,
    value,
    coalesce(value > {{ threshold_of('kpi') }}, false) as is_degraded
from {{ ref('stg_redis__telemetry') }}
